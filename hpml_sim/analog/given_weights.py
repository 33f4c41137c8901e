"""Layers that get other weights from a forward(): such a weight cannot lie on a crossbar.

`functional_call(self.layer, weights, x)` is read in the code, before anything runs; whatever else gives a layer another
weight for one call is seen in the first call of the converted network.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import warnings
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from torch import nn

from hpml_sim.analog.layer_names import layer_to_skip
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion.named_functions import functions_of_forward
from hpml_sim.counting.torch_operations import storage_of


def layers_given_weights(module: nn.Module) -> set[str]:
    """The layers that the forward() of a module calls with other weights, by their names in it.

    Args:
        module: any module.

    Returns:
        Names; one also stands for what lies below it.
    """
    found: set[str] = set()
    for function in functions_of_forward(module):
        if "functional_call" in function.__code__.co_names:
            found.update(_called(function))
    return found


def _called(function: FunctionType) -> Iterator[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):  # typed in at a prompt
        return
    own = tree.args.args[0].arg if isinstance(tree, ast.FunctionDef) and tree.args.args else "self"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("functional_call"):
            path: Any = node.args[0]
            names: list[str] = []
            while isinstance(path, (ast.Attribute, ast.Subscript)):
                names = [path.attr, *names] if isinstance(path, ast.Attribute) else []  # one of a list: all of them
                path = path.value
            if isinstance(path, ast.Name) and path.id == own:
                yield ".".join(names)


class GivenWeights:
    """Watches one call of a converted network for layers that multiply with another weight than their own.

    Args:
        model: the network; none of its layers is programmed.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        for name, crossbar in crossbars(model).items():
            crossbar.work.own_weight = self._storage(name)

    def warn(self) -> None:
        """Name the layers that did, and have their own weight again."""
        given: dict[str, None] = {}
        for name, crossbar in crossbars(self._model).items():
            own, crossbar.work.own_weight = crossbar.work.own_weight, None
            if crossbar.work.other_weight and own == self._storage(name):
                given[layer_to_skip(self._model, name)] = None
            crossbar.work.other_weight = False
        if given:
            names = list(given)
            warnings.warn(
                f"forward() calls {', '.join(map(repr, names))} with other weights than their own: programmed chips "
                f"cannot hold weights that a call brings along, and will refuse it; hs.convert(..., skip={names!r}) "
                "leaves such layers digital",
                RuntimeWarning,
                stacklevel=3,
            )

    def _storage(self, name: str) -> int:
        layer: Any = self._model.get_submodule(name)
        return storage_of(layer.weight)
