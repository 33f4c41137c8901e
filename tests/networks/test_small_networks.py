"""The small networks: sizes by hand, sequences of three forms, and what a step may see."""

from __future__ import annotations

import pytest
import torch

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.networks import models

SEQUENCES = ("transformer", "gru", "lstm")


@pytest.mark.parametrize("name", models.BUILT_IN)
def test_macs_are_those_counted_by_hand(name):
    """Of a (2, 8, 12) sample, width 8, 5 classes."""
    width, steps = 8, 8
    conv = 8 * 12
    by_hand = {
        "mlp": 2 * 8 * 12 * 8 + 8 * 5,
        "cnn": conv * 9 * 2 * 8 + conv / 4 * 9 * 8 * 16 + 16 * 2 * 3 * 128 + 128 * 5,
        "resnet": conv * 9 * (2 * 8 + 8 * 8 * 2)
        + conv / 4 * (9 * (8 * 16 + 16 * 16) + 8 * 16)
        + conv / 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
        + 32 * 5,
        "depthwise": conv * 9 * 2 * 8
        + conv * (9 * 8 + 8 * 16)
        + conv / 4 * (9 * 16 + 16 * 32)
        + conv / 16 * (9 * 32 + 32 * 64)
        + 64 * 5,
        # of each cell two 3 x 3 convolutions; between stages a residual block
        "cells": conv * 9 * (2 * 8 + 2 * 8 * 8)
        + conv / 4 * (9 * (8 * 16 + 16 * 16) + 8 * 16 + 9 * 2 * 16 * 16)
        + conv / 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32 + 9 * 2 * 32 * 32)
        + 32 * 5,
        "transformer": steps * 24 * width + 2 * steps * (12 * width**2 + 2 * steps * width) + width * 5,
        "gru": steps * (24 * width + 6 * width**2) + width * 5,
        "spiking": 16 * (2 * 8 * 12 * width + width * 5),
        "lstm": steps * (24 * width + 8 * width**2) + width * 5,
    }
    network = models.build(name, (2, 8, 12), 5, width=width)
    assert hs.workload(network, input_shape=(2, 8, 12)).total("macs") == by_hand[name]


@pytest.mark.parametrize("name", models.BUILT_IN)
def test_every_product_is_converted(name):
    report = hs.convert(models.build(name, (1, 8, 8), 10), "pcm-hermes").report
    products = report[report["was"].isin(["Linear", "Conv2d", "GRU", "LSTM"])]
    assert len(products)
    assert products["became"].str.startswith("Analog").all(), report.to_string()


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_come_in_three_forms(name):
    assert models.build(name, (40, 3), 7)(torch.rand(2, 40, 3)).shape == (2, 7)
    assert models.build(name, (1, 8, 8), 7)(torch.rand(2, 1, 8, 8)).shape == (2, 7)
    assert models.build(name, (16,), 50)(torch.randint(50, (2, 16))).shape == (2, 16, 50)


@pytest.mark.parametrize("name", SEQUENCES)
def test_rows_of_an_image_are_steps_with_all_channels(name):
    network, image = models.build(name, (3, 5, 4), 7), torch.rand(2, 3, 5, 4)
    rows = torch.stack([torch.cat([image[:, c, r] for c in range(3)], dim=1) for r in range(5)], dim=1)
    flat = models.build(name, (5, 12), 7)
    flat.load_state_dict(network.state_dict())
    torch.testing.assert_close(flat(rows), network(image))


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_token_sees_none_after_it(name):
    network, ids = models.build(name, (16,), 50).eval(), torch.randint(50, (1, 16))
    later = ids.clone()
    later[0, 9:] = (later[0, 9:] + 1) % 50
    before, after = network(ids), network(later)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.resnet((28, 28), 10), r"resnet: input_shape=\(28, 28\): must be \(channels, height, width\)"),
        (lambda: models.depthwise((1, 8, 8), 0), "depthwise: classes=0: must be a whole number >= 1"),
        (lambda: models.transformer((8, 8), 3, width=6), "width=6: must be a multiple of 4"),
        (lambda: models.gru((8, 0), 3), "gru: input_shape=0: must be a whole number >= 1"),
        (
            lambda: models.build("spiking", (1, 2, 3, 4, 5), 3),
            r"spiking: input_shape=\(1, 2, 3, 4, 5\): must be frames",
        ),
        (lambda: models.lstm("8", 3), "lstm: input_shape='8': must be the shape of one sample"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(HpmlError, match=message):
        call()


def test_frames_run_step_by_step_and_images_at_every_step():
    """Leaky neurons in plain float64, a step at a time: m = 0.9 m + x - (spike before), a spike above 1."""

    def counts(network, currents):
        first, second = (network.network.network[i] for i in (1, 3))
        membranes, spikes = [0.0, 0.0], [0.0, 0.0]
        total = 0.0
        for x in currents:
            for layer, (linear, given) in enumerate(((first, x.flatten(1)), (second, None))):
                given = spikes[0] if given is None else given
                current = given.double() @ linear.weight.double().T + linear.bias.double()
                membranes[layer] = 0.9 * membranes[layer] + current - spikes[layer]
                spikes[layer] = (membranes[layer] > 1).double()
            total = total + spikes[1]
        return total

    torch.manual_seed(0)
    frames = 4 * torch.rand(3, 6, 2, 4, 4)
    network = models.build("spiking", (6, 2, 4, 4), 5, width=9)
    with torch.no_grad():
        assert torch.equal(network(frames).double(), counts(network, frames.transpose(0, 1)))
        assert network(frames).sum() > 0
        image = 4 * torch.rand(3, 2, 4, 4)
        still = models.build("spiking", (2, 4, 4), 5, width=9)
        assert torch.equal(still(image).double(), counts(still, [image] * 16))


def test_a_spiking_network_stays_as_it_is_on_a_spiking_chip():
    network, x = models.build("spiking", (8,), 3), torch.rand(4, 8)
    assert torch.equal(hs.convert(network, "loihi")(x), network(x))
    with pytest.raises(HpmlError, match="SpikeCounts spikes already, with neurons and time steps of its own: steps"):
        hs.convert(network, hs.Spiking("loihi", steps=5))
