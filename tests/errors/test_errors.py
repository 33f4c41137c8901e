"""Checks of arguments: the value as it was given, and the whole range that is allowed, in one line."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch

from hpml_sim.errors import (
    HpmlError,
    UnknownNameError,
    check_choice,
    check_memory,
    check_real,
    check_switch,
    check_whole,
    free_memory_bytes,
    needs,
    range_text,
    shown,
)


@pytest.mark.parametrize("value", [3, np.int8(3), np.int64(3)])
def test_whole_numbers(value):
    assert type(check_whole("n", value, low=0, high=3)) is int
    assert check_whole("n", value) == 3


@pytest.mark.parametrize(
    "value", ["3", 3.0, 2.5, True, None, [3], np.float64(3), np.bool_(True), 1j, float("nan"), object()]
)
def test_what_is_no_whole_number(value):
    with pytest.raises(HpmlError, match=r"^fit: epochs=.+: must be a whole number >= 0; such as 3$"):
        check_whole("fit: epochs", value, low=0, hint="such as 3")


@pytest.mark.parametrize(("value", "bounds"), [(-1, {"low": 0}), (17, {"low": 2, "high": 16}), (9, {"high": 8})])
def test_whole_numbers_out_of_range(value, bounds):
    with pytest.raises(HpmlError, match=f"^n={value}: must be a whole number "):
        check_whole("n", value, **bounds)


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int64(1), Fraction(1, 2)])
def test_numbers(value):
    assert type(check_real("x", value, above=0, high=1)) is float
    assert check_real("x", value) == float(value)


@pytest.mark.parametrize(
    "value", ["1", True, None, [1.0], float("inf"), float("nan"), -float("inf"), 10**400, 1j, np.zeros(1)]
)
def test_what_is_no_finite_number(value):
    with pytest.raises(HpmlError, match=r"^fit: lr=.+: must be a finite number > 0$"):
        check_real("fit: lr", value, above=0)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [(0, {"above": 0}), (1, {"below": 1}), (-0.1, {"low": 0, "high": 1}), (1.1, {"low": 0, "high": 1})],
)
def test_numbers_out_of_range(value, bounds):
    with pytest.raises(HpmlError, match=f"^x={value}: must be a finite number "):
        check_real("x", value, **bounds)


def test_switches():
    assert check_switch("s", True) is True
    for value in (1, "yes", None, np.bool_(True)):
        with pytest.raises(HpmlError, match=r"^s=.+: must be True or False$"):
            check_switch("s", value)


def test_choices():
    assert check_choice("phase", "decode", ("prefill", "decode")) == "decode"
    with pytest.raises(HpmlError, match=r"^phase='decod': unknown; did you mean 'decode'\?$"):
        check_choice("phase", "decod", ("prefill", "decode"))
    for value in (3, None, "zzz"):
        with pytest.raises(HpmlError, match=r"^phase=.+: must be one of 'prefill', 'decode'$"):
            check_choice("phase", value, ("prefill", "decode"))


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({}, "a number"),
        ({"low": 2, "high": 16}, "a number from 2 to 16"),
        ({"low": 0.5}, "a number >= 0.5"),
        ({"above": 0}, "a number > 0"),
        ({"low": 0, "below": 1}, "a number >= 0 and < 1"),
        ({"above": 0.5, "high": 1}, "a number > 0.5 and <= 1"),
        ({"low": 0, "below": 2**63}, "a number >= 0 and < 2^63"),
        ({"low": 2, "high": 65536}, "a number from 2 to 65536"),
    ],
)
def test_ranges_in_words(bounds, text):
    assert range_text("a number", **bounds) == text


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", r"'a\nb'"),
        (3, "3"),
        (np.float32(0.5), "np.float32(0.5)"),
        ([1, 2], "[1, 2]"),
        (torch.zeros(3), "<Tensor>"),
        ([Unprintable()], "<list>"),
        (Unprintable(), "<Unprintable>"),
    ],
)
def test_values_on_one_line(value, text):
    assert shown(value) == text


def test_long_values_are_cut():
    assert len(shown("x" * 500)) == 60
    assert shown("x" * 500).endswith("...")
    assert shown(10**5000) == "<int>"  # Python writes no number of so many digits


def test_an_unknown_name_of_any_kind_and_across_processes():
    for value in (3, None, ["pcm"], "x" * 500):
        assert "\n" not in str(UnknownNameError("card", value, ["pcm"]))
    error = UnknownNameError("card", "pmc", ["pcm"])
    assert error.suggestion == "pcm"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_package_that_is_missing_is_named_with_its_command():
    with pytest.raises(HpmlError, match=r"reading x needs a package .*pip install 'h5py'"), needs("reading x", "h5py"):
        import no_such_package  # noqa: F401  # pyright: ignore[reportMissingImports]


GROUPS = {
    "version 2": ("0::/job/step", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "version 1": (
        "4:cpu,memory:/job/step", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GROUPS)
def test_free_memory_is_that_of_machine_groups_and_limit(kind, tmp_path):
    line, base, most, used, files = GROUPS[kind]

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")

    assert free_memory_bytes(tmp_path) is None
    write("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    4000 kB")
    assert free_memory_bytes(tmp_path) == 4000 * 1024
    write("proc/self/cgroup", f"9:name=systemd:/\n{line}")
    write(f"{base}/job/step/{most}", "max")
    write(f"{base}/job/step/{used}", "1000")
    assert free_memory_bytes(tmp_path) == 4000 * 1024
    write(f"{base}/job/{most}", "3000000")  # of the group around it
    write(f"{base}/job/{used}", "1000000")
    assert free_memory_bytes(tmp_path) == 2_000_000
    write(f"{base}/job/memory.stat", f"anon 5\n{files} 400000\nother 7")
    assert free_memory_bytes(tmp_path) == 2_400_000
    write("proc/self/limits", "Limit  Soft Limit  Hard Limit  Units\nMax address space  1500000  unlimited  bytes")
    write("proc/self/status", "Name:\tpython\nVmSize:\t    1000 kB")
    assert free_memory_bytes(tmp_path) == 1_500_000 - 1000 * 1024


def test_what_needs_more_memory_than_is_free_is_one_line(monkeypatch):
    monkeypatch.setattr("hpml_sim.errors.free_memory_bytes", lambda: 2.0**30)
    check_memory("it", 2.0**30, "take less")
    with pytest.raises(HpmlError, match=r"^it: needs at least 1\.5 GiB, and 1\.0 GiB are free; take less$"):
        check_memory("it", 1.5 * 2**30, "take less")
