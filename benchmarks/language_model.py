"""A language model on analog hardware: what its noise costs, and what training under it gets back.

    python benchmarks/language_model.py --out build/language_model [--steps 600] [--chips 6] [--stages weights,evaluate]

SmolLM2-135M (30 blocks, all 210 matrices on crossbars, the head digital: it is the embedding's table), inputs and
outputs of 8 bits, on the noise of Analog Foundation Models (card `pcm-afm`) and, over time, on `pcm-hermes`. Training
is distillation from the digital network, one window of 512 tokens a step, products in bfloat16, in turn of text that
it writes itself and of prose of NetworkX's documentation, under the noise that programming gives each weight by its
size. Either adapters of rank 4 (0.91 % of the parameters) learn, by Adam at 2e-3 with a cosine schedule; or all
weights do, the embedding's table among them, by Adam at 3e-5 with a linear schedule and gradients of at most norm 1.
Of the digital network the same training is a fixed point: it is its own teacher, so that its loss and its gradients
are zero; this is checked.

Rows, each the mean, spread and worst of so many unseen chips:

- digital
- converted: the converters alone
- untrained, on chips
- adapters trained under noise, on chips, and without noise
- adapters trained without noise, on chips and without noise
- all weights trained under noise (hardware-aware fine-tuning), on chips and without noise

Columns: 512 tokens of the GNU GPL, four times 512, and 512 tokens of text of the training's kind that it did not see.

It prints as it goes, keeps the adapters every ten steps and the weights every fifty under --out, and goes on from there
when it is started again. One thread unless --threads; a step takes about 7 s of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

import hpml_sim as hs
from hpml_sim.targets.input_ranges import Dynamic

LENGTH, RANK, LR = 512, 4, 2e-3
OWN_WINDOWS = 192
"""Windows that the digital network writes itself for the training."""
WEIGHTS_LR = 3e-5
"""First learning rate where all weights are trained; no other was tried."""
HELD_OUT = 4
"""Windows of the training's text that are not trained on."""
TIMES = ("1 s", "1 h", "1 day", "1 month", "1 year")


@dataclass(frozen=True)
class Texts:
    """Windows of 512 tokens.

    Attributes:
        train: what is trained on: in turn a window that the digital network wrote, and one of the documentation.
        gpl: the first window of the GNU GPL.
        gpl4: its first four.
        docs: of the training's kind, not seen in training.
    """

    train: Any
    gpl: Any
    gpl4: Any
    docs: Any


class RememberingTeacher(nn.Module):
    """The digital network, which runs its blocks on a window once, in bfloat16, and only its head again.

    Args:
        network: a language model.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network: Any = network
        self._kept: dict[bytes, Tensor] = {}

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, tokens, vocabulary).

        Args:
            tokens: (batch, tokens).
        """
        key = tokens.numpy().tobytes()
        if key not in self._kept:
            hook = self.network.head.register_forward_pre_hook(lambda _, given: self._kept.update({key: given[0]}))
            try:
                with torch.autocast("cpu", torch.bfloat16):
                    return self.network(tokens).float()
            finally:
                hook.remove()
        return self.network.head(self._kept[key].float())


