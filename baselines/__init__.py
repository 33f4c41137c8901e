"""The digital implementations that students read: PyTorch on CPU and GPU, and hand-written numba-CUDA kernels.

Import it as `hpml_sim.baselines`; the folder lies at the top of the repository so that it is easy to find.
"""

# Without this guard `import baselines` from a clone would make a second copy of every class in here.
if __name__ != "hpml_sim.baselines":
    raise ImportError("import hpml_sim.baselines, not baselines: this folder is part of hpml_sim")

from hpml_sim.baselines.cuda_launch import cuda_backend as cuda_backend
from hpml_sim.baselines.digital import CompiledNetwork as CompiledNetwork
from hpml_sim.baselines.digital import DigitalNetwork as DigitalNetwork

__all__ = ["CompiledNetwork", "DigitalNetwork", "cuda_backend"]


def __dir__() -> list[str]:
    """The public names, and nothing that was imported on the way to them."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))])
