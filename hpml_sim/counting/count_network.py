"""One hardware-independent pass over a network and data: what there is to do, counted, nothing estimated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.converted import Converted
from hpml_sim.conversion.idle_layers import IdleLayers
from hpml_sim.conversion.input_layout import batch_dimension
from hpml_sim.conversion.mapping import Mapping as LayerMapping
from hpml_sim.conversion.modes import eval_mode, statistics_of_one_sample
from hpml_sim.conversion.modules import check_network, running
from hpml_sim.conversion.network_call import copied_tensors, unshared
from hpml_sim.conversion.snntorch_states import put_to_rest
from hpml_sim.counting.operation_counts import Workload
from hpml_sim.counting.tensors import tensors_in
from hpml_sim.counting.tracing import Recorder
from hpml_sim.errors import HpmlError, check_real, check_whole, shown

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


def workload(
    model: nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    data: Inputs | None = None,
    dtype: torch.dtype | None = None,
    batch_dim: int | None = None,
    batch_size: int | None = None,
    forward: Callable[..., Any] | None = None,
    seed: int = 0,
    extra: Mapping[str, float] | None = None,
) -> Workload:
    """Count what a network does for one inference, layer by layer.

    Linear, convolutional, recurrent, attention, embedding, norm, activation, pooling and spiking layers are counted by
    kind (`register_counter` adds one); tensor operations outside them are watched as they happen, so that a product of
    a bare parameter or of two activations is counted where it is done. What cannot be counted is in `not_counted`.

    The model runs in evaluation mode, without gradients and from rest; its modes, a state that it keeps from call to
    call, and torch's random numbers are afterwards what they were.

    Args:
        model: any module. On `torch.device("meta")` nothing is allocated; only shapes are followed.
        input_shape: shape of one sample, without the batch, with the steps where the network takes them: shapes only. A
            model with real weights runs one sample of zeros.
        data: a batch: a tensor, a sequence of arguments, or a mapping of keyword arguments. Spikes, sparsity and
            synaptic operations are then means over its samples. Tensors on the meta device count as shapes.
        dtype: of the input made from `input_shape`; None takes that of the first floating-point parameter.
        batch_dim: dimension of the samples in the input, from 0. None asks the network: 1 for what `hs.spiking.fuse`
            and `from_nir` give, which takes (steps, batch, ...), also on crossbars; 0 for all others. Give 1 for a time
            loop of your own.
        batch_size: samples run together, at least 1; None: all. Saves memory; counts stay the same.
        forward: called as forward(model, ...) instead of model(...), for a time loop outside the model, say.
        seed: a whole number, for whatever the model draws.
        extra: figures of your own, put into `Workload.extra`.

    Raises:
        HpmlError: neither or both of `input_shape` and `data`; no sample in `data`; lazy layers without sizes; or the
            network fails on this input.

    Example:
        >>> from torch import nn
        >>> import hpml_sim as hs
        >>> hs.workload(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), input_shape=(4,)).total("macs")
        12.0
    """
    _check(model, input_shape=input_shape, data=data, dtype=dtype, forward=forward)
    if batch_dim is None:
        batch_dim = batch_dimension(model)
    batch_dim = check_whole("workload: batch_dim", batch_dim, low=0)
    if batch_size is not None:
        batch_size = check_whole("workload: batch_size", batch_size, low=1, hint="or leave it out")
    seed = check_whole("workload: seed", seed)
    own_figures = _figures(extra)
    _check_sizes(model)
    args, kwargs = _arguments(data if input_shape is None else _sample(model, input_shape, dtype, batch_dim))
    tensors = list(tensors_in((args, kwargs)))
    measured = input_shape is None and not any(t.is_meta for t in tensors)
    return _counted(model, args, kwargs, measured, batch_dim, batch_size, forward, seed, own_figures)


def workload_of_shapes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Workload:
    """Count what a network does for one inference on arguments whose values say nothing: by their shapes alone.

    Args:
        model: any module.
        args: what it takes by position, the batch first; of a network over time steps, the steps.
        kwargs: what it takes by name.

    Raises:
        HpmlError: no sample in the arguments, lazy layers without sizes, or the network fails on them.
    """
    _check_sizes(check_network("workload: model", model))
    return _counted(model, args, dict(kwargs), False, batch_dimension(model), None, None, 0, {})


def _counted(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    measured: bool,
    batch_dim: int,
    batch_size: int | None,
    forward: Callable[..., Any] | None,
    seed: int,
    extra: Mapping[str, float],
) -> Workload:
    tensors = list(tensors_in((args, kwargs)))
    samples = _samples(tensors, batch_dim)
    recorder, idle = Recorder(model), IdleLayers(model, "workload")
    seen = [(module, module.last_input) for module in model.modules() if isinstance(module, Converted)]
    output, count = None, samples
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    try:
        with (
            running("workload", model, tensors),
            torch.inference_mode(False),
            eval_mode(model, steps=forward is not None),
            statistics_of_one_sample(),
            torch.random.fork_rng(devices=devices),
        ):
            torch.manual_seed(seed)
            own_args, own_kwargs = copied_tensors((args, kwargs))  # a network may write into its inputs
            for count, part_args, part_kwargs in _parts(own_args, own_kwargs, samples, batch_dim, batch_size):
                whole_args, whole_kwargs = unshared((part_args, part_kwargs))
                if forward is not None:
                    put_to_rest(model)
                with recorder.watching(count):
                    output = (forward or type(model).__call__)(model, *whole_args, **whole_kwargs)
    finally:
        for module, last_input in seen:
            module.last_input = last_input
    idle.warn()
    rows = recorder.tallies.rows(measured=measured)
    figures = {"parameters": float(sum(row.weight_count for row in rows) + recorder.origins.unclaimed())}
    caches = [row for row in rows if row.op == "kv_cache"]
    if caches:
        figures["kv_cache_elements"] = sum(row.state_elements for row in caches)
        figures["kv_cache_bytes"] = sum(row.state_elements * row.activation_bits / 8 for row in caches)
    last = sum(t.numel() for t in tensors_in(output)) / count
    return Workload(
        layers=tuple(rows),
        samples=samples if measured else 0,
        not_counted=recorder.not_counted(),
        input_elements=sum(t.numel() for t in tensors) / samples,
        output_elements=float(last),
        kind="spiking" if any(row.op == "neuron" for row in rows) else "static",
        extra=figures | dict(extra),
        mapping=_mapping(model),
    )


def _mapping(model: nn.Module) -> LayerMapping | None:
    """Where the matrices lie on crossbars: that of the converted network, or of the first one inside."""
    for name, module in model.named_modules():
        if isinstance(module, Converted) and module.mapping is not None:
            return module.mapping.below(f"{name}.network" if name else "network")
    return None


def _check_sizes(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if torch.nn.parameter.is_lazy(parameter):
            raise HpmlError(
                f"workload: layer {name.rpartition('.')[0]!r} has no sizes yet (lazy); run the model once, then count"
            )


def _check(
    model: nn.Module,
    *,
    input_shape: Sequence[int] | None,
    data: Inputs | None,
    dtype: torch.dtype | None,
    forward: Callable[..., Any] | None,
) -> None:
    """Refuse what cannot be an argument, before anything runs."""
    check_network("workload: model", model)
    if (input_shape is None) == (data is None):
        raise HpmlError(
            "workload: give one of input_shape= (one sample, without the batch) or data= (a batch of samples)"
        )
    if input_shape is not None and (isinstance(input_shape, str) or not isinstance(input_shape, Sequence)):
        raise HpmlError(
            f"workload: input_shape={shown(input_shape)}: must be the sizes of one sample, such as (1, 28, 28) or (64,)"
        )
    if data is not None and (isinstance(data, str) or not isinstance(data, (Tensor, Sequence, Mapping))):
        raise HpmlError(
            f"workload: data={shown(data)}: must be a batch of samples: a tensor, a sequence of arguments or a mapping "
            "of keyword arguments; of a data set, stack some inputs: torch.stack([samples[i][0] for i in range(100)]) "
            "with samples = hs.load_data('digits').test"
        )
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise HpmlError(f"workload: dtype={shown(dtype)}: must be a data type of torch, such as torch.float32")
    if forward is not None and not callable(forward):
        raise HpmlError(f"workload: forward={shown(forward)}: must be a function, called as forward(model, ...)")


def _figures(extra: object) -> dict[str, float]:
    """The figures that a caller adds."""
    if extra is None:
        return {}
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise HpmlError(f"workload: extra={shown(extra)}: must be figures by name, such as {{'frames': 30.0}}")
    return {name: check_real(f"workload: extra[{name!r}]", value) for name, value in extra.items()}


def _sample(model: nn.Module, shape: Sequence[int], dtype: torch.dtype | None, batch_dim: int) -> Tensor:
    first = next((p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()), torch.empty(0))
    sizes = list(shape)
    if any(
        not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes
    ) or not 0 <= batch_dim <= len(sizes):
        raise HpmlError(
            f"workload: input_shape={shown(tuple(shape))}: must be the sizes of one sample, each a whole number >= 1, "
            "without the batch"
        )
    sizes.insert(batch_dim, 1)
    return torch.zeros(sizes, dtype=dtype or first.dtype, device=first.device)


def _arguments(data: Inputs | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(data, Mapping):
        return (), dict(data)
    return (data,) if isinstance(data, Tensor) or data is None else tuple(data), {}


def _samples(tensors: list[Tensor], batch_dim: int) -> int:
    if not tensors or tensors[0].dim() <= batch_dim or tensors[0].shape[batch_dim] < 1:
        shape = tuple(tensors[0].shape) if tensors else "no tensor"
        raise HpmlError(
            f"workload: data has no samples in dimension {batch_dim} (batch_dim=): {shape}; give a batch of tensors"
        )
    return tensors[0].shape[batch_dim]


def _parts(
    args: tuple[Any, ...], kwargs: dict[str, Any], samples: int, batch_dim: int, batch_size: int | None
) -> Iterator[tuple[int, tuple[Any, ...], dict[str, Any]]]:
    """The arguments in parts of at most `batch_size` samples; what does not hold samples goes into each."""
    size = samples if batch_size is None else batch_size
    for start in range(0, samples, size):
        stop = min(start + size, samples)

        def cut(value: Any, start: int = start, stop: int = stop) -> Any:
            if (
                stop - start < samples
                and isinstance(value, Tensor)
                and value.dim() > batch_dim
                and value.shape[batch_dim] == samples
            ):
                return value.narrow(batch_dim, start, stop - start)
            return value

        yield stop - start, tuple(map(cut, args)), {name: cut(value) for name, value in kwargs.items()}
