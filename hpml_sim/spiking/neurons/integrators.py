"""Membranes that never fire."""

from __future__ import annotations

from torch import Tensor, nn

from hpml_sim.errors import check_switch
from hpml_sim.spiking.neurons.parameters import decay_of
from hpml_sim.spiking.option_names import option_names_checked
from hpml_sim.spiking.time_folding import TimeFolded


class LeakyIntegrators(TimeFolded):
    """Membranes that never fire: potentials m[t] = beta m[t-1] + x[t].

    A readout for networks whose output is a value; the LI (beta < 1) and I (beta = 1) of NIR.

    Args:
        beta: decay in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.
        learn_beta: make beta a parameter.

    Raises:
        HpmlError: a parameter of the wrong type or out of its range.

    Example:
        >>> import torch, hpml_sim as hs
        >>> readout = hs.spiking.LeakyIntegrators(0.5, steps=3)
        >>> readout(torch.ones(3, 1)).flatten().tolist()  # (steps x batch, neurons)
        [1.0, 1.5, 1.75]
    """

    beta: Tensor

    @option_names_checked
    def __init__(self, beta: float | Tensor = 0.95, *, steps: int = 1, chips: int = 1, learn_beta: bool = False):
        super().__init__(steps, chips)
        decay = decay_of("LeakyIntegrators", "beta", beta).detach().clone()
        if check_switch("LeakyIntegrators: learn_beta", learn_beta):
            self.beta = nn.Parameter(decay)
        else:
            self.register_buffer("beta", decay)

    def forward(self, x: Tensor) -> Tensor:
        """Membrane potentials of x's shape and type.

        Args:
            x: currents (chips x steps x batch, ...).
        """
        from hpml_sim.kernels.lif import leaky

        currents = self.unfold(x)
        start = None if self.layer_state is None else self.layer_state.initial(currents[:, 0])
        _, membrane = leaky(
            currents, self.beta, 1.0, reset="none", start=None if start is None else start[0], time_dim=1
        )
        if self.layer_state is not None:
            self.layer_state.store((membrane[:, -1],))
        return membrane.reshape(x.shape)
