"""Finds, before anything runs, stacks of expert weights: parameters (experts, ., .) that a forward() multiplies with.

The code is read, not run: which parameter of a module goes into which product tells whether an expert's matrix lies
there as (outputs, inputs) or as (inputs, outputs).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn

_PRODUCTS = frozenset({"matmul", "bmm", "mm", "_grouped_mm", "grouped_mm", "grouped_mm_fallback"})
_SUMS = frozenset({"baddbmm", "addmm", "addbmm"})
_TURNS = frozenset({"transpose", "permute", "swapaxes", "swapdims", "t", "adjoint"})
_TURNED = frozenset({"T", "mT", "H", "mH"})
_KEEPS = frozenset(
    {
        *("to", "float", "half", "type", "type_as", "contiguous", "clone", "detach", "unbind", "index_select"),
        *("squeeze", "unsqueeze", "chunk", "split", "expand", "gather", "take_along_dim", "reshape", "view", "select"),
        *("zip", "enumerate", "reversed", "iter", "list", "tuple"),
    }
)
_DEPTH = 4
"""How many calls deep functions are followed."""


@dataclass(frozen=True)
class _Stack:
    """A parameter, or what was made of it; `turned`: its last two dimensions are exchanged."""

    name: str
    turned: bool = False


def expert_stacks(module: nn.Module) -> dict[str, bool]:
    """The stacks of expert weights among a module's own parameters.

    Args:
        module: any module.

    Returns:
        By the name of a parameter of shape (experts, ., .), whether each expert's matrix lies in it as (inputs,
        outputs), and not, as in `nn.Linear`, as (outputs, inputs).
    """
    kind = type(module)
    if kind.__module__.startswith("torch."):
        return {}
    names = {
        name
        for name, value in module.named_parameters(recurse=False)
        if not nn.parameter.is_lazy(value) and value.dim() == 3 and min(value.shape[1:]) > 1
    }
    forward = inspect.unwrap(kind.forward)
    if not names or not isinstance(forward, FunctionType):
        return {}
    reader = _Reader(kind, names)
    reader.read(forward, {}, _DEPTH)
    return reader.found


class _Reader:
    """Follows parameters through the code of one class."""

    def __init__(self, kind: type[nn.Module], names: set[str]):
        self._kind, self._names = kind, names
        self.found: dict[str, bool] = {}

    def read(self, function: FunctionType, given: Mapping[str, _Stack], depth: int) -> None:
        """Read one function; `given`: which of its variables hold stacks."""
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        except (OSError, TypeError, SyntaxError):  # typed in at a prompt, or a lambda in the middle of a line
            return
        _Function(self, function, dict(given), depth).visit(tree)

    def own(self, name: str) -> _Stack | None:
        """The stack that `self.name` is."""
        return _Stack(name) if name in self._names else None

    def multiplies(self, stack: _Stack | None, *, inputs_first: bool) -> None:
        """A product with a stack that lies there as (inputs, outputs), or the other way round."""
        if stack is not None:
            self.found.setdefault(stack.name, inputs_first != stack.turned)

    def function(self, name: str, scope: FunctionType) -> FunctionType | None:
        """The function that a name stands for, in the class or in the file."""
        found: Any = inspect.unwrap(self._kind.__dict__.get(name) or scope.__globals__.get(name) or len)
        inside = isinstance(found, FunctionType) and not found.__module__.startswith("torch")
        return found if inside else None


class _Function(ast.NodeVisitor):
    """One function, read from top to bottom."""

    def __init__(self, reader: _Reader, scope: FunctionType, given: dict[str, _Stack], depth: int):
        self._reader, self._scope, self._depth = reader, scope, depth
        self._stacks = given

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._bind(target, node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._bind(node.target, node.value)

    def visit_For(self, node: ast.For) -> None:
        self._loop(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._loop(node.target, node.iter)
        self.generic_visit(node)

    def visit_ListComp(self, node: Any) -> None:
        for loop in node.generators:
            self.visit(loop)
        self.visit(node.elt)

    visit_GeneratorExp = visit_SetComp = visit_ListComp  # noqa: N815 - ast's names

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.MatMult):
            self._reader.multiplies(self._stack(node.right), inputs_first=True)
            self._reader.multiplies(self._stack(node.left), inputs_first=False)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        args = list(node.args)
        if isinstance(node.func, ast.Attribute) and name in _PRODUCTS | _SUMS and not _is_namespace(node.func.value):
            args.insert(0, node.func.value)  # x.matmul(weight)
        if name == "linear":
            self._reader.multiplies(self._stack(named.get("weight") or _at(args, 1)), inputs_first=False)
        elif name in _PRODUCTS | _SUMS:
            first = int(name in _SUMS)
            right = named.get("mat2") or named.get("other") or named.get("batch2") or _at(args, first + 1)
            self._reader.multiplies(self._stack(right), inputs_first=True)
            self._reader.multiplies(self._stack(_at(args, first)), inputs_first=False)
        elif name == "einsum" and args and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str):
            self._einsum(args[0].value, args[1:])
        elif self._depth and (function := self._reader.function(name, self._scope)) is not None:
            self._follow(function, node)
        self.generic_visit(node)

    def _einsum(self, equation: str, factors: list[ast.expr]) -> None:
        inputs, _, output = equation.replace(" ", "").partition("->")
        for letters, factor in zip(inputs.split(","), factors, strict=False):
            summed = [letter not in output for letter in letters[-2:]]
            if len(letters) >= 3 and summed.count(True) == 1:
                self._reader.multiplies(self._stack(factor), inputs_first=summed[0])

    def _follow(self, function: FunctionType, node: ast.Call) -> None:
        """Read a function that a stack is handed to, or a method."""
        names = list(inspect.signature(function).parameters)
        method = isinstance(node.func, ast.Attribute) and _name(node.func.value) == "self"
        pairs = dict(zip(names[method:], node.args, strict=False))
        pairs |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        stacks = {name: stack for name, value in pairs.items() if (stack := self._stack(value)) is not None}
        if stacks or method:
            self._reader.read(function, stacks, self._depth - 1)

    def _loop(self, target: ast.expr, iterated: ast.expr) -> None:
        """`for w in self.stack`, `for a, b in zip(self.one, self.other)`, `for k, w in enumerate(self.stack)`."""
        name = _name(iterated.func) if isinstance(iterated, ast.Call) else ""
        if isinstance(iterated, ast.Call) and isinstance(target, ast.Tuple) and name in ("zip", "enumerate"):
            parts = target.elts[name == "enumerate" :]
            for part, value in zip(parts, iterated.args, strict=False):
                self._loop(part, value)
        else:
            self._bind(target, iterated)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for part, own in zip(target.elts, value.elts, strict=True):
                self._bind(part, own)
            return
        stack = self._stack(value)
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            if isinstance(part, ast.Name):
                self._stacks.pop(part.id, None)
                if stack is not None:
                    self._stacks[part.id] = stack

    def _stack(self, node: ast.expr | None) -> _Stack | None:
        """The stack that an expression is made of; None for none."""
        if isinstance(node, ast.Name):
            return self._stacks.get(node.id)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return self._reader.own(node.attr)
            inside = self._stack(node.value)
            return _turned(inside) if node.attr in _TURNED else inside if node.attr == "data" else None
        if isinstance(node, (ast.Subscript, ast.Starred)):
            return self._stack(node.value)
        if isinstance(node, ast.IfExp):
            return self._stack(node.body) or self._stack(node.orelse)
        if isinstance(node, ast.Call):
            name = _name(node.func)
            inside = self._stack(node.func.value) if isinstance(node.func, ast.Attribute) else None
            for argument in node.args if inside is None else ():
                inside = inside or self._stack(argument)
            return _turned(inside) if name in _TURNS else inside if name in _KEEPS else None
        return None


def _turned(stack: _Stack | None) -> _Stack | None:
    return None if stack is None else _Stack(stack.name, not stack.turned)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_namespace(node: ast.expr) -> bool:
    """Whether `node.matmul(...)` is a function of torch and not a method of a tensor."""
    return _name(node) in {"torch", "F", "functional", "_C", "aten", "transformers"}


def _at(args: list[ast.expr], index: int) -> ast.expr | None:
    return args[index] if len(args) > index else None
