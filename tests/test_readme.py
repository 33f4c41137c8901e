"""What people copy first must run: the README's example as it stands. `make notebooks` runs the notebooks."""

import re

import pytest


@pytest.mark.slow
def test_the_readmes_example_runs_as_it_stands(repository, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    machines = [name for name in names["result"].table()["target"].unique() if "integer twin" not in name]
    assert len(machines) == 5
    assert (tmp_path / "runs/mine/report.html").exists()


def test_every_file_that_the_readme_links_to_exists(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert len(links) >= 8
    assert not [link for link in links if not (repository / link).exists()]