class Watched(torch.optim.Adam):
    """Adam that says where it is, and keeps the parameters every ten steps.

    Args:
        parameters: what is trained.
        lr: first learning rate.
        says: called after each step with its number and loss.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, says: Callable[[int, float], None]):
        super().__init__(parameters, lr=lr)
        self._says, self._steps = says, 0

    def step(self, closure: Any = None) -> Any:
        """One step.

        Args:
            closure: computes the loss.
        """
        loss = super().step(closure)
        self._steps += 1
        assert loss is not None  # `fit` gives a closure
        self._says(self._steps, float(loss))
        return loss


def own_text(net: nn.Module, out: Path, seed: int) -> TensorDataset:
    """Windows that the digital network wrote; kept, as they take minutes."""
    path = out / "own_text.pt"
    if not path.exists():
        spent = time.process_time()
        drawn = hs.sample_text(net, OWN_WINDOWS, LENGTH, seed=seed, batch_size=64)
        torch.save(drawn.tensors, path)
        print(f"{OWN_WINDOWS} windows of its own text: {time.process_time() - spent:,.0f} s of CPU", flush=True)
    return TensorDataset(*torch.load(path, weights_only=True))


class InTurn(Dataset[Any]):
    """Items of two data sets, one of each in turn; the shorter one begins again.

    Args:
        first: gives the first item.
        second: gives the next.
    """

    def __init__(self, first: Any, second: Any):
        self._parts = (first, second)

    def __len__(self) -> int:
        return 2 * max(map(len, self._parts))

    def __getitem__(self, number: int) -> Any:
        part = self._parts[number % 2]
        return part[number // 2 % len(part)]


def texts(net: nn.Module, out: Path, seed: int) -> Texts:
    """The windows; those held out are spread over the documentation, and drawn with a seed."""
    data = hs.load_data("text", length=LENGTH)
    train: Any = data.train
    held = set(torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:HELD_OUT].tolist())
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed + 1)).tolist()
    return Texts(
        InTurn(own_text(net, out, seed), Subset(train, [i for i in order if i not in held])),
        Subset(data.test, [0]),
        Subset(data.test, range(4)),
        Subset(train, sorted(held)),
    )


def on(net: nn.Module, card: str, noise: Any) -> hs.Converted:
    """The network on crossbars: each vector scaled by its own largest value, no output noise, no weight clipped.

    Clipped at 2.5 standard deviations of their channels, these weights make a network of perplexity 43,124 before any
    noise; training on a few hundred thousand tokens does not mend that.
    """
    target = hs.Analog(card, input_range=Dynamic(), output_noise=0.0, training_noise=noise, weight_clip=None)
    return hs.convert(net, target, skip="head")


def adapters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if ".adapter." in name}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """All parameters; not the converters' ranges, which follow each vector."""
    return {name: value.detach() for name, value in model.named_parameters()}


def perplexities(model: nn.Module, data: Any) -> list[float]:
    """One for each chip; of a network without chips, one."""
    score = hs.evaluate(model, data, task="language_model", batch_size=1)
    return [float(v) for v in score.values if v is not None]


@dataclass(frozen=True)
class Training:
    """One of the networks that are trained: what of it, under which noise, and where it is kept.

    Attributes:
        title: as the rows have it.
        file: name of the file under --out, without its suffix.
        noise: of the weights in training, as `hs.Analog` takes it.
        all_weights: train these, else adapters beside them.
    """

    title: str
    file: str
    noise: Any
    all_weights: bool = False

    def model(self, net: nn.Module, card: str = "pcm-afm", seed: int = 0) -> hs.Converted:
        """The network on a card as it begins its training."""
        model = on(net, card, self.noise)
        return model if self.all_weights else hs.lora(model, rank=RANK, seed=seed)

    def trained(self, net: nn.Module, card: str, out: Path) -> hs.Converted:
        """The network on a card with what was trained, and ranges that follow each vector."""
        model = self.model(net, card)
        self.load(model, out)
        return model.eval()

    def path(self, out: Path) -> Path:
        return out / f"{self.file}.pt"

    def steps(self, out: Path) -> int:
        """How many steps are there already."""
        return int(torch.load(self.path(out), weights_only=True, mmap=True)["steps"]) if self.path(out).exists() else 0

    def load(self, model: nn.Module, out: Path) -> None:
        kept = torch.load(self.path(out), weights_only=True, mmap=True)["weights" if self.all_weights else "adapters"]
        unknown = model.load_state_dict(kept, strict=False).unexpected_keys
        if unknown:
            raise SystemExit(f"{self.path(out)}: not of this network: {', '.join(unknown[:3])}")

    def save(self, model: nn.Module, steps: int, out: Path) -> None:
        kept = {"weights": weights(model)} if self.all_weights else {"adapters": adapters(model)}
        part = self.path(out).with_suffix(".part")  # a run that is stopped while it writes loses nothing
        torch.save({**kept, "steps": steps, "tokens": steps * LENGTH}, part)
        part.replace(self.path(out))


