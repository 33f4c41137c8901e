"""How time is folded into the batch: what neurons, encoders, pools, batch norms and dropout over time share."""

from __future__ import annotations

from torch import Tensor

from hpml_sim.conversion.chips_in_batch import ChipsInBatch
from hpml_sim.errors import HpmlError, check_whole, shown
from hpml_sim.spiking.layer_state import LayerState
from hpml_sim.spiking.option_names import option_names_checked


class TimeFolded(ChipsInBatch):
    """A module that knows how time is folded into its batch: (chips x steps x batch, ...).

    Chips are outermost and samples innermost. A layer without memory sees all steps as one large batch, so that it runs
    once instead of once a step; only what has a memory, or must treat steps alike, unfolds them.

    Args:
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Attributes:
        steps: time steps.
        chips: simulated chips that lie side by side in the batch.
        layer_state: set for the length of a call whose states come from an earlier call or are asked for; None
            otherwise, and then the module starts at rest.

    Raises:
        HpmlError: steps or chips are no whole numbers >= 1.

    Example:
        >>> import torch, hpml_sim as hs
        >>> folded = hs.spiking.TimeFolded(steps=10)
        >>> folded.unfold(torch.zeros(10 * 4, 7)).shape  # (chips, steps, batch, values)
        torch.Size([1, 10, 4, 7])
    """

    layer_state: LayerState | None = None

    @option_names_checked
    def __init__(self, steps: int = 1, chips: int = 1):
        super().__init__()
        who = type(self).__name__
        self.steps = check_whole(f"{who}: steps", steps, low=1)
        self.chips = check_whole(f"{who}: chips", chips, low=1)

    def check_input(self, x: object) -> Tensor:
        """The input, which must be a tensor with a dimension for the batch.

        Args:
            x: what the module was called with.

        Raises:
            HpmlError: no tensor, one without dimensions, or a batch that does not divide into the chips.
        """
        who = type(self).__name__
        if not isinstance(x, Tensor):
            raise HpmlError(f"{who}: input={shown(x)}: must be a tensor (batch, ...), such as torch.rand(4, 64)")
        if x.dim() < 1 or x.shape[0] % self.chips:
            raise HpmlError(
                f"{who}: input of shape {tuple(x.shape)}; expected (batch, ...), the batch a multiple of the "
                f"{self.chips} chip(s) in it"
            )
        return x

    def unfold(self, x: Tensor) -> Tensor:
        """The same values with a dimension for chips and one for steps.

        Args:
            x: (chips x steps x batch, ...).

        Returns:
            (chips, steps, batch, ...).

        Raises:
            HpmlError: the first dimension does not hold so many steps.
        """
        if self.check_input(x).shape[0] % (self.chips * self.steps):
            raise HpmlError(
                f"{type(self).__name__}: input of shape {tuple(x.shape)} does not hold {self.steps} steps of "
                f"{self.chips} chip(s) in its first dimension; a layer before it must have changed the batch"
            )
        return x.reshape(self.chips, self.steps, x.shape[0] // (self.chips * self.steps), *x.shape[1:])
