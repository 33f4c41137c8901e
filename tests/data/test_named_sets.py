"""The data sets by name: what they hold, that test and training share nothing, and that nothing else gets in."""

from __future__ import annotations

import hashlib
import shutil
import struct
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import hpml_sim as hs
from hpml_sim.data import entries, recordings, text
from hpml_sim.data.image_files import IMAGE_SETS
from hpml_sim.errors import HpmlError
from hpml_sim.networks.pretrained.entries import load_tokenizer
from hpml_sim.networks.pretrained.pronunciation import PHONEMES

DEBIAN = shutil.which("apt-get") is not None
BY_HAND = {"wikitext-2", "shd", "ssc", "nmnist", "dvs-gesture"}


def test_every_set_says_what_it_is():
    assert set(hs.list_data()) == set(entries.NAMED)
    for name, entry in entries.NAMED.items():
        assert all((entry.what, entry.size, entry.license, entry.source, entry.split)), name


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not DEBIAN, reason="needs a package of Debian's"))
        if entries.NAMED[name].fetch
        else name
        for name in sorted(set(entries.NAMED) - set(IMAGE_SETS) - BY_HAND)
    ],
)
def test_sets_hold_what_they_say_and_the_test_shares_nothing_with_training(name):
    data = hs.load_data(name)
    sizes = [
        int(part.split()[0].replace(",", ""))
        for part in entries.NAMED[name].size.split("+")
        if part.split()[0][0].isdigit()
    ]
    for split, size in zip((data.train, data.test), sizes, strict=False):
        assert len(split) == size
    seen: set[bytes] = set()
    for split in (data.train, data.test):
        x, y = split[:]
        assert tuple(x.shape[1:]) == data.input_shape
        assert len(x) == len(y)
        assert (data.classes is None) == (data.task == "regression")
        assert data.classes is None or int(y.max()) < data.classes
        assert torch.isfinite(x.double()).all()
        rows = {hashlib.sha256(row.numpy().tobytes()).digest() for row in x}
        assert not rows & seen
        seen |= rows


def test_texts_share_no_eight_words_in_a_row():
    grams = []
    for name in (text.TRAINING, text.TEST):
        words = text.read_text(name).split()
        grams.append({tuple(words[i : i + 8]) for i in range(len(words))})
    assert not grams[0] & grams[1]
    assert "icens" not in text.read_text(text.TRAINING)


def test_a_text_that_was_changed_is_refused(monkeypatch):
    monkeypatch.setitem(text.TEXTS, text.TEST, "0" * 64)
    with pytest.raises(HpmlError, match=r"text 'gpl-3': the file of this installation was changed"):
        text.read_text(text.TEST)


def test_windows_follow_each_other_and_labels_are_the_next_tokens():
    x, y = text.windows(torch.arange(11), 3)[:]
    assert x.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert y.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert len(text.windows(torch.arange(11), 3, most=2)) == 2
    with pytest.raises(HpmlError, match=r"3 tokens are fewer than length \+ 1 = 4"):
        text.windows(torch.arange(3), 3)


def test_the_first_window_of_the_test_is_the_beginning_of_the_gpl():
    tokenizer = load_tokenizer("smollm2-135m")
    x, y = hs.load_data("text").test[0]
    said = tokenizer.decode(torch.cat([x[:1], y]))
    assert text.read_text(text.TEST).startswith(said)
    assert len(x) == 512


class Letters:
    def encode(self, given: str) -> list[int]:
        return [ord(letter) % 100 for letter in given]


