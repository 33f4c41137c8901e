"""Finds, before anything runs, bare parameters that a forward() multiplies with: matrices, stacks of expert weights.

The code is read, not run: which parameter of a module goes into which product tells whether a matrix lies there as
(outputs, inputs) or as (inputs, outputs).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.fx
from torch import nn

from hpml_sim.conversion.named_functions import named_function

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
_KEEPS_ALL = frozenset({"to", "float", "half", "type", "type_as", "contiguous", "detach"})
"""Of these, what leaves a matrix whole."""
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
    return _read(module, dims=3).found


def own_matrices(module: nn.Module) -> dict[str, bool]:
    """The matrices among a module's own parameters that its forward() multiplies with, each as a whole.

    Args:
        module: any module.

    Returns:
        By the name of a parameter of shape (., .), whether it lies there as (inputs, outputs), and not, as in
        `nn.Linear`, as (outputs, inputs).
    """
    return _read(module, dims=2).found


def multiplies_activations(module: nn.Module) -> bool:
    """Whether a forward() certainly multiplies two factors, neither of them made of its own matrices.

    Args:
        module: any module.
    """
    return _read(module, dims=2).activations


def _read(module: nn.Module, dims: int) -> _Reader:
    """What the code of a module does with its own parameters of so many dimensions."""
    kind = type(module)
    names = {
        name
        for name, value in module.named_parameters(recurse=False)
        if not nn.parameter.is_lazy(value)
        and value.is_floating_point()
        and value.dim() == dims
        and min(value.shape[-2:]) > 1
    }
    reader = _Reader(kind, names, frozenset(module._modules), whole=dims == 2)
    forward = inspect.unwrap(kind.forward)
    traced = isinstance(module, torch.fx.GraphModule)  # its class is torch's, its code is the user's
    if names and (traced or not kind.__module__.startswith("torch.")) and isinstance(forward, FunctionType):
        reader.read(forward, {}, _DEPTH)
    return reader


class _Reader:
    """Follows parameters through the code of one class.

    Args:
        kind: the class.
        names: of the parameters.
        layers: names of the layers inside.
        whole: whether a part of a parameter is another thing.

    Attributes:
        found: by name, whether a parameter that is multiplied lies there as (inputs, outputs).
        activations: whether there is a product without any of them.
        whole: as given.
    """

    def __init__(self, kind: type[nn.Module], names: set[str], layers: frozenset[str], *, whole: bool):
        self._kind, self._names, self._layers = kind, names, layers
        self.whole = whole
        self.found: dict[str, bool] = {}
        self.activations = False

    def read(self, function: FunctionType, given: Mapping[str, _Stack], depth: int) -> None:
        """Read one function; `given`: which of its variables hold stacks."""
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        except (OSError, TypeError, SyntaxError):  # typed in at a prompt, or a lambda in the middle of a line
            return
        method = "." in function.__qualname__.rpartition("<locals>.")[2]
        first = tree.args.args[0].arg if method and isinstance(tree, ast.FunctionDef) and tree.args.args else "self"
        _Function(self, function, dict(given), depth, first).visit(tree)

    def own(self, name: str) -> _Stack | None:
        """The stack that `self.name` is."""
        return _Stack(name) if name in self._names else None

    def multiplies(self, stack: _Stack | None, *, inputs_first: bool) -> None:
        """A product with a stack that lies there as (inputs, outputs), or the other way round."""
        if stack is not None:
            self.found.setdefault(stack.name, inputs_first != stack.turned)

    def product(self, left: _Stack | None, right: _Stack | None, *, mentioned: bool) -> None:
        """A product of two factors, each a stack or another thing; `mentioned`: of a stack, or made of one."""
        if left is None and right is None:
            self.activations = self.activations or not mentioned
        if not (self.whole and left is not None and right is not None):  # a product of weights with weights
            self.multiplies(right, inputs_first=True)
            self.multiplies(left, inputs_first=False)

    def is_layer(self, name: str) -> bool:
        """Whether it is the name of a layer inside."""
        return name in self._layers

    def owns(self, name: str) -> bool:
        """Whether it is the name of one of the parameters."""
        return name in self._names

    def function(self, name: str, scope: FunctionType) -> FunctionType | None:
        """The function that a name stands for, in the class or in the file."""
        return named_function(name, self._kind, scope)


class _Function(ast.NodeVisitor):
    """One function, read from top to bottom."""

    def __init__(self, reader: _Reader, scope: FunctionType, given: dict[str, _Stack], depth: int, own: str):
        self._self = own
        self._reader, self._scope, self._depth = reader, scope, depth
        self._stacks = given
        self._made_of = set(given)  # variables that a parameter went into

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
            self._product(node.left, node.right)
        self.generic_visit(node)

    def _product(self, left: ast.expr | None, right: ast.expr | None) -> None:
        mentioned = self._mentions(left) or self._mentions(right)
        self._reader.product(self._stack(left), self._stack(right), mentioned=mentioned)

    def _mentions(self, node: ast.AST | None) -> bool:
        """Whether a parameter went into an expression, but for what a layer made of it."""
        if node is None:
            return False
        called = node.func if isinstance(node, ast.Call) else None
        if (
            isinstance(called, ast.Attribute)
            and _name(called.value) == self._self
            and self._reader.is_layer(called.attr)
        ):
            return False
        if isinstance(node, ast.Attribute) and _name(node.value) == self._self and self._reader.owns(node.attr):
            return True
        if isinstance(node, ast.Name) and node.id in self._made_of:
            return True
        return any(map(self._mentions, ast.iter_child_nodes(node)))

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
            self._product(_at(args, first), right)
        elif name == "einsum" and args and isinstance(args[0], ast.Constant) and isinstance(args[0].value, str):
            self._einsum(args[0].value, args[1:])
        elif self._depth and (function := self._reader.function(name, self._scope)) is not None:
            self._follow(function, node)
        self.generic_visit(node)

    def _einsum(self, equation: str, factors: list[ast.expr]) -> None:
        inputs, _, output = equation.replace(" ", "").partition("->")
        if not any(map(self._mentions, factors)):
            self._reader.activations = self._reader.activations or len(factors) > 1
        for letters, factor in zip(inputs.split(","), factors, strict=False):
            summed = [letter not in output for letter in letters[-2:]]
            if (len(letters) == 2 if self._reader.whole else len(letters) >= 3) and summed.count(True) == 1:
                self._reader.multiplies(self._stack(factor), inputs_first=summed[0])

    def _follow(self, function: FunctionType, node: ast.Call) -> None:
        """Read a function that a stack is handed to, or a method."""
        names = list(inspect.signature(function).parameters)
        method = isinstance(node.func, ast.Attribute) and _name(node.func.value) == self._self
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
        elif self._reader.whole:  # one row after another
            self._bind(target, ast.Constant(None))
        else:
            self._bind(target, iterated)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for part, own in zip(target.elts, value.elts, strict=True):
                self._bind(part, own)
            return
        stack = None if self._reader.whole and isinstance(target, ast.Tuple) else self._stack(value)
        mentioned = self._mentions(value)
        for part in target.elts if isinstance(target, ast.Tuple) else [target]:
            if isinstance(part, ast.Name):
                self._stacks.pop(part.id, None)
                self._made_of.discard(part.id)
                if mentioned:
                    self._made_of.add(part.id)
                if stack is not None:
                    self._stacks[part.id] = stack

    def _stack(self, node: ast.expr | None) -> _Stack | None:
        """The stack that an expression is made of; None for none."""
        if isinstance(node, ast.Name):
            return self._stacks.get(node.id)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == self._self:
                return self._reader.own(node.attr)
            inside = self._stack(node.value)
            return _turned(inside) if node.attr in _TURNED else inside if node.attr == "data" else None
        if isinstance(node, (ast.Subscript, ast.Starred)):
            return None if self._reader.whole else self._stack(node.value)
        if isinstance(node, ast.IfExp):
            return self._stack(node.body) or self._stack(node.orelse)
        if isinstance(node, ast.Call):
            name = _name(node.func)
            inside = self._stack(node.func.value) if isinstance(node.func, ast.Attribute) else None
            for argument in node.args if inside is None else ():
                inside = inside or self._stack(argument)
            keeps = _KEEPS_ALL if self._reader.whole else _KEEPS
            return _turned(inside) if name in _TURNS else inside if name in keeps else None
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
