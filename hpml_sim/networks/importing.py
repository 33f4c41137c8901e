"""What "package.module:callable" or "file.py:callable" names: networks and data sets of the user's own."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from hpml_sim.errors import HpmlError, shown


def names_code(spec: str) -> bool:
    """Whether a name such as the `spec` "file.py:callable" stands for code of the user's own: it has a colon."""
    return ":" in spec


def check_not_a_file(what: str, name: str) -> None:
    """Refuse a Python file where the name of the callable in it is missing.

    Args:
        what: the argument, for messages, such as "model".
        name: what was given; anything but the path of a file that is there is let through.

    Raises:
        HpmlError: it is a file; the message has what may be added.
    """
    try:
        path = Path(name).expanduser()
        there = path.is_file()
    except (OSError, RuntimeError):  # a name that no file can have, or no home to look in
        return
    if not there:
        return
    names: list[str] = []
    with suppress(OSError, SyntaxError, ValueError):  # a file that is no Python has no callables to name
        defined = ast.parse(path.read_bytes()).body
        names = [node.name for node in defined if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    example = f"{name}:{next((found for found in names if not found.startswith('_')), 'CALLABLE')}"
    raise HpmlError(f"{what} {name!r}: say which callable of the file is meant, such as {example}")


def imported(what: str, spec: str) -> Callable[..., Any]:
    """The callable that `spec` names; modules and files in the current folder are found as well.

    Args:
        what: the argument, for messages, such as "model".
        spec: "package.module:callable" or "folder/file.py:callable".

    Raises:
        HpmlError: there is no such file, module or name, it is not callable, or the user's code fails when imported.
    """
    if not isinstance(spec, str):
        raise HpmlError(f"{what}={shown(spec)}: must be text, package.module:callable or file.py:callable")
    source, _, attribute = spec.rpartition(":")
    if not (source and attribute):  # refused before the file is executed
        raise HpmlError(f"{what} {spec!r}: a part is missing; give package.module:callable or file.py:callable")
    try:
        with _folder_on_path(Path.cwd()):
            module = _file_module(Path(source)) if source.endswith(".py") else importlib.import_module(source)
        found = getattr(module, attribute, None)
    except Exception as error:  # whatever the user's own code raises
        raise HpmlError(
            f"{what} {spec!r}: {type(error).__name__}: {error}; give package.module:callable or file.py:callable"
        ) from error
    if not callable(found):
        near = difflib.get_close_matches(attribute, vars(module), n=1, cutoff=0.5)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise HpmlError(f"{what} {spec!r}: {source} has no callable {attribute!r}.{guess}")
    return found


def called(what: str, spec: str, /, **options: Any) -> Any:
    """What the callable that `spec` names gives; errors of the user's code become one that names the argument.

    Args:
        what: the argument, for messages, such as "model".
        spec: "package.module:callable" or "folder/file.py:callable".
        options: arguments of the call.

    Raises:
        HpmlError: there is no such file, module or name, it is not callable, or the user's code fails.
    """
    function = imported(what, spec)
    try:
        with _folder_on_path(Path.cwd()):
            return function(**options)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in options.items()) or "no arguments"
        raise HpmlError(f"{what} {spec!r}, called with {given}: {type(error).__name__}: {error}") from error


@contextmanager
def sent_whole() -> Iterator[None]:
    """Let cloudpickle send code along that another Python with our `sys.path` would not find.

    Of a script or a notebook it does so by itself; here it learns of modules whose folder was on the path only while
    they were imported, such as those beside a "file.py:callable".
    """
    import cloudpickle

    loaded = {name: m for name, m in sys.modules.items() if isinstance(m, ModuleType) and m.__name__ == name}
    there: dict[str, bool] = {}
    for name, module in loaded.items():
        top = name.partition(".")[0]
        if top not in there and module.__spec__ is not None and (module.__spec__.origin or "").endswith(".py"):
            there[top] = any(finder.find_spec(top, None) is not None for finder in sys.meta_path)
    away = [module for name, module in loaded.items() if not there.get(name.partition(".")[0], True)]
    already = cloudpickle.list_registry_pickle_by_value()
    away = [module for module in away if module.__name__ not in already]
    for module in away:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in away:
            cloudpickle.unregister_pickle_by_value(module)


def _file_module(path: Path) -> ModuleType:
    """The module in a file, executed anew: a file that was changed is read as it is now."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    with _folder_on_path(path.parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _folder_on_path(folder: Path) -> Iterator[None]:
    """Let code find modules in a folder while it is imported or called."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
