"""Does the installed aihwkit work? Its newest wheel imports beside a newer torch, and then every compiled tile fails.

Only the standard library is imported, and this file also runs by itself (`python -P hpml_sim/analog/aihwkit_import.py`,
exit status 0 or 1), so that the set-up script can ask before anything else of the package works.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

MENDING_COMMAND = "make tiles"
"""Run in a clone of the repository: builds aihwkit from source against the torch that is installed."""

_TIMEOUT_S = 180

# Runs in a process of its own, because a wrong build may crash instead of raising. Every stage is reported, so that the
# message can also say what still works. Exact tiles (`is_perfect`) are compared with plain matrix products.
_PROBE = r"""
import json, sys

out = {"version": None, "stages": {}}

def stage(name):
    def run(check):
        try:
            check()
            out["stages"][name] = None
        except BaseException as error:
            text = " ".join(str(error).split()) or "no message"
            out["stages"][name] = f"{type(error).__name__}: {text[:300]}"
        print("PROBE " + json.dumps(out), flush=True)  # after each stage: a crash keeps what came before
        return check
    return run

def need(condition, otherwise):  # not `assert`, which -O removes
    if not condition:
        raise RuntimeError(otherwise)

@stage("import")
def _():
    import aihwkit
    out["version"] = aihwkit.__version__

@stage("noise")
def _():
    import torch
    from aihwkit.inference import PCMLikeNoiseModel
    drifted = PCMLikeNoiseModel().apply_noise(torch.full((4, 3), 0.5), 3600.0)
    need(drifted.shape == (4, 3) and torch.isfinite(drifted).all(), "noise model gave no finite weights")

def check_tile(config, exact):
    import torch
    from aihwkit.nn import AnalogLinear
    from aihwkit.optim import AnalogSGD
    generator = torch.Generator().manual_seed(0)
    if exact:
        config.forward.is_perfect = config.backward.is_perfect = True
    layer = AnalogLinear(4, 3, bias=False, rpu_config=config)
    if exact:
        layer.set_weights(torch.rand(3, 4, generator=generator) - 0.5)
    optimizer = AnalogSGD(layer.parameters(), lr=0.1)
    optimizer.regroup_param_groups()
    before = layer.get_weights()[0].clone()
    x = torch.rand(8, 4, generator=generator).requires_grad_()
    y = layer(x)
    y.sum().backward()
    optimizer.step()
    after = layer.get_weights()[0]
    need(torch.isfinite(y).all() and torch.isfinite(x.grad).all(), "not finite")
    need((after - before).abs().max() > 0, "the update changed no weight")
    if exact:
        need(torch.allclose(y, x @ before.T, atol=1e-4), "forward is wrong")
        need(torch.allclose(x.grad, before.sum(0).expand(8, 4), atol=1e-4), "backward is wrong")
        wanted = before - 0.1 * x.detach().sum(0)
        need(torch.allclose(after, wanted, atol=1e-4), "update is wrong")

@stage("torch tile")
def _():
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    check_tile(TorchInferenceRPUConfig(), exact=False)

@stage("inference tile")
def _():
    from aihwkit.simulator.configs import InferenceRPUConfig
    check_tile(InferenceRPUConfig(), exact=True)
    check_tile(InferenceRPUConfig(), exact=False)

@stage("pulsed tile")
def _():
    from aihwkit.simulator.presets import EcRamPreset
    check_tile(EcRamPreset(), exact=False)
