"""Drop-in layers on crossbars: write them in a network where `nn.Linear` and `nn.Conv2d` stood.

Example:
    >>> import torch, hpml_sim as hs
    >>> first = hs.nn.AnalogLinear(784, 256, card="pcm-hermes")
    >>> net = torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Linear(256, 10))
    >>> net(torch.rand(5, 784)).shape
    torch.Size([5, 10])
"""

from hpml_sim.analog.convolution import AnalogConv1d, AnalogConv2d, AnalogConv3d
from hpml_sim.analog.linear import AnalogLinear
from hpml_sim.analog.recurrent import AnalogGRU, AnalogLSTM, AnalogRNN
from hpml_sim.analog.transposed_convolution import (
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
)

__all__ = [
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogConvTranspose1d",
    "AnalogConvTranspose2d",
    "AnalogConvTranspose3d",
    "AnalogGRU",
    "AnalogLSTM",
    "AnalogLinear",
    "AnalogRNN",
]


def __dir__() -> list[str]:
    """The public names, and nothing that was imported on the way to them."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])
