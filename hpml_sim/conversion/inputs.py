"""What a network is given: in the type of its weights, finite, or one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from hpml_sim.conversion.network_call import Inputs, map_tensors, tensors_in
from hpml_sim.conversion.snntorch_states import snntorch_neurons
from hpml_sim.errors import HpmlError, NotFiniteError


def in_type_of_weights(model: nn.Module, x: Inputs) -> Inputs:
    """Floating-point inputs in the type of a network's weights; all others as they are.

    Args:
        model: any network; its first floating-point parameter gives the type.
        x: inputs of any shape, one or several.
    """
    wanted = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)

    def converted(part: Tensor) -> Tensor:
        return part if wanted is None or not part.is_floating_point() or part.dtype == wanted else part.to(wanted)

    return map_tensors(converted, x)


@contextmanager
def integers_explained(who: str, x: Inputs) -> Iterator[None]:
    """Within the block, a network that fails on inputs that are no floating-point numbers says so in one line.

    Networks with an embedding, or with a conversion of their own, take such inputs.

    Args:
        who: begins the message, such as "evaluate".
        x: the inputs that it is called with.

    Raises:
        HpmlError: torch refused the inputs.
    """
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        first = next(tensors_in(x), None)
        if first is None or first.is_floating_point():
            raise
        raise HpmlError(
            f"{who}: the inputs are {first.dtype}, which the network does not take; give floating-point numbers, such "
            f"as images.float() / 255 ({' '.join(str(error).split())[:120]})"
        ) from error


def check_finite(who: str, x: Inputs, *, numbers: Sequence[int] | Tensor | None = None, hint: str = "") -> None:
    """Refuse inputs that hold NaN or infinity: spikes would hide them.

    Args:
        who: begins the message, such as "evaluate".
        x: inputs, (batch, ...), one or several.
        numbers: what to call each sample, (batch,); None counts from 0.
        hint: ends the message; "": what to do about it.

    Raises:
        NotFiniteError: there are such values; it names the first sample and the place in it.
    """
    if torch.compiler.is_compiling():  # values are not known while a network is recorded
        return
    for part in tensors_in(x):
        _check_finite(who, part, numbers, hint)


def _check_finite(who: str, x: Tensor, numbers: Sequence[int] | Tensor | None, hint: str) -> None:
    if x.is_meta or not (x.is_floating_point() or x.is_complex()):
        return
    with _disable_current_modes():  # whoever counts the network's operations must not count this one
        if bool(torch.isfinite(x).all()):
            return
    first = torch.nonzero(~torch.isfinite(x.detach()))[0].tolist()
    row = first[0] if first else 0
    number = row if numbers is None else int(numbers[row])
    place = f" at {first[1:]}" if len(first) > 1 else ""
    raise NotFiniteError(
        f"{who}: sample {number} of the input holds {float(x.detach()[tuple(first)].real):g}{place}; "
        + (hint or "every value must be finite: leave the sample out, or mend it (torch.nan_to_num)")
    )


def numeric_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that hold floating-point numbers, by name; aihwkit's place-holders and meta tensors hold none.

    Args:
        model: any network.
    """
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if type(parameter) is nn.Parameter and parameter.is_floating_point() and not parameter.is_meta
    }


def check_weights_finite(who: str, model: nn.Module, hint: str) -> None:
    """Refuse weights that hold NaN: neurons that never fire again would hide them.

    Args:
        who: begins the message, such as "fit".
        model: any network.
        hint: what to do about it; it ends the message.

    Raises:
        NotFiniteError: a parameter, or a setting of a snnTorch neuron such as its decay, holds NaN; it is named.
    """
    values = {name: parameter.detach() for name, parameter in numeric_parameters(model).items()}
    for layer, neuron in snntorch_neurons(model).items():  # ours refuse such settings when they are made
        kept = {
            name: value
            for name, value in neuron.named_buffers(prefix=layer, recurse=False)
            if value.is_floating_point() and name.rpartition(".")[2] not in neuron._non_persistent_buffers_set
        }
        values.update(kept)
    for name, value in values.items():
        if bool(torch.isnan(value).any()):
            raise NotFiniteError(f"{who}: the weights {name!r} hold NaN; {hint}")
