"""Checks of a student's answer: each failure says what was expected, what was given, and the usual reason for it.

No failure shows a stack trace of the library: an error inside the student's function is reported with the line of the
student's own code.
"""

from __future__ import annotations

import inspect
import linecache
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from hpml_sim.cards import BaseCard

_LONGEST = 60
_FEW = 8
_POWERS = {1e3: "thousand", 1e6: "million", 1e9: "billion", 1e12: "trillion"}
_SECONDS = {60: "minutes", 3600: "hours", 86400: "days"}


class CheckError(AssertionError):
    """An answer that is not the expected one. A notebook shows the message alone."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a stack trace."""
        return [f"CheckError: {self}"]


@dataclass(frozen=True)
class Answer:
    """What a student's code gave, ready to be compared.

    Attributes:
        name: how messages call it: a call such as "ridge(1.0, 2.0)", or the name of a variable.
        value: what it gave.
    """

    name: str
    value: Any

    def is_close(
        self,
        expected: Any,
        unit: str = "",
        *,
        rel: float = 1e-3,
        abs: float = 0.0,  # noqa: A002 - as in pytest.approx
        hints: Mapping[float, str] | None = None,
        hint: str = "",
    ) -> None:
        """Check a number, or numbers of the same shape.

        Args:
            expected: a number, array or tensor.
            unit: of both, for the message ("J", "FLOP/byte"; empty for a pure number).
            rel: relative tolerance: each number may differ by `rel` times the expected one.
            abs: absolute tolerance, in `unit`; the larger of the two counts.
            hints: what it means if the answer is this many times the expected, as {2.0: "a MAC is two operations"}.
            hint: what to think of if the answer is off by anything else.

        Raises:
            CheckError: no number, another shape, not finite, or too far off.
        """
        want = _array(expected)
        got = self._numbers(want, unit)
        if np.all(np.abs(got - want) <= np.maximum(rel * np.abs(want), abs)):
            return
        if want.ndim:
            worst = np.unravel_index(np.argmax(np.abs(got - want)), want.shape)
            place = f"[{', '.join(map(str, worst))}]"
            text = f"{self.name}{place} should be {_figure(want[worst], unit)}, got {_figure(got[worst], unit)}"
        else:
            text = f"{self.name} should be {_figure(want, unit)}, got {_figure(got, unit)}"
        slip = _slip(got, want, unit, hints or {}, hint)
        raise CheckError(f"{text}.{' ' + slip if slip else ''}")

    def is_between(self, low: float, high: float, unit: str = "", *, hint: str = "") -> None:
        """Check one number against bounds, as for a result with noise in it.

        Args:
            low: smallest right answer.
            high: largest right answer.
            unit: of all three, for the message.
            hint: what to think of if the answer is outside.

        Raises:
            CheckError: no single finite number, or outside.
        """
        got = float(self._numbers(np.asarray(low), unit))
        if not low <= got <= high:
            raise CheckError(
                f"{self.name} should lie between {_figure(low, unit)} and {_figure(high, unit)}, "
                f"got {_figure(got, unit)}.{' ' + hint if hint else ''}"
            )

    def equals(self, expected: Any, *, hint: str = "") -> None:
        """Check for exactly one value, type included (True is not 1; a list is not a tuple).

        Args:
            expected: the value; it may be None.
            hint: what to think of if the answer is another.

        Raises:
            CheckError: another value.
        """
        if expected is not None:
            self._not_nothing()
        got: Any = self.value.item() if isinstance(self.value, np.generic) else self.value
        if type(got) is not type(expected):
            kind = "" if expected is None else f" (of type {type(expected).__name__})"
            self._fail(f"should be {_short(expected)}{kind}, got {_short(got)} of type {type(got).__name__}", hint)
        if isinstance(expected, dict) and set(got) != set(expected):
            self._fail(f"should have the keys {_names(expected)}, got {_names(got)}", hint)
        if isinstance(expected, dict):
            for key, want in expected.items():
                if got[key] != want:
                    self._fail(f"is not right at {key!r}: {_short(got[key])}", hint)
        elif got != expected:
            self._fail(f"should be {_short(expected)}, got {_short(got)}", hint)

    def fulfills(self, condition: Callable[[Any], Any], what: str) -> None:
        """Check any property of the value.

        Args:
            condition: value -> whether it holds.
            what: the expectation in words, such as "should be symmetric".

        Raises:
            CheckError: it does not hold, or cannot be evaluated for a value of this kind.
        """
        self._not_nothing()
        try:
            holds = bool(condition(self.value))
        except Exception as error:  # whatever a value of the wrong kind raises
            self._fail(f"{what}; got {_short(self.value)}, for which that cannot be evaluated ({type(error).__name__})")
        if not holds:
            self._fail(f"{what}; got {_short(self.value)}")

    def has_shape(self, *shape: int) -> None:
        """Check the shape of an array or tensor.

        Raises:
            CheckError: no array, or another shape.
        """
        self._not_nothing()
        got = getattr(self.value, "shape", None)
        if got is None:
            self._fail(f"should have the shape {shape}, got {_short(self.value)} ({type(self.value).__name__})")
        if tuple(got) != shape:
            self._fail(f"should have the shape {shape}, got {tuple(got)}")

    def has_length(self, length: int) -> None:
        """Check how many values a tuple, list or array holds.

        Raises:
            CheckError: nothing that has a length, or another one.
        """
        self._not_nothing()
        if not isinstance(self.value, (tuple, list, np.ndarray, torch.Tensor)):
            self._fail(f"should be {length} values, got {_short(self.value)} ({type(self.value).__name__})")
        if len(self.value) != length:
            self._fail(f"should be {length} values, got {len(self.value)}")

    def _numbers(self, want: np.ndarray, unit: str) -> np.ndarray:
        self._not_nothing()
        what = f"numbers of shape {want.shape}" if want.ndim else "one number"
        what += f" in {unit}" if unit else ""
        try:
            got = _array(self.value)
        except (TypeError, ValueError):
            self._fail(f"should be {what}, got {_short(self.value)} ({type(self.value).__name__})")
        if got.shape != want.shape:
            given = f"shape {got.shape}" if got.ndim else "one number"
            self._fail(f"should be {what}, got {given}")
        if not np.all(np.isfinite(got)):
            self._fail(f"should be {what}, got {_short(self.value)}: a division by zero, or a logarithm of zero?")
        return got

    def _not_nothing(self) -> None:
        if self.value is None:
            is_call = self.name.endswith(")")
            self._fail("returned nothing (None): is the `return` missing?" if is_call else "is None: was it set?")

    def _fail(self, text: str, hint: str = "") -> NoReturn:
        end = "" if text.endswith("?") else "."
        raise CheckError(f"{self.name} {text}{end}{' ' + hint if hint else ''}")


