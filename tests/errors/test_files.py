"""Files are written whole or not at all, and what changed in them is found when they are read."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hpml_sim.errors import HpmlError
from hpml_sim.errors.files import Kind, check_path, checksum, read_tensors, write_file, write_tensors

KIND = Kind("test.Things", 2, "things", "make them again")


def test_tensors_and_values_come_back(tmp_path):
    file, whole = tmp_path / "a", torch.arange(12.0).view(3, 4)
    tensors = {
        "number": torch.tensor(3, dtype=torch.int8),
        "half": torch.randn(2, 3, dtype=torch.bfloat16),
        "none": torch.empty(0, 4),
        "true": torch.tensor([True, False]),
        "view": whole[1:, ::2],
        "again": whole,
        "expanded": torch.ones(1, 3).expand(2, 3),
        "double": torch.randn(2, dtype=torch.float64),
    }
    values = {"seed": 2**63, "share": 0.1, "names": ["a", None], "text": "ü\n"}
    write_tensors(file, KIND, tensors, values)
    found, told = read_tensors(file, KIND)
    assert told == values
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert list(tmp_path.iterdir()) == [file]


def test_every_flipped_bit_that_means_something_is_found(tmp_path):
    file, draw = tmp_path / "things", random.Random(1)
    write_tensors(file, KIND, {"a": torch.randn(5, 3), "b": torch.arange(4)}, {"seed": 3})
    good, found = file.read_bytes(), 0
    want = read_tensors(file, KIND)
    for _ in range(500):
        bit = draw.randrange(8 * len(good))
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            tensors, values = read_tensors(file, KIND)
        except HpmlError as error:
            found += str(file) in str(error) and str(error).endswith("; make them again") and "\n" not in str(error)
        else:  # a blank of the header, say
            found += 1
            assert values == want[1]
            assert all(torch.equal(tensors[name], tensor) for name, tensor in want[0].items())
    assert found == 500


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as things"),
        (b"text", "cannot be read as things"),
        (b"\xff" * 100, "cannot be read as things"),
        (b"PK\x03\x04" + b"\0" * 60, "cannot be read as things"),
    ],
)
def test_what_is_no_such_file(tmp_path, content, says):
    file = tmp_path / "things"
    file.write_bytes(content)
    with pytest.raises(HpmlError, match=f"{says}.*; make them again"):
        read_tensors(file, KIND)


def test_another_kind_format_or_place(tmp_path):
    file = tmp_path / "things"
    write_tensors(file, KIND, {"a": torch.ones(2)}, {})
    with pytest.raises(HpmlError, match="is no file of others; find it"):
        read_tensors(file, Kind("test.Others", 2, "others", "find it"))
    with pytest.raises(HpmlError, match="has format 2, this version reads 3; make them again"):
        read_tensors(file, Kind("test.Things", 3, "things", "make them again"))
    with pytest.raises(HpmlError, match="does not exist; make them again"):
        read_tensors(tmp_path / "none", KIND)
    with pytest.raises(HpmlError, match="is a folder; make them again"):
        read_tensors(tmp_path, KIND)


@pytest.mark.parametrize(
    ("tensors", "values"),
    [
        ({"a": torch.ones(2).to_sparse()}, {}),
        ({"a": 3}, {}),
        ({}, {"a": float("nan")}),
        ({}, {"a": object()}),
    ],
)
def test_what_a_file_cannot_hold_leaves_the_old_one(tmp_path, tensors, values):
    file = tmp_path / "things"
    file.write_text("old")
    with pytest.raises(HpmlError, match=r"things: .*holds dense tensors and what JSON can say only") as caught:
        write_tensors(file, KIND, tensors, values)
    assert "\n" not in str(caught.value)
    assert file.read_text() == "old"


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(HpmlError, match="is a folder; name a file in it"):
        write_file(tmp_path, "x")
    with pytest.raises(HpmlError, match="its folder does not exist; make it first"):
        write_file(tmp_path / "no" / "file", "x")
    for path in ("", None, 3, "a\0b"):
        with pytest.raises(HpmlError, match=r"save: path=.*must be the path of a file, such as 'a\.txt'"):
            check_path("save: path", path, "a.txt")
    assert check_path("save: path", "b.txt", "a.txt") == Path("b.txt")


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """The limit on the size of files stands for a full disk."""
    script = """
        import resource, sys
        from pathlib import Path
        from hpml_sim.errors import HpmlError
        from hpml_sim.errors.files import write_file
        file = Path(sys.argv[1])
        write_file(file, "old" * 100)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        try:
            write_file(file, "new" * 1000, safe="nothing is lost")
        except HpmlError as error:
            print(error)
        assert file.read_text() == "old" * 100
        assert [one.name for one in file.parent.iterdir()] == [file.name]
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be written (File too large); nothing is lost" in done.stdout


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    """It is killed again and again while it writes over a good file; what is there is always one of the whole ones."""
    script = """
        import os, random, signal, sys, time
        from pathlib import Path
        from hpml_sim.errors.files import write_file
        file, draw, torn = Path(sys.argv[1]), random.Random(0), 0
        write_file(file, b"0" * 3_000_000)
        for _ in range(50):
            writer = os.fork()
            while writer == 0:
                for number in b"123456789":
                    write_file(file, bytes([number]) * 3_000_000)
            time.sleep(draw.uniform(0, 0.03))
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
            raw = file.read_bytes()
            torn += len(raw) != 3_000_000 or len(set(raw)) != 1
        print("torn:", torn, "others:", raw[:1] != b"0")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "file")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "torn: 0 others: True\n"


def test_checksum_is_the_beginning_of_sha_256():
    assert checksum(b"abc") == "ba7816bf8f01cfea"
