"""Step 3: hpml_sim itself, what it needs, and what its tests and documentation need, all under the installed torch."""

from __future__ import annotations

from .environment import Environment

EXTRAS = "cluster,course,cuda,data,events,hf,loops,networks,prune,quant,snn,track,tune"
GROUPS = ("dev", "docs", "aihwkit-run")
GROUP_WITHOUT_DEPENDENCIES = "dev-alone"


def install_packages(environment: Environment) -> None:
    """Everything but torch and aihwkit.

    Raises:
        SetupError: pip failed.
    """
    environment.screen.start("packages")
    # the kernels need the CUDA libraries of the same major version as torch
    cuda = environment.ask("import torch; print((torch.version.cuda or '').partition('.')[0])")
    kernels = [f"numba-cuda[cu{cuda}]"] if cuda else []
    groups = [argument for group in GROUPS for argument in ("--group", group)]
    wanted = ["-c", str(environment.constraint), "-e", f".[{EXTRAS}]", *kernels, *groups]
    environment.pip("install", "--progress-bar", "raw", *wanted, log="3-packages")
    environment.pip("install", "--no-deps", "--group", GROUP_WITHOUT_DEPENDENCIES, log="3-packages-alone")
    count = environment.ask("import importlib.metadata as m; print(len({d.name for d in m.distributions()}))")
    environment.screen.done(f"{count} installed")
