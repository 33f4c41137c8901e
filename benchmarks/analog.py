"""Analog training and chips against digital passes, aihwkit and aihwkit-lightning, in one process; equivalence first.

    python benchmarks/analog.py [--networks mlp cnn transformer smollm2-135m] [--threads 2] [--batch N] [--repeats 9]
                                [--chips 25] [--only training|chips] [--profile]

mlp: 784-256-128-10; cnn: the residual network `hs.models.resnet`; transformer: four encoder blocks of width 256 over 28
tokens, all three on Fashion-MNIST (on noise where it is not installed: no figure depends on the images).
smollm2-135m: 128 tokens of text. Card `pcm`, 8-bit DAC and ADC, output noise 0.04, weight noise 5 %, and gradients
clipped to a norm of 1.

Training: forward, cross-entropy, backward, clipping, SGD of one batch; ratio to the same step of the digital network.
Chips: programming, and evaluating all chips at 6 times; ratio to chips x 6 passes of the digital network over the same
inputs in the same batches. aihwkit evaluates chip after chip: a few are timed. Programming and `at` do not depend on
the number of images, so their share is given for 10,000.
Memory: what programmed chips hold, over the size of the weights times chips: what `program` keeps, and what each model
of a time (`at`) takes beside it.

Ratios are medians over interleaved repeats, with their smallest and largest value. On a busy machine two threads mostly
wait for each other: read those of `--threads 1`, which are of processor time. Exit status 1: the tiles did not compute
the same.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import hpml_sim as hs
from hpml_sim.analog import to_aihwkit
from hpml_sim.analog.layers import crossbars
from hpml_sim.networks.small_networks import Transformer

TIMES = ("1 s", "1 h", "1 day", "7 days", "30 days", "1 year")
TARGET = {"dac_bits": 8, "adc_bits": 8, "output_noise": 0.04, "training_noise": 0.05}
Step = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Case:
    """A network, what it is given, and batches of one size.

    Attributes:
        net: the digital network.
        x: inputs.
        y: labels.
        batch: samples in one step.
        peers: whether aihwkit and aihwkit-lightning are tried on it.
    """

    net: nn.Module
    x: Tensor
    y: Tensor
    batch: int
    peers: bool = True

    def batches(self, most: int = 10) -> list[tuple[Tensor, Tensor]]:
        """The first of them."""
        return list(zip(self.x.split(self.batch), self.y.split(self.batch), strict=True))[:most]


class Logits(nn.Module):
    """A language model whose logits lie one after another, as cross-entropy takes them."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).flatten(0, 1)


def case(name: str, batch: int | None) -> Case:
    """The network of this name with its data."""
    if name == "smollm2-135m":
        model: Any = hs.load_network(name)
        text = (hs.load_data("text").train[0][0] % 256).flatten()  # bytes; which ids they are does not matter here
        ids = text[: 4 * 129].view(4, 129)
        one = batch or 1
        return Case(Logits(model), ids[:, :-1], ids[:, 1:].reshape(4, 128), one, peers=False)
    try:
        x, y = hs.load_data("fashion-mnist").train[:1000]  # pyright: ignore[reportIndexIssue]
    except hs.HpmlError as error:
        print(f"images of noise: {error}")
        x, y = torch.rand((1000, 1, 28, 28), generator=torch.Generator().manual_seed(0)), torch.arange(1000) % 10
    if name == "mlp":
        return Case(hs.models.mlp(784, 256, 128, 10), x, y, batch or 100)
    if name == "cnn":
        return Case(hs.models.resnet((1, 28, 28), 10), x, y, batch or 50)
    net = Transformer((1, 28, 28), 10, width=256, depth=4)
    return Case(net, x, y, batch or 50)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.2f} ({min(values):.2f}..{max(values):.2f})"


