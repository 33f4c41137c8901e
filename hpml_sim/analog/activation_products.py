"""Finds, before anything runs, modules whose forward() multiplies two activations: no crossbar can hold either factor.

The code is read, not run: `forward` of a class outside torch, and the functions and methods that it names.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn

from hpml_sim.analog.expert_reading import multiplies_activations
from hpml_sim.conversion.named_functions import named_function

_ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
_MATMULS = frozenset({"matmul", "bmm", "baddbmm", "einsum", "tensordot"})
_WEIGHTS = frozenset({"weight", "_parameters", "get_parameter"})
_DEPTH = 4
"""How many calls deep functions are followed."""


def activation_product(module: nn.Module) -> str | None:
    """What multiplies two activations in a module's own forward().

    A product with the weights of a layer is another matter: where the code names any, only attention is certain. Of
    parameters of its own, it is read which product they go into.

    Args:
        module: any module.

    Returns:
        "attention" or "matmul"; None: nothing was found.
    """
    kind = type(module)
    if kind.__module__.startswith("torch."):
        return None
    forward = getattr(kind.forward, "__wrapped__", kind.forward)
    if not isinstance(forward, FunctionType):
        return None
    names: set[str] = set()
    multiplies = False
    for code in _codes(forward, kind, _DEPTH, set()):
        names.update(code.co_names)
        multiplies = multiplies or _has_matmul(code)
    if names & _ATTENTION:
        return "attention"
    if not (multiplies or names & _MATMULS) or names & _WEIGHTS:
        return None
    own = any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
    return "matmul" if not own or multiplies_activations(module) else None


def names_weights(module: nn.Module) -> bool:
    """Whether the code of a module outside torch names weights, with which it may multiply by itself.

    Args:
        module: any module.
    """
    kind = type(module)
    forward = getattr(kind.forward, "__wrapped__", kind.forward)
    if kind.__module__.startswith(("torch.", "hpml_sim.")) or not isinstance(forward, FunctionType):
        return False
    return any(_WEIGHTS.intersection(code.co_names) for code in _codes(forward, kind, _DEPTH, set()))


def _codes(function: FunctionType, kind: type[nn.Module], depth: int, seen: set[CodeType]) -> Iterator[CodeType]:
    """The code of a function, of functions defined in it, and of what it names in its class and its file."""
    if function.__code__ in seen:
        return
    pending = [function.__code__]
    while pending:
        code = pending.pop()
        seen.add(code)
        yield code
        pending += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in code.co_names if depth else ():
            if (found := named_function(name, kind, function)) is not None:
                yield from _codes(found, kind, depth - 1, seen)


def _has_matmul(code: CodeType) -> bool:
    """Whether `@` stands in it."""
    return any(step.opname == "BINARY_OP" and step.argrepr in ("@", "@=") for step in dis.get_instructions(code))
