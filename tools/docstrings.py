"""What the docstrings of the package lack: `python tools/docstrings.py [PATH ...]`; `tests/test_docstrings.py` runs it.

Everything public (no leading underscore, in a public module) has a docstring in Google style. A parameter has an entry
of its own: documentation generators read `a: rows. b: columns.` on one line as one parameter. Functions and classes
with a page in the reference describe every parameter; a helper with two parameters, or a method with one, may do with a
sentence.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hpml_sim", "baselines")
WITH_EXAMPLES = ("hpml_sim", "hpml_sim.spiking", "hpml_sim.analog.nn", "hpml_sim.networks.models", "hpml_sim.baselines")
"""Modules whose public names have an example each."""
ENTRIES = ("Args", "Attributes", "Raises")
SECOND_ENTRY = re.compile(r"(?:^|[.;?)] )(?:[a-z_][a-z0-9_]*(?:, [a-z_][a-z0-9_]*)*|[A-Z]\w*Error): ")
"""A name and a colon behind the end of a sentence: our sentences begin with a capital."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef


def source_files(*paths: str) -> list[Path]:
    """Files of the package below `paths`, relative to the root; the two links inside the package are left out."""
    files: set[Path] = set()
    for folder in paths or PACKAGES:
        start = ROOT / folder
        files.update([start] if start.is_file() else start.rglob("*.py"))
    links = [ROOT / "hpml_sim" / name for name in ("baselines", "devices")]
    return sorted(path for path in files if not any(path.is_relative_to(link) for link in links))


def is_public(path: Path) -> bool:
    """Whether a module's dotted name has no part that begins with an underscore."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return all(part == "__init__" or not part.startswith("_") for part in parts)


def faults(*paths: str) -> list[str]:
    """One line a fault, `file:line: name: what is wrong`, of everything below `paths`; by default of the package."""
    on_pages, with_examples = public_definitions(reference_modules()), public_definitions(WITH_EXAMPLES)
    found = []
    for path in source_files(*paths):
        text = path.read_text(encoding="utf-8")
        names, examples = ({name for file, name in pairs if file == path} for pairs in (on_pages, with_examples))
        wrong = faults_of_text(text, names, examples, public=is_public(path))
        found += [f"{path.relative_to(ROOT).as_posix()}:{fault}" for fault in wrong]
    return found


def faults_of_text(text: str, on_pages: set[str], with_examples: set[str], *, public: bool = True) -> list[str]:
    """Faults of one module.

    Args:
        text: its source.
        on_pages: names that have a place in the reference, so that every parameter is described.
        with_examples: names that have an example.
        public: whether more than the words is looked at.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if "likewise" in line.lower():
            found.append(f"{number}: say it in full instead of 'likewise'")
    for name, node, owner in _documented(ast.parse(text)) if public else ():
        short = 1 if owner else 0 if name in on_pages else 2
        found += [f"{node.lineno}: {name}: {fault}" for fault in _faults_of(node, owner, short)]
        if name in with_examples and ">>> " not in (ast.get_docstring(node) or ""):
            found.append(f"{node.lineno}: {name}: has no Example")
    return found


def reference_modules() -> list[str]:
    """Modules that have a page in the reference."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return list(importlib.import_module("pages").REFERENCE)
    finally:
        sys.path.pop(0)


def public_definitions(modules: Iterable[str]) -> set[tuple[Path, str]]:
    """(file, name) of every function and class that modules offer, found without importing anything."""
    found = set()
    for module in modules:
        for name in _exported(module):
            path, inner = _definition(module, name)
            if path is not None:
                found.add((path, inner))
    return found


def _file_of(module: str) -> Path | None:
    inside = module.removeprefix("hpml_sim.")
    path = ROOT.joinpath(*(inside if inside.startswith("baselines") else module).split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _exported(module: str) -> list[str]:
    """Names of a module's `__all__`, else what it imports under the same name and what it defines."""
    path = _file_of(module)
    if path is None:
        return []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
        if isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, Documented):
            names.append(node.name)
    return [name for name in names if not name.startswith("_")]


def _definition(module: str, name: str) -> tuple[Path | None, str]:
    """Where a name is defined: through all modules that only hand it on."""
    path = _file_of(module)
    if path is None or _file_of(f"{module}.{name}"):  # not ours, or a module itself
        return None, name
    body = ast.parse(path.read_text(encoding="utf-8")).body
    # what is imported when it is first asked for stands under `if TYPE_CHECKING`
    for node in [*body, *(inner for one in body if isinstance(one, ast.If) for inner in one.body)]:
        if isinstance(node, Documented) and node.name == name:
            return path, name
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _definition(node.module, alias.name)
    return None, name