def clock() -> float:
    """Seconds: of one thread those of the processor, which other jobs disturb little, of several those of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start


# ------------------------------------------------------------------------------------------------------------ training


def trainer(model: nn.Module, optimizer: Any) -> Step:
    model.train()

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
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


def aihwkit_step(net: nn.Module, kind: str) -> Step:
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.optim import AnalogSGD
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
    model = convert_to_analog(copy.deepcopy(net), config)
    optimizer = AnalogSGD(model.parameters(), lr=0.01)
    optimizer.regroup_param_groups()
    return trainer(model, optimizer)


def lightning_step(net: nn.Module) -> Step:
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.optim import AnalogOptimizer
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig, WeightClipType, WeightModifierType

    config: Any = TorchInferenceRPUConfig()
    config.mapping.max_input_size = 256
    config.modifier.type, config.modifier.std_dev = WeightModifierType.ADD_NORMAL, 0.05
    config.clip.type, config.clip.sigma = WeightClipType.LAYER_GAUSSIAN, 2.5
    io = config.forward
    io.inp_res = io.out_res = 1 / (2**8 - 2)
    io.out_bound, io.out_noise = 10.0, 0.04
    config.pre_post.input_range.enable = True
    config.pre_post.input_range.init_from_data = 1
    model: Any = convert_to_analog(copy.deepcopy(net), config)
    return trainer(model, AnalogOptimizer(torch.optim.SGD, model.analog_layers, model.parameters(), lr=0.01))


def training(case: Case, repeats: int) -> None:
    steps: dict[str, Step] = {}
    digital = copy.deepcopy(case.net)
    steps["digital"] = trainer(digital, torch.optim.SGD(digital.parameters(), lr=0.01))
    ours = hs.convert(case.net, hs.Analog("pcm", **TARGET))  # pyright: ignore[reportArgumentType]
    hs.calibrate(ours, case.x[:500])
    steps["hpml_sim"] = trainer(ours, torch.optim.SGD(ours.parameters(), lr=0.01))
    if case.peers:
        plain = plain_torch(case.net)
        steps["plain torch code, linear layers"] = trainer(plain, torch.optim.SGD(plain.parameters(), lr=0.01))
        steps["aihwkit torch tile"] = aihwkit_step(case.net, "TorchInferenceRPUConfig")
        steps["aihwkit compiled tile"] = aihwkit_step(case.net, "InferenceRPUConfig")
        steps["aihwkit-lightning"] = lightning_step(case.net)

    batches = case.batches()
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        losses[name] = [float(step(*one)) for one in batches]
        for _ in range(50 // len(batches) if name == "hpml_sim" else 0):  # past the first, which calibrate more often
            for one in batches:
                step(*one)
    print("\nTraining step, ratio to the digital one")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            found = [seconds(lambda s=step: [s(*one) for one in batches]) / len(batches) for _ in range(2)]
            times[name].append(min(found))
    for name, found in times.items():
        ratios = [a / b for a, b in zip(found, times["digital"], strict=True)]
        print(
            f"  {name:<32} {1e3 * statistics.median(found):8.2f} ms   {spread(ratios):<22} "
            f"mean loss of the first {len(batches)} batches {statistics.mean(losses[name]):.3f}"
        )


# --------------------------------------------------------------------------------------------------------------- chips


def all_passes(model: nn.Module, parts: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for part in parts:
            model(part)


def equivalence(case: Case) -> bool:
    """Genuine aihwkit layers with the same settings, without noise, against ours: equal up to codes of the ADC."""
    quiet = hs.convert(case.net, hs.Analog("pcm", dac_bits=8, adc_bits=8, output_noise=0.0))
    hs.calibrate(quiet, case.x[:500])
    quiet.eval()
    x = case.x[:100]
    with torch.no_grad():
        got, digital = quiet(x), case.net.eval()(x)
        want = to_aihwkit(quiet)(x) if case.peers else digital
    error = float((want - got).abs().mean() / got.std())
    noise = float((got - digital).abs().mean() / digital.std())
    print(
        f"equivalence: mean difference to aihwkit's tiles {error:.4f} of the spread; converters alone cost {noise:.4f}"
        if case.peers
        else f"equivalence: mean difference to the digital network {noise:.4f} of the spread"
    )
    return error < (0.05 if case.peers else 0.3)


def chips(case: Case, count: int, repeats: int) -> None:
    net = case.net.eval()
    model = hs.convert(net, hs.Analog("pcm", **TARGET))  # pyright: ignore[reportArgumentType]
    hs.calibrate(model, case.x[:500])
    parts = [x for x, _ in case.batches()]
    few = 2
    theirs = None
    if case.peers:
        genuine = hs.convert(net, hs.Analog("pcm", engine="aihwkit", **TARGET))  # pyright: ignore[reportArgumentType]
        genuine.load_state_dict(model.state_dict())
        theirs = hs.program(genuine, chips=few, seed=0)
    found: dict[str, list[float]] = {"fixed": [], "passes": [], "aihwkit": []}
    base, times = [], TIMES if case.peers else TIMES[:2]
    for _ in range(repeats):
        base.append(min(seconds(lambda: [all_passes(net, parts) for _ in range(count)]) for _ in range(2)))
        start = clock()
        programmed = hs.program(model, chips=count, seed=0)
        aged = [programmed.at(when) for when in times]
        found["fixed"].append(clock() - start)
        found["passes"].append(min(seconds(lambda m=m: all_passes(m, parts)) for m in aged[:2]))
        if theirs is not None:
            found["aihwkit"].append(seconds(lambda: all_passes(theirs.at("1 h"), parts)) * count / few)
    scale = sum(map(len, parts)) / 10_000  # fixed cost, as a share of 10,000 samples
    ours = [(p + scale * f / len(times)) / b for p, f, b in zip(found["passes"], found["fixed"], base, strict=True)]
    print(
        f"\n{count} chips x {len(times)} times on 10,000 samples, ratio to as many digital passes (batch {case.batch})"
    )
    print(f"  hpml_sim, all            {spread(ours)}")
    print(f"    evaluating alone       {spread([p / b for p, b in zip(found['passes'], base, strict=True)])}")
    print(f"    programming and `at`   {statistics.median(found['fixed']):.2f} s in all, whatever the samples")
    if theirs is not None:
        print(f"  aihwkit torch tile       {spread([a / b for a, b in zip(found['aihwkit'], base, strict=True)])}")
    memory(net, hs.program(model, chips=count, seed=0), count)


def memory(net: nn.Module, programmed: Any, count: int) -> None:
    weights = sum(p.numel() * p.element_size() for p in net.parameters()) * count
    fused: Any = programmed.backend
    tensors = list(fused.network.state_dict().values())
    for layer in fused.layers.values():
        tensors += [layer.full_scale, layer.baseline]
    kept = sum(t.numel() * t.element_size() for t in tensors)
    instances = [c.programmed for c in crossbars(programmed.at("1 h")).values()]
    run = sum(t.numel() * t.element_size() for i in instances if i is not None for t in (i.weight, i.scale))
    print(
        f"memory, in sizes of the weights x chips: programmed {kept / weights:.2f}, and each time {run / weights:.2f}"
    )


def profile(case: Case, count: int) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    model = hs.convert(case.net, hs.Analog("pcm", **TARGET))  # pyright: ignore[reportArgumentType]
    hs.calibrate(model, case.x[:500])
    step = trainer(model, torch.optim.SGD(model.parameters(), lr=0.01))
    batches = case.batches()
    for _ in range(60 // len(batches)):
        for one in batches:
            step(*one)
    with profiler(activities=[ProfilerActivity.CPU]) as recorded:
        for one in batches:
            step(*one)
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=40))
    aged = hs.program(model.eval(), chips=count, seed=0).at("1 day")
    all_passes(aged, [batches[0][0]])
    with profiler(activities=[ProfilerActivity.CPU]) as recorded:
        all_passes(aged, [x for x, _ in batches[:5]])
    print(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ("mlp", "cnn", "transformer", "smollm2-135m")
    parser.add_argument("--networks", nargs="+", choices=known, default=known[:3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--chips", type=int, help="25, or 1 of smollm2-135m")
    parser.add_argument("--only", choices=("training", "chips"), help="one of the two comparisons")
    parser.add_argument("--profile", action="store_true", help="also print where our time goes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.networks:
        torch.manual_seed(0)
        one = case(name, arguments.batch)
        print(f"\n== {name}, {sum(p.numel() for p in one.net.parameters()):,} parameters, batches of {one.batch}")
        if not equivalence(one):
            print("the tiles do not compute the same; no time is worth anything")
            return 1
        count = arguments.chips or (25 if one.peers else 1)
        if arguments.only != "chips":
            training(one, arguments.repeats)
        if arguments.only != "training":
            chips(one, count, arguments.repeats)
        if arguments.profile:
            profile(one, count)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
