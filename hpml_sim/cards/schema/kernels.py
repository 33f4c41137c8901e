"""What a GPU's card says of its kernels: constants of the model of matrix products, fitted to measured records."""

from __future__ import annotations

from pydantic import Field

from hpml_sim.units.quantities import CardModel, Count, PositiveShare, Ratio, Share, Time, Whole


class Kernels(CardModel):
    """How a GPU runs matrix products (docs/equations.md, section 1).

    Attributes:
        multiprocessors: streaming multiprocessors or compute units; a tile of a product runs on one of them.
        tile_efficiency: share of the peak that a very large tile would reach.
        tile_half: the size t_m t_n / (t_m + t_n) of a tile that reaches half of that.
        start_time: of one product, from its launch to the first useful operation.
        overlap: exponent p of (compute^p + memory^p)^(1/p): 1 is one after the other, infinity a perfect overlap.
        wave_share: how much of a last, partly filled wave of tiles is waited for.
        fill_depth: length of the sum that filling and draining a tile's pipeline costs, in elements.
        split_traffic: traffic of partial sums, where a sum is split, over that of writing and reading each once.
        product_bandwidth: share of the memory's bandwidth that a product reaches.
        channels_last: speed of a convolution over that of the product of its shape, with the channel innermost.
        channels_first: the same with the channel outermost, as PyTorch has images by default.
        depthwise: share of the fp32 peak that convolutions of one channel each reach.
    """

    multiprocessors: Whole
    tile_efficiency: PositiveShare = Field(description="share of the peak that a very large tile would reach")
    tile_half: Count = Field(description="size t_m t_n / (t_m + t_n) of a tile that reaches half of tile_efficiency")
    start_time: Time = Field(description="of one product, from its launch to the first useful operation")
    overlap: Ratio = Field(description="exponent p of (compute^p + memory^p)^(1/p)")
    wave_share: Share = Field(description="how much of a last, partly filled wave of tiles is waited for")
    fill_depth: Count = Field(description="elements of the sum that filling and draining the pipeline costs")
    split_traffic: Count = Field(description="traffic of partial sums over that of writing and reading each once")
    product_bandwidth: PositiveShare = Field(description="share of the memory's bandwidth that a product reaches")
    channels_last: PositiveShare | None = Field(
        default=None, description="speed of a convolution over that of its product, channel innermost; default 0.9"
    )
    channels_first: PositiveShare | None = Field(
        default=None, description="the same with the channel outermost; default 0.65"
    )
    depthwise: PositiveShare | None = Field(
        default=None, description="share of the fp32 peak that convolutions of single channels reach; default 0.1"
    )
