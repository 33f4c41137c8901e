from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from hpml_sim.conversion import convert
from hpml_sim.data import Data, load_data
from hpml_sim.errors import HpmlError
from hpml_sim.networks import models
from hpml_sim.tasks import language_model, transcription
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate


def test_the_digits_network_learns_to_96_percent():
    digits = load_data("digits")
    net = models.build("mlp", digits.input_shape, digits.classes)
    history = fit(net, digits, epochs=40, lr=5e-3)
    assert evaluate(net, digits).mean >= 0.96
    assert len(history.loss) == len(history.scores) == 40
    assert history.loss[-1] < history.loss[0]


def test_same_seed_same_weights_whatever_was_drawn_before():
    def trained(seed):
        net = models.build("mlp", (1, 8, 8), 10)
        fit(net, "digits", epochs=1, seed=seed)
        return net[1].weight.detach()

    first = trained(3)
    torch.rand(17)
    assert torch.equal(first, trained(3))
    assert not torch.equal(first, trained(4))


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(models.build("mlp", (1, 8, 8), 10), "digits", epochs=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"epochs": -1}, "epochs"), ({"lr": 0.0}, "lr"), ({"lr": float("nan")}, "lr"), ({"batch_size": 0}, "batch_size")],
)
def test_bad_arguments_are_named(options, named):
    with pytest.raises(HpmlError, match=named):
        fit(models.mlp(64, 10), "digits", **options)


def test_no_parameters():
    with pytest.raises(HpmlError, match="no trainable parameters"):
        fit(nn.Identity(), "digits")


def test_a_loss_that_explodes_puts_the_weights_back():
    inputs = torch.full((8, 4), 3e38)
    split = TensorDataset(inputs, torch.arange(8) % 2)
    net = models.mlp(4, 2)
    before = net[1].weight.detach().clone()
    with pytest.raises(HpmlError, match="smaller learning rate"):
        fit(net, Data("huge", split, split, (4,), 2), epochs=1)
    assert torch.equal(net[1].weight, before)


# ------------------------------------------------------------------------------------------------ optimizers, a teacher


def blobs(n=200, classes=3):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    x = torch.randn(n, 6, generator=generator) + 2.5 * torch.eye(6)[labels]
    return Data("blobs", TensorDataset(x, labels), TensorDataset(x, labels), (6,), classes)


def blob_net(seed=0):
    torch.manual_seed(seed)
    return models.mlp(6, 16, 3)


@pytest.mark.parametrize(
    ("optimizer", "lr"),
    [
        (None, 0.02),
        ("adamw", 0.02),
        ("SGD", 0.1),
        ("RMSprop", 0.01),
        ("Adagrad", 0.05),
        ("LBFGS", 0.1),
        (torch.optim.NAdam, 0.02),
        (partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4), 0.05),
    ],
    ids=str,
)
@pytest.mark.parametrize("card", [None, "pcm"])
def test_any_optimizer_trains_and_weights_are_clipped(optimizer, lr, card):
    net = blob_net()
    if card is not None:
        net = convert(net, card)
        with torch.no_grad():
            net.network[1].weight[0, 0] = 5.0
    before = evaluate(net, blobs()).mean
    fit(net, blobs(), epochs=5, lr=lr, optimizer=optimizer, batch_size=200 if optimizer == "LBFGS" else 20)
    assert evaluate(net, blobs()).mean > before + 0.3
    if card is not None:
        layer = net.network[1]
        mapped = layer.crossbar.clipped(layer.weight.detach())
        assert float(mapped.abs().max()) == pytest.approx(float(layer.crossbar.weight_limit))
        assert float(layer.crossbar.weight_limit) < 3


def test_the_default_is_adam():
    nets = [blob_net(), blob_net()]
    for net, optimizer in zip(nets, (None, torch.optim.Adam), strict=True):
        fit(net, blobs(), epochs=2, optimizer=optimizer)
    assert torch.equal(nets[0][1].weight, nets[1][1].weight)


