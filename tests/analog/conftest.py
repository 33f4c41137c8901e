import re
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors on many threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def card_file(tmp_path: Path, repository: Path):
    """A card like `pcm`, with other tiles or another noise model; gives its path."""

    def write(*, rows: int = 256, cols: int = 256, model: str | None = None, options: str = "{}") -> str:
        text = (repository / "devices" / "pcm.toml").read_text(encoding="utf-8")
        for name, value in (("rows", rows), ("cols", cols)):
            text = re.sub(rf"(\[array\.{name}\]\nvalue = )\d+", rf"\g<1>{value}", text)
        if model is not None:
            text = re.sub(r'(\[noise\]\nmodel = )"pcm"\noptions = .*', rf'\g<1>"{model}"\noptions = {options}', text)
        path = tmp_path / f"card-{rows}-{cols}-{model}.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
