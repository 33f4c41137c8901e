"""Targets that cannot be wrong: what is not allowed is refused when they are built, by one line of ours."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpml_sim.errors import CardError, HpmlError, UnknownNameError
from hpml_sim.targets import Adaptive, Analog, Digital, InMemory, Leaky, PerLayer, Spiking, Synaptic, checked

INF, NAN = float("inf"), float("nan")
BITS = "a whole number from 2 to 16 or None"
SHARE = "a finite number from 0 to 1"
ABOVE_0 = "a finite number > 0"
SWITCH = "True or False"
DEVICES = (
    "one of 'reram-es', 'reram-sb', 'capacitor', 'ecram', 'ecram-mo', 'idealized', 'gokmen-vlasov', 'pcm', "
    "'reram-array-om', 'reram-array-hfo2'"
)
RULES = "one of 'sgd', 'mixed-precision', 'tiki-taka', 'tiki-taka-v2', 'chopped-tiki-taka-v2', 'agad'"
RESOLUTION = "a whole number from 2 to 16, 'ideal', or None"
CARD = "the name of a card, or the path of a TOML file"


def analog(**options: Any) -> Analog:
    return Analog("pcm", **options)


def in_memory(**options: Any) -> InMemory:
    return InMemory("pcm", **({"device": "ecram"} | options))


def spiking(**options: Any) -> Spiking:
    return Spiking("loihi", **options)


def digital(**options: Any) -> Digital:
    return Digital("h200", **options)


# (target, option, what is allowed, values that are allowed, values beyond the ends)
NUMBERS = [
    (analog, "dac_bits", RESOLUTION, [2, 16, "ideal", None], [1, 17, -1]),
    (analog, "adc_bits", RESOLUTION, [2, 16, "ideal", None], [1, 17, 10**400]),
    (analog, "output_noise", SHARE, [0, 1, 0.5], [-1e-9, 1.001]),
    (analog, "training_noise", f"{SHARE} or 'programming'", [0, 1, "programming"], [-1, 2]),
    (analog, "drop_connect", "a finite number >= 0 and < 1", [0, 0.999], [-0.1, 1]),
    (analog, "weight_clip", "a finite number >= 1 or None", [1, 2.5, None], [0.99, -3]),
    (analog, "adc_bound", f"{ABOVE_0} or None", [1e-9, 1e9, None], [0, -1, 10**400]),
    (analog, "read_noise", SHARE, [0, 1], [-1, 2]),
    (analog, "ir_drop", "a finite number from 0 to 10", [0, 10], [-0.1, 10.1]),
    (analog, "levels", "a whole number from 2 to 65536 or None", [2, 65536, None], [1, 65537]),
    (analog, "slices", "a whole number from 1 to 16", [1], [0, 17]),
    (analog, "stuck_at_g_min", SHARE, [0, 1], [-0.1, 1.1]),
    (analog, "stuck_at_g_max", SHARE, [0, 1], [-0.1, 1.1]),
    (in_memory, "device_seed", "a whole number >= 0 and < 2^63", [0, 2**63 - 1], [-1, 2**63]),
    (in_memory, "dac_bits", BITS, [2, 16, None], [1, 17]),
    (in_memory, "adc_bits", BITS, [2, 16, None], [1, 17]),
    (in_memory, "output_noise", SHARE, [0, 1], [-1, 2]),
    (in_memory, "adc_bound", ABOVE_0, [0.1], [0, -1]),
    (spiking, "steps", "a whole number >= 1", [1, 10_000], [0, -5]),
    (spiking, "population", "a whole number >= 1", [1, 20], [0]),
    *[
        (kind, option, allowed, good, bad)
        for kind in (Leaky, Synaptic, Adaptive)
        for option, allowed, good, bad in (
            ("beta", SHARE, [0, 1, 0.9], [-0.1, 1.1]),
            ("threshold", ABOVE_0, [0.1, 20], [0, -1]),
            ("slope", "a finite number or None", [2.0, -1, None], []),
        )
    ],
    (Synaptic, "current_decay", "a finite number >= 0 and < 1", [0, 0.99], [-0.1, 1]),
    (Adaptive, "adaptation", "a finite number >= 0", [0, 3], [-0.1]),
    (Adaptive, "adaptation_decay", SHARE, [0, 1], [-0.1, 1.1]),
]
# (target, option, what is allowed, a name that is allowed, one that is misspelt, its guess)
NAMES = [
    (analog, "engine", "one of 'fused', 'aihwkit'", "aihwkit", "aihwkti", "aihwkit"),
    (analog, "compensation", "one of 'none', 'global', 'column'", "column", "colum", "column"),
    (analog, "weight_clip_by", "one of 'layer', 'channel'", "channel", "chanel", "channel"),
    (analog, "input_range_by", "one of 'layer', 'channel'", "channel", "chanel", "channel"),
    (in_memory, "device", DEVICES, "capacitor", "capacitr", "capacitor"),
    (in_memory, "rule", RULES, "agad", "tiki-taka-2", "tiki-taka-v2"),
    (
        spiking,
        "encoder",
        "one of 'rate', 'direct', 'latency', 'population', 'frames', 'delta' or None",
        None,
        "rat",
        "rate",
    ),
    (spiking, "engine", "one of 'fused', 'snntorch'", "snntorch", "snntorhc", "snntorch"),
    (spiking, "readout", "one of 'spikes', 'membrane'", "membrane", "membran", "membrane"),
    (digital, "precision", "one of 'fp32', 'tf32', 'bf16', 'fp16', 'int8'", "int8", "bf17", "bf16"),
    (
        digital,
        "engine",
        "one of 'torch', 'torch-compile', 'cuda-graph', 'numba-cuda'",
        "cuda-graph",
        "torch-compiled",
        "torch-compile",
    ),
    (Leaky, "reset", "one of 'subtract', 'zero'", "zero", "subtrat", "subtract"),
    (Synaptic, "reset", "one of 'subtract', 'zero'", "zero", "zer", "zero"),
]
SWITCHES = [
    (spiking, "scale_weights"),
    (digital, "channels_last"),
    (Leaky, "reset_delay"),
]
MADE = [
    analog(adc_bits=6, levels=4, slices=3),
    analog(adc_polynomial=(1.0, 0.0, -0.1)),
    in_memory(rule="agad"),
    spiking(neuron=Synaptic(beta=0.5), synapses=analog(adc_bits=6)),
    spiking(synapses=in_memory(device="pcm")),
    digital(precision="bf16"),
    PerLayer({"0": analog(), "head": Analog("pcm-hermes")}),
]


def refusal(build: Any, *args: Any, **options: Any) -> str:
    """The one line that the refusal says."""
    with pytest.raises(HpmlError) as caught:
        build(*args, **options)
    said = str(caught.value)
    assert "\n" not in said
    for foreign in ("Input should be", "pydantic", "validation error", "Value error", "type=", "Unexpected keyword"):
        assert foreign not in said
    return said


def options_of(kind: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(kind) if f.init}


def test_every_option_of_every_target_is_in_the_tables_above():
    built = {analog: Analog, in_memory: InMemory, spiking: Spiking, digital: Digital}
    tried: dict[Any, set[str]] = {}
    for build, option, *_ in [*NUMBERS, *NAMES, *SWITCHES]:
        tried.setdefault(built.get(build, build), set()).add(option)
    # tables of numbers: tests/analog/test_nonlinear_adc.py
    assert tried[Analog] | {"card", "input_range", "adc_polynomial", "adc_thresholds"} == options_of(Analog)
    assert tried[InMemory] | {"card"} == options_of(InMemory)
    assert tried[Spiking] | {"card", "neuron", "synapses"} == options_of(Spiking)
    assert tried[Digital] | {"card"} == options_of(Digital)
    for neuron in (Leaky, Synaptic, Adaptive):
        assert tried[neuron] | {"surrogate", "reset", "name"} >= options_of(neuron)


@pytest.mark.parametrize(("build", "option", "allowed", "good", "bad"), NUMBERS)
def test_a_number_out_of_range_or_no_number_at_all(build, option, allowed, good, bad):
    for value in good:
        assert getattr(build(**{option: value}), option) == value
    wrong = [INF, -INF, NAN, True, False, "8", "", b"8", [8], (8,), {8: 8}, object(), 1j, np.bool_(True), np.zeros(2)]
    if "whole" in allowed:
        wrong += [8.0, 2.5, np.float64(8.0)]
    if "None" not in allowed:
        wrong.append(None)
    for value in [*bad, *wrong]:
        said = refusal(build, **{option: value})
        assert re.search(rf"\b{option}=.+: must be {re.escape(allowed)}$", said), said
    for value in bad:  # the value as it was given, cut where it is long
        assert f"{option}={value!r}"[:40] in refusal(build, **{option: value})


@pytest.mark.parametrize(("build", "option", "allowed", "good", "bad"), NUMBERS)
def test_numpys_numbers_are_numbers(build, option, allowed, good, bad):
    value = next(v for v in good if v is not None and v < 2**31)
    kinds = (np.int16, np.int32, np.int64) if "whole" in allowed else (np.float32, np.float64)
    for kind in kinds:
        made = getattr(build(**{option: kind(value)}), option)
        assert type(made) is (int if "whole" in allowed else float)
        assert made == pytest.approx(value)


def test_other_numbers_of_python():
    assert analog(output_noise=Fraction(1, 4)).output_noise == 0.25
    assert "must be" in refusal(analog, output_noise=Decimal("0.25"))
    assert "must be" in refusal(analog, adc_bits=Fraction(8))
    assert "must be" in refusal(analog, adc_bound=Fraction(10**400))


@pytest.mark.parametrize(("build", "option", "allowed", "good", "bad", "guess"), NAMES)
def test_names_have_a_list(build, option, allowed, good, bad, guess):
    assert getattr(build(**{option: good}), option) == good
    said = refusal(build, **{option: bad})
    assert option in said
    assert repr(bad) in said
    assert f"did you mean {guess!r}?" in said.lower()
    assert refusal(build, **{option: 3}).endswith(f"{option}=3: must be {allowed}")
    assert all(name in refusal(build, **{option: "qqqq"}) for name in allowed.split("'")[1::2])


@pytest.mark.parametrize(("build", "option"), SWITCHES)
def test_switches_are_true_or_false(build, option):
    assert getattr(build(**{option: True}), option) is True
    for value in (1, 0, "true", None, "", np.bool_(True), 1.0, NAN):
        assert refusal(build, **{option: value}).endswith(f": must be {SWITCH}")


@pytest.mark.parametrize(
    ("kind", "other", "wanted"),
    [
        (Analog, "h200", "crossbar"),
        (InMemory, "loihi", "crossbar"),
        (Spiking, "pcm", "neuromorphic"),
        (Digital, "pcm", "digital"),
    ],
)
def test_cards(kind, other, wanted, tmp_path, repository):
    more = {"device": "ecram"} if kind is InMemory else {}
    said = refusal(kind, other, **more)
    assert f"card={other!r}" in said
    assert f"take a {wanted} card" in said
    with pytest.raises(UnknownNameError, match=r"unknown card 'pcm-hermse'\. Did you mean 'pcm-hermes'"):
        kind("pcm-hermse", **more)
    with pytest.raises(CardError, match="does not exist"):
        kind(tmp_path / "mine.toml", **more)
    for value in (3, None, True, ["pcm"], NAN, b"pcm"):
        assert refusal(kind, value, **more).endswith(f"card={value!r}: must be {CARD}")
    refusal(kind, "", **more)
    refusal(kind, 5000 * "x" + ".toml", **more)
    refusal(kind, "a\x00.toml", **more)
    refusal(kind, "\ud800", **more)
    shipped = kind(**more).card
    own = repository / "devices" / f"{shipped}.toml"
    assert kind(own, **more).card == str(own)  # a path is kept as text
    assert kind(str(own), **more) == kind(Path(own), **more)


@pytest.mark.parametrize(
    ("build", "options", "said"),
    [
        (analog, {"adcbits": 4}, "Analog: adcbits: unknown option; did you mean 'adc_bits'?"),
        (spiking, {"step": 4}, "Spiking: step: unknown option; did you mean 'steps'?"),
        (digital, {"precison": "bf16"}, "Digital: precison: unknown option; did you mean 'precision'?"),
        (in_memory, {"devices": 1}, "InMemory: devices: unknown option; did you mean 'device'?"),
        (Leaky, {"bta": 1}, "Leaky: bta: unknown option; did you mean 'beta'?"),
        (digital, {"zzz": 1}, "Digital: zzz: unknown option; known: card, precision, engine, channels_last"),
        (analog, {"device": "ecram"}, "hs.InMemory(card, device='ecram')"),
        (analog, {"rule": "agad"}, "hs.InMemory(card, device='ecram', rule="),
        (in_memory, {"slices": 2}, "hs.Analog(...), programmed after training, has"),
        (spiking, {"beta": 0.9}, "neuron=hs.spiking.Leaky(beta=...)"),
        (spiking, {"current_decay": 0.9}, "neuron=hs.spiking.Synaptic(current_decay=...)"),
        (spiking, {"adaptation": 0.9}, "neuron=hs.spiking.Adaptive(adaptation=...)"),
    ],
)
def test_unknown_options_are_guessed_or_the_reader_is_shown_where_they_are(build, options, said):
    assert said in refusal(build, **options)


def test_a_device_must_be_given():
    assert refusal(InMemory, "pcm") == f"InMemory: device: missing; give {DEVICES}"


def test_options_are_given_by_name():
    assert "only card is given by position; write dac_bits=8" in refusal(Analog, "pcm", 8)
    assert "only card is given by position" in refusal(InMemory, "pcm", "ecram", device="ecram")
    assert "only card is given by position" in refusal(Spiking, "loihi", 10)
    assert "only card is given by position" in refusal(Digital, "h200", "bf16")
    assert "options are given by name" in refusal(Leaky, 0.9)
    assert "given twice" in refusal(Analog, "pcm", card="pcm")


@pytest.mark.parametrize(
    ("build", "options", "said"),
    [
        (analog, {"slices": 2}, "slices=2: digits need a base"),
        (analog, {"levels": 65536, "slices": 2}, "must be at most 2^31"),
        (analog, {"stuck_at_g_min": 0.6, "stuck_at_g_max": 0.6}, "must be at most 1 together"),
        (in_memory, {"device": "pcm", "rule": "agad"}, "only goes up"),
        (spiking, {"neuron": "adaptive", "engine": "snntorch"}, "only leaky neurons have this engine"),
        (Leaky, {"surrogate": "heaviside", "slope": 2.0}, "has no parameter; leave slope out"),
        (Adaptive, {"surrogate": "straight_through_estimator", "slope": 2.0}, "leave slope out"),
        (digital, {"engine": "numba-cuda", "precision": "bf16"}, "compute in float32"),
        (digital, {"engine": "numba-cuda", "channels_last": True}, "leave channels_last out"),
    ],
)
def test_options_that_exclude_each_other(build, options, said):
    assert said in refusal(build, **options)


@pytest.mark.parametrize("option", [{"precision": "tf32"}, {"engine": "cuda-graph"}])
def test_what_only_gpus_have(option):
    assert "name a GPU's card, such as 'h200'" in refusal(Digital, "cpu", **option)


@pytest.mark.parametrize(
    ("neuron", "said"),
    [
        ("leeky", "unknown neuron 'leeky'. Did you mean 'leaky'?"),
        (3, "neuron=3: must be one of 'leaky', 'synaptic', 'adaptive', or hs.spiking.Leaky(...)"),
        (Leaky, "neuron=Leaky()"),
        (None, "must be one of 'leaky'"),
        ({"beta": 0.9}, "give its name as well"),
        ({"name": "leaky", "beta": 9}, "neuron: beta=9: must be a finite number from 0 to 1"),
        ({"name": "leaky", "adaptation": 9}, "neuron: adaptation: unknown option"),
        ({"name": ["leaky"]}, "unknown neuron"),
    ],
)
def test_neurons(neuron, said):
    assert said in refusal(spiking, neuron=neuron)


@pytest.mark.parametrize(
    ("synapses", "said"),
    [
        ("pcm", "synapses='pcm': must be Analog(...), InMemory(...), or None"),
        (digital(), "must be Analog(...), InMemory(...), or None"),
        ({"card": "pcm", "adc_bits": 1}, f"synapses: adc_bits=1: must be {RESOLUTION}"),
        ({"card": "h200"}, "take a crossbar card"),
        ({"card": "pcm", "device": "ecrma"}, "unknown device 'ecrma'. Did you mean 'ecram'?"),
    ],
)
def test_synapses(synapses, said):
    assert said in refusal(spiking, synapses=synapses)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (3, "layers=3: must be a table of names and values"),
        ({"a": 3}, "layers.a=3: must be Analog(...) or InMemory(...)"),
        ({"a": digital()}, "layers.a=<Digital>: must be Analog(...) or InMemory(...)"),
        ({3: analog()}, "layers: 3: each name must be text"),
        ({"a": analog(), "b": in_memory()}, "cannot be trained together"),
    ],
)
def test_targets_by_layer(layers, said):
    assert said in refusal(PerLayer, layers)


@pytest.mark.parametrize("target", MADE, ids=repr)
def test_targets_are_values(target):
    """Equal, copied, pickled, changed by `dataclasses.replace`, and made again from their options."""
    kind = type(target)
    for again in (copy.copy(target), copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
        assert again == target
        assert type(again) is kind
    assert checked(kind, dataclasses.asdict(target)) == target
    assert checked(kind, target) == target
    assert dataclasses.replace(target) == target
    name = next(iter(options_of(kind)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(target, name, None)
    if kind is not PerLayer:
        assert hash(target) == hash(copy.deepcopy(target))


def test_a_target_is_shown_as_the_call_that_makes_it():
    assert repr(Analog("pcm")) == "Analog('pcm')"
    assert repr(analog(adc_bits=6, weight_clip=None)) == "Analog('pcm', adc_bits=6, weight_clip=None)"
    assert repr(in_memory()) == "InMemory('pcm', device='ecram')"
    assert repr(Leaky()) == "Leaky()"
    assert repr(PerLayer({"0": analog()})) == "PerLayer({'0': Analog('pcm')})"
    for target in MADE:
        assert eval(repr(target)) == target
        assert str(target) == repr(target)


def test_replace_is_checked():
    assert dataclasses.replace(analog(), adc_bits=6) == analog(adc_bits=6)
    assert dataclasses.replace(analog(), adc_bits=6) != analog()
    assert f"adc_bits=1: must be {RESOLUTION}" in refusal(dataclasses.replace, analog(), adc_bits=1)
    assert "unknown option" in refusal(dataclasses.replace, analog(), adcbits=1)


def test_where_a_table_came_from_stands_before_the_message():
    assert refusal(checked, Analog, {"card": "pcm", "adc_bits": 1}, where="run.toml").startswith("run.toml: adc_bits=1")
    with pytest.raises(UnknownNameError, match=r"^run\.toml: unknown device 'ecrma'"):
        checked(InMemory, {"card": "pcm", "device": "ecrma"}, where="run.toml")
    assert refusal(checked, Analog, 3).endswith("3: must be Analog(...)")


def test_several_mistakes_are_told_in_one_line():
    said = refusal(analog, adc_bits=1, slices=0, adcbound=3)
    assert all(part in said for part in ("adc_bits=1", "slices=0", "adcbound: unknown option"))


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 20)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.complex_numbers()
    | st.sampled_from(["pcm", "h200", "loihi", "cpu", "ecram", "sgd", "fused", "leaky", "rate", "bf16"])
    | st.builds(Unprintable)
    | st.builds(lambda: 10**5000)
    | st.sampled_from([np.float32(0.5), np.int8(4), np.zeros((2, 2)), object, len, Analog("pcm"), Leaky(), Digital()])
)
JUNK = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
)


@pytest.mark.parametrize("kind", [Analog, InMemory, Spiking, Digital, Leaky, Synaptic, Adaptive, PerLayer])
@given(data=st.data())
def test_whatever_is_given_the_answer_is_a_target_or_one_line_of_ours(kind, data):
    names = st.sampled_from(sorted(options_of(kind))) | st.text("abc_\n\x00", min_size=1, max_size=4)
    options = data.draw(st.dictionaries(names, JUNK, max_size=4))
    args = data.draw(st.lists(JUNK, max_size=2))
    for build in (lambda: kind(*args, **options), lambda: checked(kind, options), lambda: checked(kind, args)):
        made, said = outcome(build)
        assert "\n" not in said
        assert "Input should be" not in said
        if made is not None:
            assert type(made) is kind
            assert checked(kind, dataclasses.asdict(made)) == made


def outcome(build: Any) -> tuple[Any, str]:
    try:
        return build(), ""
    except HpmlError as error:
        return None, str(error)
