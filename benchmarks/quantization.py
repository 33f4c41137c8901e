"""Four bits a weight, in groups of 64: GPTQ and AWQ beside the nearest numbers.

    python benchmarks/quantization.py [minilm g2p smollm2] [--words 600] [--json FILE]

- MiniLM-L6: Spearman's correlation with people's judgements (WordSim-353); calibrated on 100 pairs of pieces of
  NetworkX's documentation
- g2p: phoneme error rate of the test words; calibrated on 128 training words
- SmolLM2-135M: perplexity on 4 texts of 256 tokens; calibrated on 8 others. Its weights come 4-bit, on a grid of their
  own: reading that grid back would prove nothing

Rows: as it is; each method. `lost` is how much worse the score is; `error` the mean squared distance of the outputs
from those of the network as it is, over their variance. The share of a method is what it closes of the nearest
numbers' loss. One thread; about 4 minutes of processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from real_networks import WORDSIM, Similarity, g2p
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

import hpml_sim as hs
from hpml_sim.data.batches import first
from hpml_sim.data.text import TRAINING, read_text
from hpml_sim.networks.packages import fetch, files_of, is_here

METHODS = ("nearest", "gptq", "awq")


class Study(NamedTuple):
    """A network, what it is measured on, and what it is calibrated on."""

    network: nn.Module
    test: Any
    task: str
    calibration: Tensor
    shown: Tensor


def of_minilm(_words: int) -> Study:
    """MiniLM-L6."""
    if not is_here(WORDSIM):
        fetch(WORDSIM, what="WordSim-353")
    (path,) = files_of(WORDSIM, what="WordSim-353", get="pip install gensim==4.4.0").values()
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    network: Any = hs.load_network("minilm-l6").eval()
    ids = network.token_ids([word for line in lines for word in line[:2]]).unflatten(0, (-1, 2))
    test = TensorDataset(ids, torch.tensor([float(line[2]) / 10 for line in lines]))
    words = read_text(TRAINING).split()
    texts = network.token_ids([" ".join(words[8 * i : 8 * (i + 1)]) for i in range(101)])[:, :24]
    return Study(Similarity(network).eval(), test, "similarity", torch.stack([texts[:-1], texts[1:]], 1), ids[:100])


def of_g2p(words: int) -> Study:
    """Letters to phonemes."""
    study = g2p()
    test = Subset(study.test, range(min(words, len(study.test))))
    return Study(study.network, test, "phonemes", study.calibration[:128], first(test, 100)[0])


def of_smollm2(_words: int) -> Study:
    """A language model."""
    network, data = hs.load_network("smollm2-135m").eval(), hs.load_data("text")
    test = first(data.test, 4)
    shown = test[0][:2, :128]
    return Study(
        network, [(test[0][:, :256], test[1][:, :256])], "language_model", first(data.train, 8)[0][:, :256], shown
    )


STUDIES: dict[str, Callable[[int], Study]] = {"minilm": of_minilm, "g2p": of_g2p, "smollm2": of_smollm2}


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    """What the network gives, without gradients."""
    with torch.no_grad():
        return network(x).double()


def run(study: Study) -> dict[str, dict[str, float]]:
    """Score, loss and error of each row."""
    exact = outputs(study.network, study.shown)
    whole = hs.evaluate(study.network, study.test, task=study.task)
    rows: dict[str, dict[str, float]] = {"as it is": {"score": whole.mean, "lost": 0.0, "error": 0.0}}
    print(f"  {'as it is':<10}{whole}", flush=True)
    for method in METHODS:
        data = None if method == "nearest" else study.calibration
        network = hs.quantize(study.network, "int4", method=method, data=data, group=64).eval()
        score = hs.evaluate(network, study.test, task=study.task)
        lost = (whole.mean - score.mean) * (1 if score.higher_is_better else -1)
        error = float((outputs(network, study.shown) - exact).square().mean() / exact.var())
        rows[method] = {"score": score.mean, "lost": lost, "error": error}
        nearest = rows["nearest"]
        closed = ", ".join(f"{1 - rows[method][k] / nearest[k]:.0%} of the nearest's {k}" for k in ("lost", "error") if nearest[k])  # fmt: skip  # noqa: E501
        print(f"  {method:<10}{score}  lost {lost:.4f}, error {error:.5f}; closes {closed}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(STUDIES), metavar="NETWORK", help=", ".join(STUDIES))
    parser.add_argument("--words", type=int, default=600, help="test words of g2p")
    parser.add_argument("--json", type=Path, help="keep all figures here; what is there already is kept beside them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks:
        start = time.process_time()
        print(name, flush=True)
        rows = run(STUDIES[name](given.words))
        print(f"  {time.process_time() - start:,.0f} s of processor time", flush=True)
        if given.json is not None:
            kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else {}
            given.json.write_text(json.dumps({**kept, name: rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