TRAININGS = {
    "train": Training("adapters under noise", "noise", "programming"),
    "quiet": Training("adapters without noise", "no_noise", 0.0),
    "weights": Training("all weights under noise", "weights", "programming", all_weights=True),
}


def train(net: nn.Module, what: Training, steps: int, data: Texts, out: Path, seed: int) -> None:
    """Distillation from the digital network; steps that are there already are taken."""
    done = what.steps(out)
    if done:
        print(f"{what.file}: {done} steps are there", flush=True)
    if done >= steps:
        return
    model = what.model(net, seed=seed)
    if done:
        what.load(model, out)
    start, spent, losses = time.perf_counter(), time.process_time(), []

    def says(step: int, loss: float) -> None:
        losses.append(loss)
        if step % (50 if what.all_weights else 10) == 0 or done + step == steps:
            what.save(model, done + step, out)
        if step % 10 == 0 or done + step == steps:
            recent = sum(losses[-10:]) / len(losses[-10:])
            print(
                f"{what.file}: step {done + step} of {steps}, KL {recent:.4f}, {time.perf_counter() - start:,.0f} s, "
                f"{time.process_time() - spent:,.0f} s of CPU",
                flush=True,
            )

    # one epoch of as many windows as there are steps
    parts = [data.train[i % len(data.train)] for i in range(done, steps)]
    whole = TensorDataset(torch.stack([x for x, _ in parts]), torch.stack([y for _, y in parts]))
    rate: dict[str, Any] = {"lr": LR}
    if what.all_weights:  # a straight line goes on where it was, whenever it was stopped
        rate = {"lr": WEIGHTS_LR * (1 - done / steps), "schedule": "linear", "max_grad_norm": 1.0}
    hs.fit(
        model,
        data=whole,
        task="language_model",
        epochs=1,
        batch_size=1,
        optimizer=lambda parameters, lr: Watched(parameters, lr, says),
        teacher=RememberingTeacher(net),
        temperature=1.0,
        alpha=1.0,
        autocast="bfloat16",
        seed=seed + done,
        show_progress=False,
        **rate,
    )