def test_texts_take_another_tokenizer_and_length():
    data = hs.load_data("text", tokenizer=Letters(), length=10, test_windows=3)
    assert data.input_shape == (10,)
    assert len(data.test) == 3
    assert data.classes == 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hs.load_data("txt"), "unknown data 'txt'. Did you mean 'text'"),
        (
            lambda: hs.load_data("text", lenght=3),
            "'text' has no option 'lenght'; it has: tokenizer, length, test_windows",
        ),
        (lambda: hs.load_data("digits", length=3), "'digits' takes no options, and 'length' was given"),
        (lambda: hs.load_data("text-bytes", length=0), "length=0: must be a whole number >= 1"),
        (lambda: hs.download_data("digits"), "needs no download: hs.load_data('digits')"),
        (lambda: hs.download_data("shd"), "comes by hand: shd_train.h5 and shd_test.h5"),
        (lambda: hs.download_data(3), "unknown data 3"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(HpmlError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mnist-5k", "word-phonemes", "text", "speech", *sorted(BY_HAND)])
def test_what_is_missing_says_how_to_get_it(name, tmp_path, monkeypatch):
    for variable in ("HPML_SIM_PACKAGES", "HPML_SIM_DATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(recordings, "_INSTALLED", tmp_path / "nowhere")
    assert not entries.here(name)
    with pytest.raises(HpmlError) as caught:
        hs.load_data(name)
    said = str(caught.value)
    get = "hpml-sim networks get smollm2-135m" if name == "text" else f"hpml-sim data get {name}"
    assert ("put its authors' files there" if name in BY_HAND else get) in said
    assert "\n" not in said


def test_mnist_1d_is_that_of_its_authors():
    """The first labels and samples are those that mnist1d 0.0.2 made (`make_dataset()`), run once."""
    data = hs.load_data("mnist-1d")
    x = torch.cat([data.train[:][0], data.test[:][0]])
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert data.train[:][1][:8].tolist() == FIRST_LABELS
    np.testing.assert_allclose(data.train[0][0][0, :4].numpy(), FIRST_SAMPLES, rtol=1e-4)


FIRST_LABELS = [2, 6, 4, 5, 6, 6, 6, 0]
FIRST_SAMPLES = [-0.3320057, -0.4719104, -0.7786971, -1.0097408]


@torch.no_grad()
def test_g2p_errs_in_one_phoneme_of_eleven():
    """Edit distance by the textbook recurrence, stress included, first pronunciation.

    On eight samples of 600 words of 4 to 10 letters it is between 8.2 and 9.6 %, by chance.
    """
    network, (letters, labels) = hs.load_network("g2p"), hs.load_data("word-phonemes").test[:]
    errors = spoken = 0
    for said, label in zip(network.phonemes(network(letters)), labels, strict=True):
        right = [PHONEMES[number] for number in label[label >= 4]]
        row = list(range(len(right) + 1))
        for i, a in enumerate(said, 1):
            before, row[0] = row[0], i
            for j, b in enumerate(right, 1):
                before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
        errors += row[-1]
        spoken += len(right)
    assert 100 * errors / spoken == pytest.approx(8.75, abs=0.5)
    score = hs.evaluate(network, "word-phonemes")
    assert (score.metric, score.mean) == ("phoneme error rate", pytest.approx(errors / spoken))


@pytest.mark.skipif(not DEBIAN, reason="needs a package of Debian's")
@torch.no_grad()
def test_silero_hears_every_prompt_and_no_noise():
    sounds, labels = hs.load_data("speech").test[:]
    loudest = torch.sigmoid(hs.load_network("silero-vad")(sounds)).amax(1)
    spoken = labels.amax(1) > 0
    assert (loudest[spoken] > 0.5).all()  # as 40 of 40 prompts that the package's own code was given
    assert (loudest[~spoken] < 0.5).all()


def test_authors_files_of_event_cameras(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_DATA", str(tmp_path))
    for which, count in (("Train", 3), ("Test", 2)):
        for label in range(count):
            folder = tmp_path / "nmnist" / which / str(label)
            folder.mkdir(parents=True)
            (folder / "00001.bin").write_bytes(bytes([label, 5, 0x80, 0, 10, 33, 7, 0, 0x40, 0]))
    data = hs.load_data("nmnist")
    assert (len(data.train), len(data.test), data.input_shape) == (3, 2, (100, 2, 34, 34))
    frames, label = data.train[2]
    assert label == 2
    assert frames.nonzero().tolist() == [[0, 1, 5, 2], [5, 0, 7, 33]]  # 10 us; 16,384 us in steps of 3 ms

    for file in ("shd_train.h5", "shd_test.h5", "ssc_train.h5", "ssc_test.h5"):
        (tmp_path / file[:3]).mkdir(exist_ok=True)
        with h5py.File(tmp_path / file[:3] / file, "w") as held:
            kinds = [h5py.vlen_dtype(np.float32), h5py.vlen_dtype(np.int32)]
            for name, kind, rows in zip(("times", "units"), kinds, ([[0.0, 0.5], [0.1]], [[3, 699], [7]]), strict=True):
                made = held.create_dataset(f"spikes/{name}", (2,), dtype=kind)
                for i, row in enumerate(rows):
                    made[i] = np.array(row)
            held["labels"] = [4, 19]
    data = hs.load_data("shd")
    frames, label = data.test[0]
    assert (frames.shape, label, data.classes) == ((100, 700), 4, 20)
    assert frames.nonzero().tolist() == [[0, 3], [35, 699]]
    data = hs.load_data("ssc")
    assert (data.input_shape, data.classes) == ((100, 700), 35)
    assert data.train[0][0].nonzero().tolist() == [[0, 3], [50, 699]]


def aedat(*packets: tuple[int, int, list[tuple[int, int, int, int, int]]]) -> bytes:
    """An AEDAT 3.1 file: packets of a type, an overflow, and (valid, polarity, y, x, microseconds)."""
    raw = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for kind, overflow, events in packets:
        raw += struct.pack("<hhiiiiii", kind, 1, 8, 4, overflow, len(events), len(events), len(events))
        for valid, polarity, y, x, time in events:
            raw += struct.pack("<II", valid | polarity << 1 | y << 2 | x << 17, time)
    return raw


def test_authors_files_of_dvs_gesture(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_DATA", str(tmp_path))
    folder = tmp_path / "dvs-gesture"
    folder.mkdir()
    events = [(1, 1, 5, 100, 999), (1, 0, 6, 7, 1000), (0, 1, 9, 9, 1500), (1, 1, 127, 3, 1990), (1, 1, 1, 1, 2000)]
    for user in ("user01_led", "user24_led"):
        (folder / f"{user}.aedat").write_bytes(aedat((0, 0, events[:1]), (1, 0, events)))
        (folder / f"{user}_labels.csv").write_text("class,startTime_usec,endTime_usec\n3,1000,2000\n11,2000,3000\n")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n\n")
    data = hs.load_data("dvs-gesture")
    assert (len(data.train), len(data.test), data.input_shape, data.classes) == (2, 2, (100, 2, 128, 128), 11)
    frames, label = data.train[0]
    assert label == 2
    assert frames.nonzero().tolist() == [[0, 0, 6, 7], [99, 1, 127, 3]]
    frames, label = data.test[1]
    assert (label, frames.nonzero().tolist()) == (10, [[0, 1, 1, 1]])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("user01.aedat", b"#!AER-DAT2.0\r\n", "is no AEDAT 3.1 file"),
        ("user01.aedat", aedat((1, 0, [(1, 1, 5, 5, 9)]))[:-3], "ends within a packet"),
        ("user01.aedat", aedat((1, 0, [])) + b"\x01", "ends within the header of a packet"),
        ("user01.aedat", aedat((1, 0, [(1, 1, 500, 5, 9)])), "event 0 has y=500, off the sensor"),
        ("user01_labels.csv", b"class,start\n1,2\n", "must have class, startTime_usec and endTime_usec"),
        ("trials_to_train.txt", b"user02.aedat", "names user02.aedat, and .*user02.aedat is not there"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setenv("HPML_SIM_DATA", str(tmp_path))
    folder = tmp_path / "dvs-gesture"
    folder.mkdir()
    (folder / "user01.aedat").write_bytes(aedat((1, 0, [(1, 1, 5, 5, 9)])))
    (folder / "user01_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,0,20\n")
    for listed in ("trials_to_train.txt", "trials_to_test.txt"):
        (folder / listed).write_text("user01.aedat")
    (folder / name).write_bytes(content)
    with pytest.raises(HpmlError, match=message):
        hs.load_data("dvs-gesture").train[0]


def test_wikitext_of_its_authors(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_DATA", str(tmp_path))
    (tmp_path / "wikitext-2").mkdir()
    for which, words in (("train", "a b c d e f g h"), ("test", "x y z w v u t s")):
        (tmp_path / "wikitext-2" / f"wiki.{which}.tokens").write_text(words)
    data = hs.load_data("wikitext-2", tokenizer=Letters(), length=4)
    assert data.input_shape == (4,)
    assert data.test[0][0].tolist() == [ord(letter) % 100 for letter in "x y "]


def test_recordings_of_another_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_DATA", str(tmp_path))
    (tmp_path / recordings.PACKAGE / "digits").mkdir(parents=True)
    with pytest.raises(HpmlError, match=r"holds other recordings than those of version 1\.6\.1 \(0 of 568"):
        hs.load_data("speech")


def test_recordings_without_debian(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_DATA", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setattr(recordings, "_INSTALLED", tmp_path / "nowhere")
    with pytest.raises(HpmlError, match="needs apt-get and dpkg of Debian or Ubuntu"):
        hs.download_data("speech")


def test_a_named_set_says_which_task_it_is_for():
    assert hs.load_data("text-bytes").task == "language_model"
    assert hs.load_data("word-phonemes").task == "phonemes"
    assert hs.load_data("digits").task is None
