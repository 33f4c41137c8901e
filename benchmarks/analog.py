"""Analog training and chips against digital passes and aihwkit's tiles, in one process; equivalence comes first.

    python benchmarks/analog.py [--threads 2] [--batch 100] [--repeats 9] [--images 1000] [--chips 25]
                                [--only training|chips] [--profile]

784-256-128-10 on Fashion-MNIST (on noise where it is not installed: no figure depends on the images), card `pcm`, 8-bit
DAC and ADC, output noise 0.04, weight noise 5 %.

Training: forward, cross-entropy, backward and SGD of one batch; ratio to the same step of the digital network.
Chips: programming, and evaluating all chips at 6 times; ratio to chips x 6 passes of the digital network over the same
images in the same batches. aihwkit evaluates chip after chip: a few are timed. Programming and `at` do not depend on
the number of images, so their share is given for 10,000.
Memory: what programmed chips hold, over the size of the weights times chips: what `program` keeps, and what each model
of a time (`at`) takes beside it.

Ratios are medians over interleaved repeats, with their smallest and largest value. On a busy machine two threads mostly
wait for each other: read those of `--threads 1`. Exit status 1: the tiles did not compute the same.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

import hpml_sim as hs
from hpml_sim.analog import to_aihwkit

TIMES = ("1 s", "1 h", "1 day", "7 days", "30 days", "1 year")
TARGET = {"dac_bits": 8, "adc_bits": 8, "output_noise": 0.04, "training_noise": 0.05}
Step = Callable[[Tensor, Tensor], Tensor]


def images(count: int) -> tuple[Tensor, Tensor]:
    try:
        x, y = hs.load_data("fashion-mnist").train[:count]  # pyright: ignore[reportIndexIssue]
    except hs.HpmlError as error:
        print(f"images of noise: {error}")
        generator = torch.Generator().manual_seed(0)
        x, y = torch.rand((count, 1, 28, 28), generator=generator), torch.arange(count) % 10
    return x, y


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.2f} ({min(values):.2f}..{max(values):.2f})"


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------------------------ training


def trainer(model: nn.Module, optimizer: Any) -> Step:
    model.train()

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def plain_torch(net: nn.Module) -> nn.Module:
    """What one writes by hand: weight noise, clipping, converters and output noise out of torch's operators."""

    class Plain(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            full = input.detach().abs().amax().clamp(min=1e-9)
            codes = input + (torch.round((input / full).clamp(-1, 1) * 127) / 127 * full - input).detach()
            limit = 2.5 * float(self.weight.detach().std())
            weight = self.weight.clamp(-limit, limit)
            top = weight.detach().abs().amax(1, keepdim=True)
            y = codes @ (weight + 0.05 * top * torch.randn_like(weight)).T
            y = y + 0.04 * top.T * full * torch.randn_like(y)
            lsb = top.T * full * 10 / 127
            return y + ((y / lsb).round().clamp(-127, 127) * lsb - y).detach() + self.bias

    net = copy.deepcopy(net)
    for module in net.modules():
        if type(module) is nn.Linear:
            module.__class__ = Plain
    return net


def aihwkit_model(net: nn.Module, kind: str) -> nn.Module:
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator import configs
    from aihwkit.simulator.configs import WeightClipType, WeightModifierType
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    config = getattr(configs, kind)()
    config.mapping.weight_scaling_omega, config.mapping.weight_scaling_columnwise = 1.0, True
    config.mapping.max_input_size = config.mapping.max_output_size = 256
    config.modifier.type, config.modifier.std_dev = WeightModifierType.ADD_NORMAL, 0.05
    config.clip.type, config.clip.sigma = WeightClipType.LAYER_GAUSSIAN, 2.5
    io = config.forward
    io.inp_res = io.out_res = 1 / (2**8 - 2)
    io.out_bound, io.out_noise = 10.0, 0.04
    io.noise_management, io.bound_management = NoiseManagementType.ABS_MAX, BoundManagementType.NONE
    return convert_to_analog(copy.deepcopy(net), config)


def training(net: nn.Module, x: Tensor, y: Tensor, batch: int, repeats: int) -> None:
    from aihwkit.optim import AnalogSGD

    steps: dict[str, Step] = {}
    digital = copy.deepcopy(net)
    steps["digital"] = trainer(digital, torch.optim.SGD(digital.parameters(), lr=0.01))
    ours = hs.convert(net, hs.Analog("pcm", **TARGET))  # pyright: ignore[reportArgumentType]
    hs.calibrate(ours, x[:500])
    steps["hpml_sim"] = trainer(ours, torch.optim.SGD(ours.parameters(), lr=0.01))
    plain = plain_torch(net)
    steps["plain torch code"] = trainer(plain, torch.optim.SGD(plain.parameters(), lr=0.01))
    for kind in ("TorchInferenceRPUConfig", "InferenceRPUConfig"):
        model = aihwkit_model(net, kind)
        optimizer = AnalogSGD(model.parameters(), lr=0.01)
        optimizer.regroup_param_groups()
        steps[f"aihwkit {'torch' if 'Torch' in kind else 'compiled'} tile"] = trainer(model, optimizer)

    batches = list(zip(x.split(batch), y.split(batch), strict=True))
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        losses[name] = [float(step(*one)) for one in batches[:10]]
        for _ in range(5 if name == "hpml_sim" else 0):  # past the first batches, which calibrate more often
            for one in batches[:10]:
                step(*one)
    print("\nTraining step, ratio to the digital one")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            found = [seconds(lambda s=step: [s(*one) for one in batches[:10]]) / 10 for _ in range(3)]
            times[name].append(min(found))
    for name, found in times.items():
        ratios = [a / b for a, b in zip(found, times["digital"], strict=True)]
        print(
            f"  {name:<24} {1e3 * statistics.median(found):8.2f} ms   {spread(ratios):<22} "
            f"mean loss of the first 10 batches {statistics.mean(losses[name]):.3f}"
        )


# --------------------------------------------------------------------------------------------------------------- chips


def all_passes(model: nn.Module, parts: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for part in parts:
            model(part)


def equivalence(net: nn.Module, x: Tensor) -> bool:
    """Genuine aihwkit layers with the same settings, without noise, against ours: equal up to codes of the ADC."""
    quiet = hs.convert(net, hs.Analog("pcm", dac_bits=8, adc_bits=8, output_noise=0.0))
    hs.calibrate(quiet, x[:500])
    quiet.eval()
    with torch.no_grad():
        want, got, digital = to_aihwkit(quiet)(x[:500]), quiet(x[:500]), net(x[:500])
    error = float((want - got).abs().mean() / got.std())
    noise = float((got - digital).abs().mean() / digital.std())
    print(
        f"equivalence: mean difference to aihwkit's tiles {error:.4f} of the spread; converters alone cost {noise:.4f}"
    )
    return error < 0.05


def chips(net: nn.Module, x: Tensor, batch: int, count: int, repeats: int) -> None:
    model = hs.convert(net, hs.Analog("pcm", **TARGET))  # pyright: ignore[reportArgumentType]
    hs.calibrate(model, x[:500])
    genuine = hs.convert(net, hs.Analog("pcm", engine="aihwkit", **TARGET))  # pyright: ignore[reportArgumentType]
    genuine.load_state_dict(model.state_dict())
    parts = x.split(batch)
    few = 2
    theirs = hs.program(genuine, chips=few, seed=0)
    found: dict[str, list[float]] = {"fixed": [], "passes": [], "aihwkit": []}
    base = []
    for _ in range(repeats):
        base.append(min(seconds(lambda: [all_passes(net, parts) for _ in range(count)]) for _ in range(2)))
        start = time.perf_counter()
        programmed = hs.program(model, chips=count, seed=0)
        aged = [programmed.at(when) for when in TIMES]
        found["fixed"].append(time.perf_counter() - start)
        found["passes"].append(min(seconds(lambda m=m: all_passes(m, parts)) for m in aged[:2]))
        found["aihwkit"].append(seconds(lambda: all_passes(theirs.at("1 h"), parts)) * count / few)
    scale = len(x) / 10_000  # fixed cost, as a share of 10,000 images
    ours = [(p + scale * f / len(TIMES)) / b for p, f, b in zip(found["passes"], found["fixed"], base, strict=True)]
    print(f"\n{count} chips x {len(TIMES)} times on 10,000 images, ratio to as many digital passes (batch {batch})")
    print(f"  hpml_sim, all            {spread(ours)}")
    print(f"    evaluating alone       {spread([p / b for p, b in zip(found['passes'], base, strict=True)])}")
    print(f"    programming and `at`   {statistics.median(found['fixed']):.2f} s in all, whatever the images")
    print(f"  aihwkit torch tile       {spread([a / b for a, b in zip(found['aihwkit'], base, strict=True)])}")

    weights = sum(p.numel() * p.element_size() for p in net.parameters()) * count
    programmed = hs.program(model, chips=count, seed=0)
    fused: Any = programmed.backend
    tensors = list(fused.network.state_dict().values())
    for layer in fused.layers.values():
        tensors += [layer.full_scale, layer.baseline]
    kept = sum(t.numel() * t.element_size() for t in tensors)
    from hpml_sim.analog.layers import crossbars

    instances = [c.programmed for c in crossbars(programmed.at("1 h")).values()]
    run = sum(t.numel() * t.element_size() for i in instances if i is not None for t in (i.weight, i.scale))
    print(
        f"\nMemory, in sizes of the weights x chips: programmed {kept / weights:.2f}, and each time {run / weights:.2f}"
    )


def profile(net: nn.Module, x: Tensor, y: Tensor, batch: int) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    model = hs.convert(net, hs.Analog("pcm", **TARGET))  # pyright: ignore[reportArgumentType]
    hs.calibrate(model, x[:500])
    step = trainer(model, torch.optim.SGD(model.parameters(), lr=0.01))
    step(x[:batch], y[:batch])
    with profiler(activities=[ProfilerActivity.CPU]) as recorded:
        for one in zip(x.split(batch)[:10], y.split(batch)[:10], strict=True):
            step(*one)
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))
    aged = hs.program(model, chips=25, seed=0).at("1 day")
    all_passes(aged, [x[:batch]])
    with profiler(activities=[ProfilerActivity.CPU]) as recorded:
        all_passes(aged, x.split(batch)[:5])
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--only", choices=("training", "chips"), help="one of the two comparisons")
    parser.add_argument("--profile", action="store_true", help="also print where our time goes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    net = hs.models.mlp(784, 256, 128, 10)
    x, y = images(max(500, arguments.images))
    if not equivalence(net, x):
        print("the tiles do not compute the same; no time is worth anything")
        return 1
    if arguments.only != "chips":
        training(net, x, y, arguments.batch, arguments.repeats)
    if arguments.only != "training":
        chips(net.eval(), x, arguments.batch, arguments.chips, arguments.repeats)
    if arguments.profile:
        profile(net, x, y, arguments.batch)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
