"""Which reset convention the installed snnTorch has: our fused neurons equal version 1.0's and no other."""

from __future__ import annotations

import functools
import warnings

import torch

from hpml_sim.errors import HpmlError
from hpml_sim.spiking.snntorch_import import REQUIREMENT, leaky, snntorch

_DRIVE = (1.5, 0.25, 0.25)
_BETA, _THRESHOLD = 0.5, 1.0
# Membranes by hand from the equations in kernels/lif/reference.py: 1.5 fires; the reset acts at the next step.
_EXPECTED = {"subtract": (1.5, 0.0, 0.25), "zero": (1.5, 0.25, 0.375), "none": (1.5, 1.0, 0.75)}
_SUBTRACT_BETA = (1.5, 0.5, 0.5)  # subtracting before the leak, as a coming version proposes
_ZERO_DROPS_INPUT = (1.5, 0.0, 0.25)


def snntorch_convention() -> tuple[bool, str]:
    """Run `snntorch.Leaky` for three steps and say whether it resets as our fused neurons do.

    Returns:
        Whether the installed version has the expected convention; and the version and convention in words, or what
        differs and the command that mends it.

    Example:
        >>> import hpml_sim as hs
        >>> resets_as_ours, detail = hs.spiking.snntorch_convention()
        >>> resets_as_ours
        True
    """
    try:
        version = getattr(snntorch(), "__version__", "of unknown version")
        seen = {reset: _run(reset) for reset in _EXPECTED}
        at_threshold = _run("none", (1.0,))
    except HpmlError as error:
        return False, str(error)
    except Exception as error:  # whatever a changed library raises is the finding here
        what = f"snntorch.Leaky failed: {type(error).__name__}: {error}"
        return False, f"{what}; install the known one: pip install '{REQUIREMENT}'"
    wrong = [reset for reset, membrane in _EXPECTED.items() if seen[reset][0] != membrane]
    if at_threshold[1] != (0.0,):
        wrong.append("threshold (a membrane equal to it now fires)")
    if not wrong:
        return (
            True,
            f"snntorch {version}: reset one step late, subtract takes theta, zero keeps the input, fires above theta",
        )
    guess = ""
    if seen["subtract"][0] == _SUBTRACT_BETA:
        guess += " 'subtract' now takes beta * theta."
    if seen["zero"][0] == _ZERO_DROPS_INPUT:
        guess += " 'zero' now drops the input of the step."
    return False, (
        f"snntorch {version}: differs from 1.0 in {', '.join(wrong)}.{guess} hpml_sim's fused neurons keep the "
        f"convention of 1.0; install it with: pip install '{REQUIREMENT}'"
    )


def _run(reset: str, drive: tuple[float, ...] = _DRIVE) -> tuple[tuple[float, ...], tuple[float, ...]]:
    neuron = leaky(torch.tensor(_BETA), torch.tensor(_THRESHOLD), reset)
    membrane, membranes, spikes = torch.zeros(1), [], []
    for value in drive:
        spike, membrane = neuron(torch.tensor([value]), membrane)
        membranes.append(float(membrane))
        spikes.append(float(spike))
    return tuple(membranes), tuple(spikes)


@functools.cache
def warn_if_changed() -> None:
    """Warn, once in a process, when snnTorch is installed and resets otherwise than our fused neurons."""
    try:
        snntorch()
    except HpmlError:
        return  # nothing installed, nothing to differ from
    ok, detail = snntorch_convention()
    if not ok:
        warnings.warn(detail, RuntimeWarning, stacklevel=3)
