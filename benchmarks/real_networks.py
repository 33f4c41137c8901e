"""Real networks on PCM crossbars: what they lose over a year, and what training for the hardware mends.

    python benchmarks/real_networks.py [minilm g2p resnet] [--chips 6] [--json FILE]

Three networks, all layers with weights on card `pcm-hermes`:

- MiniLM-L6: Spearman's correlation of its similarities with people's, WordSim-353 (L. Finkelstein et al., ACM Trans.
  Inf. Syst. 20:116, 2002; PyPI's gensim carries the file). Mended by learning what the digital network says of 1,200
  pairs of pieces of NetworkX's documentation
- g2p: phoneme error rate of the 600 test words. Mended by learning what the digital network says of 20,000 others
- a residual CNN on Fashion-MNIST, trained in digital first on 10,000 images. Mended on the same images

Rows of each: digital; the digital network after the same training; converted (the converters alone, ranges calibrated);
programmed as it is; trained for the hardware. Programmed rows are the mean, spread and worst of so many unseen chips at
each time. One thread; about 15 minutes of processor time in all.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

import hpml_sim as hs
from hpml_sim.data.text import TRAINING, read_text
from hpml_sim.networks.packages import Package, fetch, files_of, is_here

CARD, TIMES = "pcm-hermes", ("1 s", "1 h", "1 day", "1 month", "1 year")
WORDSIM = Package(
    "gensim",
    "4.4.0",
    {"gensim/test/test_data/wordsim353.tsv": "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d"},
    size_mb=28.0,
)


class Similarity(nn.Module):
    """Pairs of texts, token ids (batch, 2, tokens) -> the cosine of their vectors, (batch,).

    Args:
        encoder: makes vectors of length 1 of texts.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, pairs: Tensor) -> Tensor:
        """How alike the texts of each pair are.

        Args:
            pairs: token ids, int64 (batch, 2, tokens).
        """
        a, b = self.encoder(pairs.flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        return (a * b).sum(1)


@dataclass(frozen=True)
class Study:
    """A network and how it is measured and trained.

    Attributes:
        network: digital, ready for use.
        test: samples that nothing is trained on.
        task: a task, or its name; None: inferred.
        calibration: inputs that the converters' ranges are chosen with.
        train: trains a model in place: the digital network and the converted one get the same.
        training_noise: on the weights in training, a share of the largest.
    """

    network: nn.Module
    test: Any
    task: Any
    calibration: Tensor
    train: Callable[[nn.Module], Any]
    training_noise: float = 0.1


def minilm() -> Study:
    """MiniLM-L6 and people's judgements of pairs of words."""
    if not is_here(WORDSIM):
        fetch(WORDSIM, what="WordSim-353")
    (path,) = files_of(WORDSIM, what="WordSim-353", get="pip install gensim==4.4.0").values()
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    network: Any = hs.load_network("minilm-l6").eval()
    ids = network.token_ids([word for line in lines for word in line[:2]])
    test = TensorDataset(ids.unflatten(0, (-1, 2)), torch.tensor([float(line[2]) / 10 for line in lines]))
    words = read_text(TRAINING).split()
    texts = network.token_ids([" ".join(words[8 * i : 8 * (i + 1)]) for i in range(600)])[:, :24]
    pairs = torch.stack([texts[:-1], texts[1:]], 1)
    pairs = torch.cat([pairs, torch.stack([texts, texts[torch.randperm(len(texts))]], 1)])
    whole = Similarity(network).eval()
    with torch.no_grad():
        alike = torch.cat([whole(part) for part in pairs.split(50)])

    def train(model: nn.Module) -> None:
        hs.fit(model, data=TensorDataset(pairs, alike), task="similarity", epochs=2, lr=5e-5, batch_size=32, seed=0,
               show_progress=False)  # fmt: skip

    return Study(whole, test, "similarity", pairs[:100], train)


class Forced(Dataset[Any]):
    """Words with their phonemes as a second input, from which each next one is predicted.

    A network that goes on from its own phonemes says other words once one is wrong, and learns nothing from a teacher.

    Args:
        words: items (letters, phonemes).
    """

    def __init__(self, words: Any):
        self._words = words

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, index: int) -> Any:
        letters, phonemes = self._words[index]
        return (letters, phonemes.clamp(min=0)), phonemes


def g2p() -> Study:
    """Letters of words to phonemes."""
    data = hs.load_data("word-phonemes")
    seen, network = Forced(Subset(data.train, range(20_000))), hs.load_network("g2p").eval()
    calibration = torch.stack([data.train[i][0] for i in range(300)])

    def train(model: nn.Module) -> None:
        hs.fit(model, data=seen, task="phonemes", epochs=3, lr=3e-4, batch_size=64, teacher=network, temperature=1.0,
               alpha=1.0, seed=0, show_progress=False)  # fmt: skip

    return Study(network, data.test, "phonemes", calibration, train, training_noise=0.05)


def resnet() -> Study:
    """A residual CNN on images of clothes."""
    data = hs.load_data("fashion-mnist")
    seen, test = Subset(data.train, range(10_000)), Subset(data.test, range(2_000))
    network = hs.models.build("resnet", (1, 28, 28), 10, width=8)
    hs.fit(network, data=seen, epochs=4, lr=2e-3, seed=0, show_progress=False)
    calibration = torch.stack([data.train[i][0] for i in range(300)])

    def train(model: nn.Module) -> None:
        hs.fit(model, data=seen, epochs=2, lr=5e-4, seed=1, show_progress=False)

    return Study(network.eval(), test, "classification", calibration, train)


STUDIES: dict[str, Callable[[], Study]] = {"minilm": minilm, "g2p": g2p, "resnet": resnet}


def run(study: Study, chips: int, seed: int) -> dict[str, Any]:
    """All rows of a study, each a list of scores: one for each chip."""
    rows: dict[str, Any] = {}

    def note(name: str, model: nn.Module) -> None:
        score = hs.evaluate(model, data=study.test, task=study.task)
        rows[name] = [float(v) for v in score.values if v is not None]
        print(f"  {name:<42}{score}", flush=True)

    def over_time(name: str, model: nn.Module) -> None:
        programmed = hs.program(model.eval(), chips, seed)
        for when in TIMES:
            note(f"{name}, {when}", programmed.at(when))

    note("digital", study.network)
    longer = copy.deepcopy(study.network)
    study.train(longer)
    note("digital, trained likewise", longer.eval())
    converted = hs.convert(study.network, CARD).eval()
    hs.calibrate(converted, study.calibration)
    note("converted", converted)
    over_time("programmed as it is", converted)
    trained = hs.convert(study.network, hs.Analog(CARD, training_noise=study.training_noise))
    hs.calibrate(trained, study.calibration)
    study.train(trained)
    note("trained for the hardware", trained.eval())
    over_time("trained for the hardware", trained)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(STUDIES), metavar="NETWORK", help=", ".join(STUDIES))
    parser.add_argument("--chips", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="keep all scores here; what is there already is kept beside them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks:
        start = time.process_time()
        print(name, flush=True)
        rows = run(STUDIES[name](), given.chips, given.seed)
        print(f"  {time.process_time() - start:,.0f} s of processor time", flush=True)
        if given.json is not None:
            kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else {}
            given.json.write_text(json.dumps({**kept, name: rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
