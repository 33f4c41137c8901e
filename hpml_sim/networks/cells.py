"""Networks of cells: the search space of NAS-Bench-201, in which every cell is a small graph of skips and branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from hpml_sim.errors import HpmlError, check_choice, check_whole, shown
from hpml_sim.networks.convolutional import Residual

Operation = Literal["none", "skip", "conv1x1", "conv3x3", "pool3x3"]
"""What an edge of a cell does."""
OPERATIONS: tuple[str, ...] = get_args(Operation)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From which node to which; 0 is the input of the cell, 3 its output."""
_NODES = 4


class Cell(nn.Module):
    """Four nodes, each the sum of what the edges bring: (batch, width, height, breadth) -> the same shape.

    A convolution is ReLU, convolution and batch norm, in this order.

    Args:
        operations: of the six edges, in the order of `EDGES`.
        width: channels.
    """

    def __init__(self, operations: Sequence[str], width: int):
        super().__init__()
        made = {
            f"{start}_{end}": _edge(operation, width)
            for (start, end), operation in zip(EDGES, operations, strict=True)
            if operation != "none"
        }
        self.edges = nn.ModuleDict(made)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, height, breadth)."""
        nodes: list[Tensor | None] = [x]
        for end in range(1, _NODES):
            total: Tensor | None = None
            for start in range(end):
                before, name = nodes[start], f"{start}_{end}"
                if before is not None and name in self.edges:
                    brought = self.edges[name](before)
                    total = brought if total is None else total + brought
            nodes.append(total)
        out = nodes[-1]
        return x * 0 if out is None else out


def _edge(operation: str, width: int) -> nn.Module:
    if operation == "skip":
        return nn.Identity()
    if operation == "pool3x3":
        return nn.AvgPool2d(3, 1, 1)
    kernel = 3 if operation == "conv3x3" else 1
    return nn.Sequential(nn.ReLU(), *_conv(width, width, kernel))


def _conv(ins: int, outs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outs)]


def reaches_output(operations: Sequence[str]) -> bool:
    """Whether a path of operations leads from the input of a cell to its output.

    Args:
        operations: of the six edges, in the order of `EDGES`.

    Example:
        >>> reaches_output(["conv3x3", "none", "none", "none", "none", "skip"])
        False
    """
    reached = {0}
    for (start, end), operation in zip(EDGES, operations, strict=True):
        if start in reached and operation != "none":
            reached.add(end)
    return _NODES - 1 in reached


def cells(
    input_shape: Sequence[int],
    classes: int,
    *,
    width: int = 16,
    depth: int = 1,
    stages: int = 3,
    edge_1: Operation = "conv3x3",
    edge_2: Operation = "skip",
    edge_3: Operation = "conv3x3",
    edge_4: Operation = "skip",
    edge_5: Operation = "none",
    edge_6: Operation = "skip",
) -> nn.Sequential:
    """A network of equal cells in stages: (batch, *input_shape) -> (batch, classes).

    A 3 x 3 convolution; stages of cells, between them a residual block that halves the sides and doubles the channels;
    a batch norm, ReLU, the mean over the positions, and one linear layer.

    Args:
        input_shape: (channels, height, breadth).
        classes: number of outputs, >= 1.
        width: channels of the first stage, >= 1.
        depth: cells of a stage, >= 1.
        stages: >= 1.
        edge_1: of each cell, from the input to its first node: "none", "skip", "conv1x1", "conv3x3" or "pool3x3".
        edge_2: from the input to the second node.
        edge_3: from the first node to the second.
        edge_4: from the input to the output.
        edge_5: from the first node to the output.
        edge_6: from the second node to the output.

    Raises:
        HpmlError: a shape that is none of an image, an operation that does not exist, no path from input to output, or
            a number that is no whole number >= 1.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.cells((1, 8, 8), 10, width=4, edge_2="conv1x1")(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])

    Source: X. Dong, Y. Yang, "NAS-Bench-201: extending the scope of reproducible neural architecture search", ICLR
    2020, section 2.1; with 16 channels, five cells and three stages it is theirs.
    """
    operations = (edge_1, edge_2, edge_3, edge_4, edge_5, edge_6)
    for number, operation in enumerate(operations, 1):
        check_choice(f"cells: edge_{number}", operation, OPERATIONS)
    if not reaches_output(operations):
        raise HpmlError(
            f"cells: edges {', '.join(operations)}: no path leads from the input of a cell to its output; let edge_4, "
            "or edge_2 and edge_6, be something else than none"
        )
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str) or len(input_shape) != 3:
        raise HpmlError(f"cells: input_shape={shown(input_shape)}: must be (channels, height, breadth), as (1, 28, 28)")
    channels = check_whole("cells: input_shape", input_shape[0], low=1)
    classes, width = check_whole("cells: classes", classes, low=1), check_whole("width", width, low=1)
    depth, stages = check_whole("cells: depth", depth, low=1), check_whole("cells: stages", stages, low=1)
    layers: list[nn.Module] = _conv(channels, width, 3)
    for stage in range(stages):
        if stage:
            body = nn.Sequential(*_conv(width, 2 * width, 3, 2), nn.ReLU(), *_conv(2 * width, 2 * width, 3))
            layers.append(
                Residual(body, nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), *_conv(width, 2 * width, 1)))
            )
            width *= 2
        layers += [Cell(operations, width) for _ in range(depth)]
    return nn.Sequential(
        *layers, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    )
