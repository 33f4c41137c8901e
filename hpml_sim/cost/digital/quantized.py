"""What a CPU or GPU computes a compressed network in: the network says it, and nothing is asked for beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision
    from hpml_sim.counting import Workload

_PRODUCTS = ("conv", "linear", "recurrent")
_FLOATS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
"""What products with rounded weights alone are computed in: the first of these that a card has."""
_INTEGERS: tuple[Precision, ...] = ("int8", "fp8")
TENSOR_CORES = ("tf32", "bf16", "fp16", "fp8", "int8", "fp4")
"""Precisions whose products tensor cores compute; ordinary fp32 arithmetic has no use for zeros."""


def is_quantized(counts: Workload) -> bool:
    """Whether the counts are of a quantized network.

    Args:
        counts: its workload.
    """
    return any(layer.stored_bits is not None for layer in counts.layers)


def arithmetic_of(
    counts: Workload, card: DigitalCard, precision: Precision | None, weights: str | None
) -> tuple[Precision, str]:
    """What a card computes a quantized network in, and a sentence that says so.

    Integers (or fp8) where all products have both factors in it and the card has a peak for it; else bf16, fp16 or
    fp32, with weights that are read in few bits and unpacked.

    Args:
        counts: workload of the network.
        card: the machine.
        precision: what the caller or the target asks for; fp32, the default of targets, asks for nothing.
        weights: what the caller asks for.

    Raises:
        HpmlError: a precision or a format of weights is asked for beside.
    """
    products = [layer for layer in counts.layers if layer.op in _PRODUCTS and layer.macs]
    found = chosen_arithmetic({layer.arithmetic for layer in products}, card, precision, weights)
    if found in _INTEGERS:
        return found, f"products of the quantized network are computed in {found}"
    return found, f"weights of the quantized network are read in few bits and multiplied in {found}"


def chosen_arithmetic(
    wanted: set[str], card: DigitalCard, precision: Precision | None, weights: str | None
) -> Precision:
    """What a card computes the products of a quantized network in.

    Args:
        wanted: "int8", "fp8", or "" for weights alone, of all products.
        card: the machine.
        precision: what is asked for beside; fp32, the default of targets, asks for nothing.
        weights: what is asked for beside.

    Raises:
        HpmlError: a precision or a format of weights is asked for beside.
    """
    usual = "fp32" if "fp32" in card.peak else "int8"  # of an accelerator of integers nobody has to ask for them
    asked = f"precision={precision!r}" if precision not in (None, usual) else ""
    asked = f"weights={weights!r}" if weights is not None else asked
    if asked:
        raise HpmlError(
            f"{asked}: the network is quantized (hs.quantize), which says already what it is stored and multiplied in; "
            "leave it out, or take the network before it was quantized"
        )
    for own in _INTEGERS:
        if wanted == {own} and own in card.peak:
            return own
    return next(own for own in (*_FLOATS, *card.peak) if own in card.peak)


def sparse_speedup(card: DigitalCard, precision: Precision) -> float:
    """Rate of products of 2:4 weights over the dense rate; 1 on a machine that has no use for them.

    Args:
        card: the machine.
        precision: of the products.
    """
    return 1.0 if card.sparse_speedup is None or precision not in TENSOR_CORES else card.sparse_speedup.si
