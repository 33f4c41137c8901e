"""What is done to the trained network of a run before it is made ready for its machines: pruned, quantized, or neither.

Training after conversion keeps zeros and numbers. What was trained stays in the files of a run as it is, so that a
resumed run prunes and quantizes it again, with the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from torch import nn

from hpml_sim.compress import prune, quantize
from hpml_sim.compress.pruning import Pattern
from hpml_sim.conversion.compression import Numbers
from hpml_sim.data import Data
from hpml_sim.errors import HpmlError, check_choice, check_real, shown

_PATTERNS = tuple(name for name in get_args(Pattern) if name not in ("tiles", "present"))
"""Those that say by themselves what goes; whose tiles are meant, a run with several crossbars does not say."""


@dataclass(frozen=True)
class Compressing:
    """How a trained network is compressed.

    Attributes:
        pattern: what is pruned; None: nothing.
        share: how much of it; None: half.
        numbers: what it is quantized to; None: it is not.
        weight_bits: of integers of another width than the format's.
        input_bits: of inputs of the layers, of another width than the format's.
    """

    pattern: Any = None
    share: float | None = None
    numbers: Numbers | None = None
    weight_bits: int | None = None
    input_bits: int | None = None

    def __bool__(self) -> bool:
        return self.pattern is not None or self.numbers is not None

    def __str__(self) -> str:
        pruned = "" if self.pattern is None else f"pruned to {self.pattern}"
        pruned += "" if self.share is None else f" of {self.share:g}"
        bits = "" if self.input_bits is None else f" (weights of {self.weight_bits}, inputs of {self.input_bits} bits)"
        return ", ".join(part for part in (pruned, f"{self.numbers}{bits}" if self.numbers else "") if part)

    def of(self, network: nn.Module, data: Data | None) -> nn.Module:
        """The compressed network; the one that was given where there is nothing to do.

        Args:
            network: trained; not changed.
            data: some of its training samples say what matters; None: magnitudes alone do.

        Raises:
            HpmlError: a pattern or a format that the network does not allow.
        """
        if not self:
            return network
        if self.pattern is not None:
            network = prune(network, self.pattern, self.share, data=data)
        if self.numbers is not None:
            few = None if self.numbers in ("int8", "fp8") else data  # 8 bits lose nothing that data could mend
            network = quantize(
                network, self.numbers, data=few, weight_bits=self.weight_bits, input_bits=self.input_bits
            )
        return network


AS_IT_IS = Compressing()
"""Nothing is done to the network."""


def compressing(pruned: str | None, numbers: str | None) -> Compressing:
    """What the settings `prune` and `quantize` of a run ask for.

    Args:
        pruned: a pattern, with a share where it is not a half: "2:4", "channels=0.3"; None: none.
        numbers: a scheme of `hs.quantize`; None: none.

    Raises:
        HpmlError: a pattern, a share or a scheme that there is not.
    """
    pattern, share = None, None
    if pruned is not None:
        name, equals, number = pruned.partition("=")
        pattern = name.strip()
        if pattern == "tiles":
            raise HpmlError(
                "prune='tiles': a run does not say whose tiles are meant; take rows or columns, or give the network "
                "itself: hs.prune(network, 'tiles', card=...)"
            )
        check_choice("prune", pattern, _PATTERNS)
        if equals:
            try:
                share = float(number)
            except ValueError:
                raise HpmlError(f"prune={shown(pruned)}: must be a pattern and a share, such as channels=0.3") from None
            check_real(f"prune={shown(pruned)}: share", share, above=0, below=1, hint="try 0.5")
            if pattern == "2:4" and share != 0.5:
                raise HpmlError(f"prune={shown(pruned)}: '2:4' has a share of its own, 0.5; leave it out")
    if numbers is not None:
        check_choice("quantize", numbers, get_args(Numbers))
    return Compressing(pattern, share, numbers)  # type: ignore[arg-type]