"""

_COMPILED = ("inference tile", "pulsed tile")
_STAGES = ("import", "noise", "torch tile", *_COMPILED)


@dataclass(frozen=True)
class Probe:
    """What of aihwkit works here.

    Attributes:
        ok: the compiled tiles run a forward, a backward and an update, and the exact ones give the right numbers.
        version: of the aihwkit that was imported; None if it does not import.
        detail: one line; if not ok, the first thing that failed and how.
        noise_models: programming noise and drift models work (all that `engine="fused"` needs).
        torch_tile: tiles without compiled code work (`TorchInferenceRPUConfig`).
    """

    ok: bool
    version: str | None
    detail: str
    noise_models: bool = False
    torch_tile: bool = False

    def works(self) -> tuple[str, ...]:
        """What can be used of hpml_sim's analog side, in words."""
        parts = [
            (self.noise_models, 'analog inference with engine="fused"'),
            (self.torch_tile, "aihwkit's torch tiles"),
            (self.ok, 'engine="aihwkit" with compiled tiles'),
            (self.ok, "in-memory training"),
        ]
        return tuple(text for works, text in parts if works)

    def fails(self) -> tuple[str, ...]:
        """What cannot be used, in words."""
        parts = [
            (self.noise_models, "every analog target"),
            (self.ok, 'engine="aihwkit" with compiled tiles'),
            (self.ok, "in-memory training (pulsed devices)"),
        ]
        return tuple(text for works, text in parts if not works)

    def explain(self) -> str:
        """What was found, what fails because of it, and what still works."""
        works = ["digital and spiking targets", *self.works()]
        return f"{self.detail}. Fails: {'; '.join(self.fails())}. Still works: {'; '.join(works)}."


def probe_aihwkit(python: str | None = None, timeout_s: float = _TIMEOUT_S) -> Probe:
    """Try aihwkit in a process of its own (about 3 s).

    Args:
        python: the interpreter to ask; this one if None.
        timeout_s: seconds after which a hanging build counts as broken.
    """
    # -P: a folder of the working directory must not be taken for a package
    command = [python or sys.executable, "-P", "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        output, returncode = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        returncode = None
    return _read(output, returncode, timeout_s)


def _read(output: str, returncode: int | None, timeout_s: float) -> Probe:
    """The probe's last report; a stage without one is where the process died."""
    reports = [line.removeprefix("PROBE ") for line in output.splitlines() if line.startswith("PROBE ")]
    report = json.loads(reports[-1]) if reports else {"version": None, "stages": {}}
    stages: dict[str, str | None] = report["stages"]
    for name in _STAGES:
        if name not in stages:
            crashed = returncode is not None
            stages[name] = f"crashed (status {returncode})" if crashed else f"gave no answer in {timeout_s:.0f} s"
    version = report["version"]
    failed = [name for name in _STAGES if stages[name] is not None]
    if not failed:
        detail = f"aihwkit {version}: forward, backward and update run on an inference and a pulsed tile"
    elif "import" in failed and "ModuleNotFoundError: No module named 'aihwkit'" in str(stages["import"]):
        detail = "aihwkit is not installed"
    else:
        detail = f"aihwkit {version or '(does not import)'}, {failed[0]}: {stages[failed[0]]}"
    return Probe(
        ok=not {"import", *_COMPILED} & set(failed),
        version=version,
        detail=detail,
        noise_models=stages["noise"] is None,
        torch_tile=stages["torch tile"] is None,
    )


@functools.cache
def compiled_tiles_work() -> Probe:
    """`probe_aihwkit()` of this interpreter, asked once a process."""
    return probe_aihwkit()


def require_aihwkit(need: Literal["noise", "compiled"] = "compiled") -> None:
    """Raise unless this part of aihwkit works.

    Args:
        need: "noise" for its noise and drift models (cheap: an import), "compiled" for tiles of any kind that need
            compiled code (the first call takes about 3 s).

    Raises:
        ImportError: it does not; the message says what fails, what still works and the command that mends it.
    """
    if need == "noise":
        try:
            import aihwkit.inference  # noqa: F401
        except ImportError:
            pass
        else:
            return
    probe = compiled_tiles_work()
    if probe.ok or (need == "noise" and probe.noise_models):
        return
    raise ImportError(
        f"{probe.explain()} Mend it in a clone of the repository: `{MENDING_COMMAND}` (`hpml-sim doctor` checks it).",
        name="aihwkit",
    )


def _main(arguments: list[str]) -> int:
    """Print the probe, with `--json` as one JSON object; 0 if the compiled tiles work, else 1."""
    probe = probe_aihwkit()
    text = json.dumps(vars(probe)) if "--json" in arguments else probe.detail
    sys.stdout.write(text + "\n")
    return 0 if probe.ok else 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