def test_the_loss_of_distillation_is_hintons():
    """One step's loss against the formula in float64 numpy."""
    data, teacher = blobs(40), blob_net(1)
    teacher.train()
    x, y = data.train.tensors
    model = blob_net(2)

    def soft(logits, t):
        e = np.exp(logits / t - (logits / t).max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    with torch.no_grad():
        ours, theirs = (net(x).double().numpy() for net in (model, teacher))
    p, q = soft(theirs, 3.0), soft(ours, 3.0)
    kl = (p * np.log(p / q)).sum(1).mean()
    ce = -np.log(soft(ours, 1.0)[np.arange(40), y.numpy()]).mean()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    history = fit(model, data, epochs=1, batch_size=40, teacher=teacher, temperature=3.0, alpha=0.7)
    assert history.loss[0] == pytest.approx(0.3 * ce + 0.7 * 9 * kl, rel=1e-5)
    assert teacher.training
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in before.items())


def test_a_teacher_alone_is_imitated():
    """Labels are not seen: the student agrees with a teacher that is wrong everywhere."""
    data = blobs()
    teacher = blob_net()
    fit(teacher, data, epochs=20, lr=1e-2)
    with torch.no_grad():
        teacher[-1].weight.copy_(teacher[-1].weight.roll(1, 0))
        teacher[-1].bias.copy_(teacher[-1].bias.roll(1, 0))
    student = convert(blob_net(3), "pcm")
    fit(student, data, epochs=20, lr=1e-2, teacher=teacher, alpha=1.0)
    assert evaluate(student, data).mean < 0.1
    x = data.train.tensors[0]
    assert float((student.eval()(x).argmax(1) == teacher(x).argmax(1)).double().mean()) > 0.9


def test_what_cannot_optimize_or_teach_is_refused_before_anything_changes():
    net = blob_net()
    before = net[1].weight.detach().clone()
    for options, reason in (
        ({"optimizer": "adan"}, "optimizer"),
        ({"optimizer": "Optimizer"}, "optimizer"),
        ({"optimizer": partial(torch.optim.SGD, momentum=-1)}, "cannot be made for this model: Invalid momentum"),
        ({"optimizer": lambda parameters: torch.optim.SGD(parameters)}, "cannot be made for this model"),
        ({"optimizer": lambda _parameters, lr: lr}, "gave float"),
        ({"temperature": 0.0}, "temperature"),
        ({"alpha": 1.5}, "alpha"),
        ({"teacher": nn.Flatten(0)}, "the teacher's output"),
        ({"teacher": models.mlp(6, 4)}, "must have the same shape"),
    ):
        with pytest.raises(HpmlError, match=reason):
            fit(net, blobs(), epochs=1, **options)
        assert torch.equal(net[1].weight, before)
        assert net.training


def test_a_history_is_short():
    net = models.mlp(6, 3)
    history = fit(net, blobs(), epochs=3)
    assert repr(history).startswith("<History: 3 epochs, loss ")
    assert len(repr(history)) < 80
    assert "\n" not in repr(history)
    assert f"{history.loss[0]:.3f} -> {history.loss[-1]:.3f}" in repr(history)
    assert "training accuracy" in history._repr_html_()
    assert repr(fit(net, blobs(), epochs=1)).startswith("<History: 1 epoch, loss ")
    assert repr(fit(net, blobs(), epochs=0)) == "<History: no epochs>"


@pytest.mark.parametrize(
    ("task", "meant"),
    [
        (language_model(), [(0, 0), (0, 1), (1, 0)]),
        (language_model(shift=True), [(0, 0)]),  # the label of a token is that of the position before it
        (transcription(blank=None), [(0, 0), (0, 1), (1, 0)]),
        (transcription(), [(i, j) for i in range(2) for j in range(3)]),  # labels stand for no frame
    ],
)
def test_a_teacher_says_nothing_of_what_labels_leave_out(task, meant):
    """Against the formula in float64 numpy, over the positions with labels alone."""
    torch.manual_seed(0)
    outputs, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    labels = torch.tensor([[1, 4, -100], [0, -100, -100]])

    def soft(logits):
        e = np.exp(logits.double().numpy() / 2)
        return e / e.sum(-1, keepdims=True)

    p, q = soft(teacher), soft(outputs)
    kl = (p * np.log(p / q)).sum(-1)
    found = task.distillation(outputs, teacher, 2.0, labels)
    assert float(found) == pytest.approx(4 * np.mean([kl[position] for position in meant]), rel=1e-5)
