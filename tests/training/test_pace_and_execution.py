"""`fit`: the way of the learning rate, the largest gradient, autocast, checkpointing, compilation."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.analog.layers import crossbars
from hpml_sim.training.execution import blocks_of
from hpml_sim.training.pace import Pace


class _Heard(torch.optim.SGD):
    """Plain descent that keeps the learning rate and the gradient of each step."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr)
        self.heard = []

    def step(self, closure=None):
        loss = super().step(closure)
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        self.heard.append((self.param_groups[0]["lr"], norm))
        return loss


def _trained(**options):
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    drawn = torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(40, 4, generator=drawn), torch.randn(40, 1, generator=drawn))
    optimizers = []

    def make(parameters, lr):
        optimizers.append(_Heard(parameters, lr))
        return optimizers[0]

    hs.fit(net, data, task="regression", epochs=1, batch_size=2, lr=0.1, optimizer=make, **options)
    return optimizers[0].heard


def test_learning_rates_by_hand():
    assert [lr for lr, _ in _trained(schedule="constant")] == [0.1] * 20
    linear = [lr for lr, _ in _trained(schedule="linear")]
    assert linear == pytest.approx([0.1 * (1 - k / 20) for k in range(20)])
    cosine = [lr for lr, _ in _trained()]
    assert cosine == pytest.approx([0.05 * (1 + math.cos(math.pi * k / 20)) for k in range(20)])
    risen = [lr for lr, _ in _trained(schedule="linear", warmup=0.2)]
    assert risen == pytest.approx([0.1 * k / 5 for k in range(1, 5)] + [0.1 * (1 - k / 16) for k in range(16)])


def test_gradients_are_scaled_down_to_the_largest_norm():
    free = [norm for _, norm in _trained(schedule="constant")]
    assert max(free) > 0.5
    assert max(norm for _, norm in _trained(schedule="constant", max_grad_norm=0.5)) == pytest.approx(0.5, rel=1e-5)
    assert [norm for _, norm in _trained(schedule="constant", max_grad_norm=1e9)] == pytest.approx(free)


def _transformer():
    torch.manual_seed(3)
    return hs.models.transformer((12, 8), 4, width=16)


def _sequences():
    drawn = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randn(24, 12, 8, generator=drawn), torch.randint(4, (24,), generator=drawn))


def _weights(model, **options):
    hs.fit(model, _sequences(), epochs=2, batch_size=8, **options)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("analog", [False, True])
def test_checkpointing_changes_no_bit(analog):
    made = [hs.convert(_transformer(), "pcm-hermes") if analog else _transformer() for _ in range(2)]
    for model in made if analog else ():
        hs.calibrate(model, _sequences().tensors[0])
        for crossbar in crossbars(model).values():
            crossbar.observations.fill_(51)  # no range is learned: what runs again would see the range that it left
    plain, again = _weights(made[0]), _weights(made[1], checkpoint=True)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert all("forward" not in vars(module) for module in made[1].modules())


def test_checkpointing_runs_each_block_a_second_time():
    net = _transformer()
    assert len(blocks_of(net)) == 2
    calls = []
    for block in blocks_of(net):
        block.register_forward_hook(lambda *_: calls.append(1))
        next(module for module in block.modules() if isinstance(module, nn.Linear)).register_forward_hook(
            lambda *_: calls.append(2)
        )
    hs.fit(net, _sequences(), epochs=1, batch_size=24, task="classification")
    once = calls.count(2)
    calls.clear()
    hs.fit(net, _sequences(), epochs=1, batch_size=24, task="classification", checkpoint=True)
    assert calls.count(2) == once + 2  # the check of the last step runs once without gradients


@pytest.mark.parametrize("analog", [False, True])
def test_autocast_trains_close_to_float32(analog):
    made = [hs.convert(_transformer(), "pcm-hermes") if analog else _transformer() for _ in range(2)]
    plain, fewer = (hs.fit(made[k], _sequences(), epochs=3, autocast=("bfloat16", None)[k]) for k in range(2))
    assert fewer.loss == pytest.approx(plain.loss, rel=0.05)
    assert all(p.dtype == torch.float32 for p in made[0].parameters())


def test_products_run_in_the_type_of_autocast():
    net, seen = _transformer(), set()
    next(m for m in net.modules() if isinstance(m, nn.Linear)).register_forward_hook(lambda *a: seen.add(a[2].dtype))
    hs.fit(net, _sequences(), epochs=1, autocast="bfloat16")
    assert torch.bfloat16 in seen


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of torch's own, where it compiles
def test_compiled_training_follows_the_plain_one():
    drawn = torch.Generator().manual_seed(7)
    data = TensorDataset(torch.randn(32, 6, generator=drawn), torch.randint(3, (32,), generator=drawn))
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        losses.append(hs.fit(net, data, epochs=2, batch_size=16, compile=compiled).loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schedule": "cosin"}, "unknown schedule 'cosin'. Did you mean 'cosine'"),
        ({"schedule": 3}, "unknown schedule '3'"),
        ({"warmup": 1}, "fit: warmup=1: must be below 1"),
        ({"warmup": -0.1}, "fit: warmup=-0.1"),
        ({"max_grad_norm": 0}, "fit: max_grad_norm=0"),
        ({"autocast": "float16"}, "underflow without scaling"),
        ({"autocast": "bf16"}, "unknown type in autocast= 'bf16'"),
        ({"checkpoint": 1}, "fit: checkpoint=1"),
        ({"compile": "yes"}, "fit: compile='yes'"),
        ({"checkpoint": True}, "has no list of blocks"),
    ],
)
def test_mistakes_are_one_line(options, says):
    net = hs.models.mlp(64, 10)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(hs.HpmlError, match=says) as caught:
        hs.fit(net, "digits", epochs=1, **options)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_pulsed_devices_have_rules_of_their_own():
    with pytest.raises(hs.HpmlError, match="pulsed devices have rules"):
        Pace(warmup=0.1).refuse_on_devices()
    Pace().refuse_on_devices()
