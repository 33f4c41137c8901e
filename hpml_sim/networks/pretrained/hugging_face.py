"""Models of `transformers`, by the folder they were saved in or by their name on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from hpml_sim.errors import HpmlError, needs


def names_model(name: str) -> bool:
    """Whether a `name` is that of a Hugging Face model: a folder with a config.json, or owner/model."""
    if "/" not in name and not Path(name).is_dir():
        return False
    return Path(name).is_dir() or (name.count("/") == 1 and not name.startswith((".", "~", "/")))


def hugging_face(name: str, **options: Any) -> nn.Module:
    """A model with its weights, of the class that its configuration names; it carries `.tokenizer` where it has one.

    Args:
        name: a folder that `save_pretrained` wrote, or owner/model on the Hub (then `transformers` downloads it).
        options: passed on to `from_pretrained`.

    Raises:
        HpmlError: `transformers` is missing, the folder holds no model, or the model cannot be had.
    """
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise HpmlError(f"network {name!r}: the folder has no config.json; give one that save_pretrained wrote")
    with needs(f"network {name!r}", "hpml_sim[hf]"):
        import transformers
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        kind = (config.architectures or [None])[0]
        auto = getattr(transformers, kind, None) if kind else transformers.AutoModel
        if auto is None:
            raise HpmlError(f"network {name!r}: this transformers has no class {kind!r}; update it")
        with _quiet(folder.is_dir()):
            model = auto.from_pretrained(name, **options)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, HpmlError):
            raise
        raise HpmlError(f"network {name!r}: {' '.join(str(error).split())[:300]}") from error
    try:
        model.tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError, ImportError):
        model.tokenizer = None  # a model of images, or one saved without it
    return model.eval()


@contextmanager
def _quiet(asked: bool) -> Iterator[None]:
    """Without the bar that `transformers` draws while it reads a file: a download may take long, a folder does not."""
    from transformers.utils import logging

    if not asked or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
