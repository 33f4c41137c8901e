"""Text that a language model writes itself: what it is distilled on where its own training data are not known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import check_network
from hpml_sim.data.text import windows as cut_windows
from hpml_sim.errors import HpmlError, check_real, check_whole, shown
from hpml_sim.networks.pretrained.language_model import LanguageModel


@torch.no_grad()
def sample_text(
    model: nn.Module,
    windows: int = 64,
    length: int = 512,
    *,
    start: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
) -> TensorDataset:
    """Windows of text drawn from a language model itself, for distillation: `hs.fit(analog, data, teacher=model)`.

    Each window is a text of its own, drawn token by token from softmax(logits / temperature) after a start token. The
    model is left as it was found.

    Args:
        model: token ids (batch, tokens) -> logits (batch, tokens, vocabulary), or an object with them as `.logits`.
            Networks of `hs.load_network` read each token once; others read all tokens again for each new one.
        windows: how many, >= 1.
        length: tokens of a window, >= 1.
        start: id of the token before the first one; None takes the one that ends a text, of the model's tokenizer.
        temperature: of the draws, above 0; 1 draws from the model as it is.
        seed: of the draws, >= 0; the caller's random state is left alone.
        batch_size: texts that are written side by side, >= 1; many take less time each, and more memory. Other numbers
            of them draw other texts.

    Returns:
        Items (input, label), int64 (length,) each: the label of a token is the one that follows it.

    Raises:
        HpmlError: no network, a number out of range, no start token, or no logits (batch, tokens, vocabulary).

    Source: J. Buechel et al., "Analog Foundation Models", arXiv:2505.09663: distilled on the model's own samples, drawn
    at temperature 1 after the token that begins a text.

    Example:
        >>> import hpml_sim as hs
        >>> from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes
        >>> sizes = LlamaSizes(vocabulary=50, width=16, depth=2, heads=4, kv_heads=2, hidden=32, longest=64,
        ...                    rotary_base=1e4, eps=1e-5)
        >>> data = hs.sample_text(LanguageModel(sizes), windows=3, length=8, start=0)
        >>> len(data), data[0][0].shape
        (3, torch.Size([8]))
    """
    check_network("sample_text: model", model)
    windows = check_whole("sample_text: windows", windows, low=1)
    length = check_whole("sample_text: length", length, low=1)
    temperature = check_real("sample_text: temperature", temperature, above=0, hint="1 draws from the model as it is")
    seed = check_whole("sample_text: seed", seed, low=0, high=2**62)
    batch_size = check_whole("sample_text: batch_size", batch_size, low=1)
    first = _start(model, start)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    generator = torch.Generator(device).manual_seed(seed)
    found = []
    with eval_mode(model):
        for begin in range(0, windows, batch_size):
            ids = torch.full((min(batch_size, windows - begin), 1), first, device=device)
            if isinstance(model, LanguageModel):
                own = int(torch.randint(2**62, (), generator=generator, device=device))
                new = model.generate(ids, tokens=length, temperature=temperature, seed=own, stop=())
                found.append(torch.cat([ids, new], 1))
                continue
            for _ in range(length):
                shares = torch.softmax(_logits(model, ids)[:, -1].float() / temperature, -1)
                ids = torch.cat([ids, torch.multinomial(shares, 1, generator=generator)], 1)
            found.append(ids)
    cut = [cut_windows(text, length) for text in torch.cat(found).cpu()]
    return TensorDataset(*(torch.cat([part.tensors[k] for part in cut]) for k in range(2)))


def _start(model: nn.Module, start: int | None) -> int:
    if start is not None:
        return check_whole("sample_text: start", start, low=0)
    ends = tuple(model.tokenizer.ends) if isinstance(model, LanguageModel) and model.tokenizer is not None else ()  # type: ignore[attr-defined]
    if not ends:
        raise HpmlError(
            "sample_text: start=None: the model has no tokenizer that names the token which ends a text; give its id, "
            "such as start=0"
        )
    return int(ends[0])


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    given: Any = model(ids)
    logits = given if isinstance(given, Tensor) else getattr(given, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != ids.shape:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else shown(given)
        raise HpmlError(
            f"sample_text: for token ids {tuple(ids.shape)} the model gave {got}; it must be logits (batch, tokens, "
            "vocabulary)"
        )
    return logits
