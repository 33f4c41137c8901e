"""At the edges of torch: empty batches, other types, other defaults, hints, compiled training."""

import pytest
import torch
from torch import nn

from hpml_sim.analog import calibrate, program
from hpml_sim.conversion import convert
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog

LAYERS = {
    "linear": (lambda: nn.Linear(8, 4), (8,)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), (3, 8)),
    "conv2d": (lambda: nn.Conv2d(4, 4, 3, groups=2), (4, 8, 8)),
    "conv3d": (lambda: nn.Conv3d(3, 4, 3), (3, 5, 5, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_batch_without_samples_comes_out_without_samples(kind):
    make, shape = LAYERS[kind]
    net = nn.Sequential(make())
    empty, some = torch.zeros(0, *shape), torch.rand(4, *shape)
    want = net(empty).shape
    model = convert(net, "pcm-hermes")
    for _ in range(2):  # before and after calibration
        assert model.train()(empty).shape == want
        assert model.eval()(empty).shape == want
        assert program(model, chips=2).at("1 h")(empty).shape == (2, *want)
        calibrate(model, some)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.float64, torch.complex64])
def test_an_input_of_another_type_is_refused_in_one_line(kind, dtype):
    make, shape = LAYERS[kind]
    model = convert(nn.Sequential(make()), "pcm-hermes")
    x = torch.ones(2, *shape).to(dtype)
    expected = rf"input of {dtype}: must be of torch.float32, as the layer is; give x.to\(torch.float32\)"
    for run in (model.train(), model.eval(), program(model, chips=2).at(0)):
        with pytest.raises(HpmlError, match=expected):
            run(x)


def test_layers_of_other_types_take_inputs_of_theirs():
    for dtype in (torch.float64, torch.bfloat16):
        model = convert(nn.Linear(8, 4).to(dtype), "pcm-hermes").eval()
        assert model(torch.rand(2, 8, dtype=dtype)).dtype == dtype
        assert program(model, chips=2).at(0)(torch.rand(2, 8, dtype=dtype)).dtype == dtype


def test_a_causal_hint_without_its_mask_is_refused_as_torch_does():
    model = convert(nn.MultiheadAttention(8, 2, batch_first=True), "pcm-hermes").eval()
    x = torch.rand(2, 5, 8)
    with pytest.raises(HpmlError, match=r"is_causal=True: .* needs it; give attn_mask=.*mask\(5\)"):
        model(x, x, x, is_causal=True)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    assert torch.equal(model(x, x, x, attn_mask=mask, is_causal=True)[0], model(x, x, x, attn_mask=mask)[0])


@pytest.fixture
def defaults():
    """Puts torch's defaults back."""
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    torch.set_default_device(None)


@pytest.mark.parametrize(
    ("device", "dtype"), [("meta", torch.float32), ("cpu", torch.bfloat16), ("cpu", torch.float64)]
)
@pytest.mark.parametrize("card", ["pcm-hermes", "reram-neurram"])
@pytest.mark.usefixtures("defaults")
def test_chips_are_the_same_whatever_torchs_defaults_are(device, dtype, card):
    net, x = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), torch.rand(5, 8)

    def run():
        model = convert(net, Analog(card))
        calibrate(model, x)
        return program(model, chips=2, seed=4).at("1 day")(x)

    want = run()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    got = run()
    assert torch.get_default_dtype() == dtype
    assert torch.get_default_device().type == device
    torch.set_default_device(None)
    assert torch.equal(got, want)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(3):
            x = self.layer(x) * 2
        return x


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what it does itself
def test_compiled_training_observes_a_shared_layer_once_a_pass():
    found = []
    x = torch.randn(64, 8)
    for compiled in (False, True):
        model = convert(Shared(), Analog("pcm-hermes", training_noise=0.0, output_noise=0.0)).train()
        run = torch.compile(model, backend="eager") if compiled else model
        for _ in range(3):
            run(x).sum().backward()
        crossbar = model.get_submodule("network.layer.crossbar")
        found.append({name: value.item() for name, value in crossbar.named_buffers()})
    assert found[0]["observations"] == 3
    assert found[1] == pytest.approx(found[0], rel=1e-5)
