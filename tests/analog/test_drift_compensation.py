"""Drift compensation, against the mean of what an ADC reads, computed in numpy for each chip alone."""

import numpy as np
import pytest
import torch
from torch import nn

from hpml_sim.analog import program
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.targets import Analog

BOUND, TOP = 10.0, 127


def readings(weight, compensation, tile_cols):
    """Mean magnitude that the columns read, (row tiles, cols), of weights (row tiles, cols, height)."""
    lsb = BOUND / TOP
    columns = np.abs(np.rint(weight / lsb)).mean(-1) * lsb
    if compensation == "column":
        return columns
    parts = np.split(columns, range(tile_cols, columns.shape[1], tile_cols), axis=1)
    return np.concatenate([np.broadcast_to(part.mean(1, keepdims=True), part.shape) for part in parts], 1)


@pytest.mark.parametrize("compensation", ["column", "global"])
def test_each_chip_is_compensated_with_its_own_readings(card_file, compensation):
    """The baseline of another chip would turn the programming errors of both into a gain error."""
    torch.manual_seed(0)
    target = Analog(
        card_file(rows=16, cols=4), compensation=compensation, output_noise=0.0, adc_bits=8, adc_bound=BOUND
    )
    model = convert(nn.Sequential(nn.Linear(32, 6)), target)
    chips = program(model, chips=4, seed=0)
    (layer,) = chips.backend.layers.values()
    programmed = next(iter(crossbars(chips.at("1 day")).values())).programmed
    for chip, g_us in enumerate(layer.conductances(range(4), None)):
        before = layer.device_model.weights(g_us)[0].numpy()
        want = readings(before, compensation, 4) / readings(programmed.weight[chip, 0].numpy(), compensation, 4)
        factors = programmed.scale[chip, 0, :, 0] / layer.column_scale[0]
        assert np.allclose(factors.numpy(), want, rtol=1e-5)
        assert (factors > 1).any()


def test_readings_of_chips_layers_and_times_have_noise_of_their_own(card_file):
    """Devices without noise: whatever differs between two readings is the noise of the reading."""
    layers = nn.Sequential(nn.Linear(40, 8), nn.Linear(40, 8))
    layers[1].load_state_dict(layers[0].state_dict())
    chips = program(convert(layers, Analog(card_file(model="none"), compensation="column")), chips=3, seed=0)

    def reading(time):
        found = []
        for name, crossbar in crossbars(chips.at(time)).items():
            layer = chips.backend.layers[name.removeprefix("network.") if name not in chips.backend.layers else name]
            found.append(layer.baseline * layer.column_scale / crossbar.programmed.scale.squeeze(-2))
        return torch.stack(found).flatten(2)  # (layers, chips, columns)

    one, other = reading("1 h"), reading("1 day")
    every = torch.cat([one.flatten(0, 1), other.flatten(0, 1)])
    assert len({tuple(round(float(v), 5) for v in row) for row in every}) == 2 * 2 * 3
    assert torch.equal(one, reading("1 h"))