def check(function: Callable[..., Any], *arguments: Any, **options: Any) -> Answer:
    """Call a student's function and hand its result on to be compared.

    Args:
        function: the student's.
        arguments: handed over by position.
        options: handed over by name.

    Returns:
        The answer, named after the call.

    Raises:
        CheckError: no function, one that does not take these arguments, or an error inside it.
        NotImplementedError: from a blank that was not filled in.
    """
    if not callable(function):
        raise CheckError(
            f"expected a function, got {_short(function)} ({type(function).__name__}): keep the `def` line as it was"
        )
    name = getattr(function, "__name__", type(function).__name__)
    given = [_short(a) for a in arguments] + [f"{key}={_short(value)}" for key, value in options.items()]
    call = f"{name}({', '.join(given)})"
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise CheckError(
            f"{call} cannot be called: {error}. It now reads `def {name}{inspect.signature(function)}`; "
            "keep the arguments of the task"
        ) from None
    try:
        value = function(*arguments, **options)
    except NotImplementedError:
        raise
    except Exception as error:  # whatever the student's code raises
        line = _line_of(error, function)
        raise CheckError(f"{call} stopped with {type(error).__name__}: {error}{line}") from None
    return Answer(call, value)


def answer(name: str, value: Any) -> Answer:
    """A variable of the student's, ready to be compared.

    Args:
        name: what messages call it.
        value: what the student's code gave it.
    """
    return Answer(name, value)


