"""How the input range of a crossbar layer is found: configurations that `Analog(input_range=)` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, field, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.targets.checking import Real, Whole, checked, config_class

_Sigmas = Annotated[Real, Field(gt=0)]


class _Named:
    """Shown by its name where all is at its default, else as the table that makes it again."""

    def __repr__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        more = {
            f.name: given[f.name]
            for f in fields(self)  # type: ignore[arg-type]
            if f.name != "name" and given[f.name] != f.default
        }
        return repr({"name": given["name"], **more} if more else given["name"])


@config_class
class Dynamic(_Named):
    """Each input vector by its own largest magnitude, of a convolution each feature map: nothing is clipped.

    Finding the maximum and scaling by it is digital work, which the estimate charges.

    Attributes:
        name: always "dynamic".
    """

    _: KW_ONLY
    name: Literal["dynamic"] = field(default="dynamic", repr=False)


@config_class
class Percentile(_Named):
    """One range a layer, which covers a share of the inputs that are not zero.

    Attributes:
        share: of the inputs, above 0.5 up to 1: what lies beyond is clipped.
        name: always "percentile".
    """

    _: KW_ONLY
    share: Annotated[Real, Field(gt=0.5, le=1)] = 0.995
    name: Literal["percentile"] = field(default="percentile", repr=False)


@config_class
class Sigma(_Named):
    """One range a layer: a multiple of the standard deviation of the inputs.

    Attributes:
        sigmas: the multiple, above 0.
        name: always "sigma".

    Source: aihwkit's `init_std_alpha`, whose default is 3.
    """

    _: KW_ONLY
    sigmas: _Sigmas = 3.0
    name: Literal["sigma"] = field(default="sigma", repr=False)


@config_class
class Learned(_Named):
    """One range a layer: first a multiple of the standard deviation, then trained by the gradient of the loss.

    A wider range costs resolution, a narrower one clips, at DAC and ADC; `fit` trains a factor of the range.

    Attributes:
        sigmas: the multiple that the range begins with, above 0.
        batches: so many batches of training find the first range, at least 1; then the gradient takes over.
        decay: pull towards narrower ranges, >= 0, which acts only while fewer than 5 % of a batch are clipped.
        name: always "learned".

    Source: the defaults are those of aihwkit; Analog Foundation Models (J. Buechel et al., arXiv:2505.09663) take
    sigmas=18, batches=500, decay=0.01.
    """

    _: KW_ONLY
    sigmas: _Sigmas = 3.0
    batches: Annotated[Whole, Field(ge=1)] = 100
    decay: Annotated[Real, Field(ge=0)] = 0.001
    name: Literal["learned"] = field(default="learned", repr=False)


@config_class
class LeastSquares(_Named):
    """One range a layer: that of the least squared error of the layer's outputs on the calibration data.

    In training, where the range follows the batches, it is that of the least squared error of the inputs.

    Attributes:
        name: always "mse".
    """

    _: KW_ONLY
    name: Literal["mse"] = field(default="mse", repr=False)


InputRange = Dynamic | Percentile | Sigma | Learned | LeastSquares
"""How the input range of a layer is found."""
INPUT_RANGES: Mapping[str, type[InputRange]] = {
    "dynamic": Dynamic,
    "percentile": Percentile,
    "sigma": Sigma,
    "learned": Learned,
    "mse": LeastSquares,
}
"""The input ranges by name."""


def as_input_range(given: Any) -> Any:
    """A validator of `Analog(input_range=)`: a name, a table with a name and options, or one of the classes.

    Args:
        given: what the caller wrote.

    Raises:
        UnknownNameError: no range has this name.
        HpmlError: something of another kind, or an option that this range does not have.
    """
    if given is None or isinstance(given, tuple(INPUT_RANGES.values())):
        return given
    names = ", ".join(map(repr, INPUT_RANGES))
    table = {"name": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping):
        raise HpmlError(
            f"input_range={shown(given)}: must be one of {names}, a table such as "
            "{'name': 'percentile', 'share': 0.999}, or None"
        )
    if "name" not in table:
        raise HpmlError(f"input_range={shown(given)}: give its name as well, one of {names}")
    name = str(table["name"])
    if name not in INPUT_RANGES:
        raise UnknownNameError("input_range", name, INPUT_RANGES)
    return checked(INPUT_RANGES[name], table, where=f"input_range={name!r}")
