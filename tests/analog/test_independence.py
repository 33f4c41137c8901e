"""Chips at one time, the chips, other times and the model that was programmed change one by one."""

import pytest
import torch
from torch import nn

from hpml_sim.analog import calibrate, load_chips, program, save_chips
from hpml_sim.conversion import convert
from hpml_sim.targets import Analog


class Counting(nn.Module):
    """Counts its calls in a buffer, which its output depends on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.get_buffer("calls").add_(1)
        return self.b(self.norm(self.a(x))) + 100 * self.get_buffer("calls").to(x.dtype)


CHANGES = {
    "half": lambda model: model.half(),
    "double": lambda model: model.double(),
    "to": lambda model: model.to(torch.bfloat16),
    "meta": lambda model: model.to("meta"),
    "a call": lambda model: model(torch.rand(3, 8)),
    "requires_grad": lambda model: model.requires_grad_(True),
}


def plain(model):
    # what aihwkit keeps in place of a weight cannot be read
    return {name: value for name, value in model.state_dict().items() if type(value) in (torch.Tensor, nn.Parameter)}


@pytest.mark.parametrize(("change", "engine"), [*((change, "fused") for change in CHANGES), ("a call", "aihwkit")])
def test_one_time_is_changed_alone(change, engine, tmp_path):
    net, x = Counting(), torch.rand(16, 8)
    model = convert(net, Analog("pcm", engine=engine)).eval()
    calibrate(model, x)
    calls = float(model.get_buffer("network.calls"))
    chips = program(model, chips=2, seed=1)
    want = chips.at("1 day")(x)
    changed, other = chips.at("1 day"), chips.at("1 h")
    untouched = {name: value.clone() for name, value in plain(other).items()}
    CHANGES[change](changed)
    for name, value in plain(other).items():
        assert value.dtype == untouched[name].dtype
        assert torch.equal(value, untouched[name])
    if engine == "fused":
        assert not any(parameter.requires_grad for parameter in other.parameters())
    assert torch.equal(chips.at("1 day")(x), want)
    assert float(model.get_buffer("network.calls")) == calls
    if engine == "fused":
        save_chips(chips, tmp_path / "chips.safetensors")
        assert torch.equal(load_chips(tmp_path / "chips.safetensors", model).at("1 day")(x), want)


def test_two_times_lie_in_the_same_memory_and_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[1].weight = net[0].weight
    chips = program(convert(net, "pcm-hermes"), chips=2)
    one, other = chips.at("1 h").network, chips.at("1 day").network
    weight = one.get_parameter("network.0.weight")
    assert weight is one.get_parameter("network.1.weight")
    assert weight is not other.get_parameter("network.0.weight")
    assert weight.data_ptr() == other.get_parameter("network.0.weight").data_ptr()