def row(found: dict[str, Any], name: str, model: nn.Module, data: Texts, out: Path) -> None:
    """Measure a row, print it, and keep it."""
    if name in found:
        return
    found[name] = {key: perplexities(model, part) for key, part in asdict_texts(data).items()}
    (out / "rows.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    show(name, found[name])


def asdict_texts(data: Texts) -> dict[str, Any]:
    return {"gpl": data.gpl, "gpl4": data.gpl4, "docs": data.docs}


def show(name: str, columns: dict[str, list[float]]) -> None:
    cells = []
    for key, values in columns.items():
        mean = sum(values) / len(values)
        cells.append(f"{key} {mean:.2f}" + (f" (worst {max(values):.2f})" if len(values) > 1 else ""))
    print(f"{name:<42}{', '.join(cells)}", flush=True)


def evaluate(net: nn.Module, chips: int, seed: int, data: Texts, out: Path) -> None:
    """All rows on the noise of Analog Foundation Models."""
    file = out / "rows.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name, columns in found.items():
        show(name, columns)
    row(found, "digital", net, data, out)
    plain = on(net, "pcm-afm", 0.0).eval()
    row(found, "converted, no noise", plain, data, out)
    row(found, "untrained, chips", hs.program(plain, chips, seed).at("1 s"), data, out)
    for what in TRAININGS.values():
        if steps := what.steps(out):
            model = what.trained(net, "pcm-afm", out)
            row(found, f"{what.title} ({steps} steps), chips", hs.program(model, chips, seed).at("1 s"), data, out)
            row(found, f"{what.title} ({steps} steps), no noise", model, data, out)


def over_time(net: nn.Module, chips: int, seed: int, data: Texts, out: Path) -> None:
    """Perplexity of the first window over time on `pcm-hermes`, untrained and trained."""
    file = out / "times.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for what in (None, *TRAININGS.values()):
        name = "untrained" if what is None else what.title
        if name in found or (what is not None and not what.steps(out)):
            continue
        model = on(net, "pcm-hermes", 0.0).eval() if what is None else what.trained(net, "pcm-hermes", out)
        programmed = hs.program(model, chips, seed)
        found[name] = {when: perplexities(programmed.at(when), data.gpl) for when in TIMES}
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")
        means = ", ".join(f"{when} {sum(v) / len(v):.1f}" for when, v in found[name].items())
        print(f"pcm-hermes, {name}: {means}", flush=True)


def fixed_point(net: nn.Module, data: Texts) -> float:
    """The largest gradient of the digital network that is taught by itself: the training has nothing to move."""
    ideal = hs.Analog("pcm-afm", dac_bits="ideal", adc_bits="ideal", output_noise=0.0, training_noise=0.0)
    adapted = hs.lora(hs.convert(net, ideal, skip="head"), rank=RANK)
    x = data.train[0][0][None, :64]
    with torch.no_grad():
        taught = net(x)
    task = hs.tasks.language_model()
    task.distillation(adapted.train()(x), taught, 1.0, None).backward()
    return max(float(p.grad.abs().max()) for p in adapted.parameters() if p.grad is not None)


def plot(out: Path, path: Path) -> None:
    """Perplexity over time, a line for each network, a band from the best chip to the worst."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from hpml_sim.report.plots.theme import COLORS
    from hpml_sim.units.times import parse_time

    found = json.loads((out / "times.json").read_text(encoding="utf-8"))
    digital = json.loads((out / "rows.json").read_text(encoding="utf-8"))["digital"]["gpl"][0]
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    axes.axhline(digital, color="0.4", linestyle=":", label=f"digital, {digital:.1f}")
    for color, (name, lines) in zip(COLORS, found.items(), strict=False):
        times = [parse_time(when) for when in lines]
        means = [sum(v) / len(v) for v in lines.values()]
        axes.plot(times, means, marker="o", color=color, label=f"{name}, {means[0]:.1f} to {means[-1]:,.0f}")
        axes.fill_between(
            times, [min(v) for v in lines.values()], [max(v) for v in lines.values()], color=color, alpha=0.2
        )
    axes.set(xscale="log", yscale="log", xlabel="time since programming", ylabel="perplexity of 512 tokens")
    axes.set_xticks([parse_time(when) for when in TIMES], TIMES)
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/language_model"))
    parser.add_argument("--steps", type=int, default=600, help="of 512 tokens, of the adapters under noise")
    parser.add_argument("--quiet-steps", type=int, default=100, help="of the adapters without noise")
    parser.add_argument("--weights-steps", type=int, default=300, help="of all weights under noise; 8 GB of memory")
    parser.add_argument("--chips", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stages", default="check,train,evaluate,times,quiet,weights,evaluate,times")
    parser.add_argument("--plot", type=Path, help="draw the curve over time here")
    given = parser.parse_args()
    names = [name for name in given.stages.split(",") if name]
    if unknown := set(names) - {"check", "evaluate", "times", *TRAININGS}:
        parser.error(f"--stages: unknown: {', '.join(sorted(unknown))}")
    if given.plot is not None and not names:  # of what is there
        plot(given.out, given.plot)
        return
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    net = hs.load_network("smollm2-135m").eval()
    data = texts(net, given.out, given.seed)
    steps = {"train": given.steps, "quiet": given.quiet_steps, "weights": given.weights_steps}
    stages: dict[str, Callable[[], Any]] = {
        "check": lambda: print(f"digital network taught by itself: largest gradient {fixed_point(net, data):.1e}"),
        **{
            stage: partial(train, net, what, steps[stage], data, given.out, given.seed)
            for stage, what in TRAININGS.items()
        },
        # chips of other seeds than any noise of the training
        "evaluate": lambda: evaluate(net, given.chips, given.seed + 1000, data, given.out),
        "times": lambda: over_time(net, min(3, given.chips), given.seed + 2000, data, given.out),
    }
    for stage in names:
        stages[stage]()
    if given.plot is not None:
        plot(given.out, given.plot)


if __name__ == "__main__":
    main()