def _documented(tree: ast.Module) -> Iterator[tuple[str, Documented, ast.ClassDef | None]]:
    """(dotted name, node, class it belongs to) of every public class, function and method of a module."""
    for node in tree.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            yield node.name, node, None
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Function) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner, node


def _faults_of(node: Documented, owner: ast.ClassDef | None, short: int) -> Iterator[str]:
    """`short`: up to how many parameters need no section of their own."""
    if isinstance(node, Function) and _has_decorator(node, "overload", "override", "setter"):
        return
    docstring = ast.get_docstring(node)
    if docstring is None:
        yield "has no docstring"
        return
    described: set[str] = set()
    sections = list(_sections(docstring))
    for section, entries in sections:
        for first, rest in entries:
            names = [name.strip().lstrip("*") for name in first.split(",")]
            if len(names) > 1:
                yield f"{section}: {first!r} share an entry; one each"
            described.update(names)
            for line in rest:
                if second := SECOND_ENTRY.search(line):
                    yield f"{section}: {second[0].strip(' .;?)')!r} stands within the entry of {first!r}"
    wanted = _parameters(node, owner)
    if not any(section in ("Args", "Attributes") for section, _ in sections):
        described.update(re.findall(r"`(\w+)", docstring))
        if len(wanted) <= short:
            described.update(wanted)
    missing = [name for name in wanted if name not in described]
    if missing:
        yield f"does not describe {', '.join(missing)}"
    if isinstance(node, Function):
        named = {name for section, entries in sections if section == "Args" for name, _ in entries}
        names = {part.strip().lstrip("*") for name in named for part in name.split(",")}
        if strange := sorted(names - {*wanted, *_all_arguments(node)}):
            yield f"describes {', '.join(strange)}, which it does not take"


def _sections(docstring: str) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Each of Args, Attributes and Raises, with its entries: (what stands before the colon, lines of its text)."""
    lines = docstring.splitlines()
    for start, line in enumerate(lines):
        header = re.fullmatch(r"( *)(\w+):", line)
        if header is None or header[2] not in ENTRIES:
            continue
        entries: list[tuple[str, list[str]]] = []
        indent = len(header[1]) + 4
        for text in lines[start + 1 :]:
            if not text.strip():
                continue
            depth = len(text) - len(text.lstrip())
            if depth < indent:
                break
            begun = re.match(r"([\w*][\w*., ]*?)(?: \([^)]*\))?: ?(.*)", text.strip()) if depth == indent else None
            if begun:
                entries.append((begun[1], [begun[2]]))
            elif entries:
                entries[-1][1].append(text.strip())
        yield header[2], entries


def _all_arguments(node: Function) -> list[str]:
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [argument.arg for argument in every if argument is not None]


def _parameters(node: Documented, owner: ast.ClassDef | None) -> list[str]:
    """What the docstring must describe: arguments, of a class those of `__init__` or the fields of a dataclass."""
    if isinstance(node, Function):
        if _has_decorator(node, "property", "cached_property"):
            return []
        names = _all_arguments(node)
        bound = owner is not None and not _has_decorator(node, "staticmethod")
        return [n for n in (names[1:] if bound else names) if not n.startswith("_") and n not in ("args", "kwargs")]
    for inner in node.body:
        if isinstance(inner, Function) and inner.name == "__init__":
            own = ast.get_docstring(inner)
            if own and "Args:" in own:
                return []
            return [name for name in _all_arguments(inner)[1:] if not name.startswith("_")]
    bases = {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases}
    if not (_has_decorator(node, "dataclass", "config_class") or bases & {"NamedTuple", "TypedDict", "BaseModel"}):
        return []
    fields = []
    for i, inner in enumerate(node.body):
        if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            after = node.body[i + 1] if i + 1 < len(node.body) else None
            has_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not has_text and not inner.target.id.startswith("_") and "ClassVar" not in ast.unparse(inner.annotation):
                fields.append(inner.target.id)
    return fields


def _has_decorator(node: Documented, *names: str) -> bool:
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in names:
            return True
    return False


if __name__ == "__main__":
    wrong = faults(*sys.argv[1:])
    print(*wrong, f"{len(wrong)} faults", sep="\n")
    raise SystemExit(bool(wrong))
