"""The mapping to tiles, against matrices that are cut by hand."""

import pytest
import torch

from hpml_sim.conversion.tiling import Tiling


@pytest.mark.parametrize(
    ("rows", "tile_rows", "used"), [(10, 16, [10]), (16, 16, [16]), (17, 16, [9, 8]), (40, 16, [14, 14, 12])]
)
def test_rows_are_cut_evenly(rows, tile_rows, used):
    tiling = Tiling(groups=1, rows=rows, cols=3, tile_rows=tile_rows, tile_cols=8)
    assert tiling.used_rows == used
    assert tiling.row_tiles == len(used)
    assert tiling.height == used[0]
    assert tiling.tiles == len(used)


def test_tiles_and_their_use():
    tiling = Tiling(groups=2, rows=40, cols=9, tile_rows=16, tile_cols=4)
    assert (tiling.row_tiles, tiling.col_tiles, tiling.tiles) == (3, 3, 2 * 3 * 3)
    assert tiling.utilization == pytest.approx(2 * 40 * 9 / (18 * 16 * 4))


def test_weights_and_inputs_are_cut_in_the_same_places():
    tiling = Tiling(groups=2, rows=5, cols=3, tile_rows=3, tile_cols=8)
    weight = torch.arange(30.0).view(6, 5)
    cut = tiling.cut_weights(weight)
    assert cut.shape == (2, 2, 3, 3)
    assert torch.equal(cut[1, 0], weight[3:, :3])  # second group, first row tile
    assert torch.equal(cut[1, 1, :, :2], weight[3:, 3:])
    assert (cut[:, 1, :, 2] == 0).all()  # the last row tile has two rows, the third is padding
    x = torch.arange(1.0, 6.0)
    assert torch.equal(tiling.cut_inputs(x), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]]))
    # the digital sum over row tiles is the whole product
    whole = torch.einsum("grch,rh->gc", cut, tiling.cut_inputs(x))
    assert torch.equal(whole.flatten(), weight @ x)