def _line_of(error: Exception, function: Callable[..., Any]) -> str:
    """The last line of the student's own notebook or file that the error passed through."""
    called = type(function).forward if isinstance(function, torch.nn.Module) else function
    own = getattr(called, "__globals__", None)  # every cell of a notebook has the same
    step, place = error.__traceback__, ""
    while step is not None and own is not None:
        if step.tb_frame.f_globals is own:
            source = linecache.getline(step.tb_frame.f_code.co_filename, step.tb_lineno).strip()
            place = f"\n  in your line {step.tb_lineno}: {source}" if source else f"\n  in your line {step.tb_lineno}"
        step = step.tb_next
    return place


def _array(value: Any) -> np.ndarray:
    """As float64; booleans and texts are no numbers."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError("not numbers")
    return array.astype(np.float64)


def _slip(got: np.ndarray, want: np.ndarray, unit: str, hints: Mapping[float, str], otherwise: str) -> str:
    """What the ratio of answer to expected usually means, if it is the same everywhere; else `otherwise`."""
    tells = np.abs(want) > 1e-3 * np.max(np.abs(want), initial=0)  # of numbers near zero the ratio is noise
    ratios = got[tells] / want[tells]
    if not ratios.size or np.ptp(ratios) > 1e-2 * abs(ratios[0]) or not ratios[0]:
        return otherwise
    ratio = float(ratios[0])
    # of two hints that lie close together, the nearer one
    for factor, hint in sorted(hints.items(), key=lambda item: abs(item[0] - ratio)):
        if math.isclose(ratio, factor, rel_tol=1e-2):
            return hint
    if math.isclose(ratio, -1, rel_tol=1e-2):
        return "The sign is the other way round."
    for factor, word in _POWERS.items():
        if math.isclose(ratio, factor, rel_tol=1e-2) or math.isclose(ratio, 1 / factor, rel_tol=1e-2):
            way = "large" if ratio > 1 else "small"
            return f"It is a {word} times too {way}: is it in {unit or 'the unit that the task asks for'}?"
    if math.isclose(ratio, 100, rel_tol=1e-2):
        return "It is 100 times too large: the task wants a share, not a percentage."
    for seconds, word in _SECONDS.items():
        if unit == "s" and math.isclose(ratio, 1 / seconds, rel_tol=1e-2):
            return f"It is in {word}; the task wants seconds."
    if "byte" in unit and (math.isclose(ratio, 8, rel_tol=1e-2) or math.isclose(ratio, 1 / 8, rel_tol=1e-2)):
        return "It is off by a factor of 8: bits or bytes?"
    return otherwise or f"That is {ratio:.4g} times the expected."


def _figure(value: Any, unit: str) -> str:
    return f"{float(value):.4g}{' ' + unit if unit else ''}"


def _names(keys: Any) -> str:
    return ", ".join(map(repr, sorted(map(str, keys)))) or "none"


def _short(value: Any) -> str:
    """At most one line."""
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 1 and len(value) <= _FEW:
        return f"[{', '.join(_short(v) for v in value)}]"
    if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim:
        return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
    if isinstance(value, torch.Tensor):
        value = value.item()
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6g}"
    if isinstance(value, BaseCard):
        return f"<card {value.name}>"
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    if isinstance(value, set):
        return f"{{{', '.join(sorted(map(_short, value)))}}}" if value else "set()"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
