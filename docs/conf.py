"""Settings of Sphinx. `make docs` builds the pages into build/docs/html, without a network; warnings are errors."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # pages.py, beside this file

project = "hpml_sim"
author = "The hpml_sim authors"
copyright = "the hpml_sim authors, MIT license"  # noqa: A001
version = release = installed_version("hpml_sim")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**.ipynb_checkpoints"]
default_role = "code"
# two modules may each have a Point: a type in a signature then links to the first of them
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]

html_theme = "furo"
html_title = f"hpml_sim {release}"
html_static_path = ["_static"]
html_css_files = ["hpml_sim.css"]
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"  # the browser's own: nothing is loaded from elsewhere

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "notes_style"), ("Sources", "notes_style")]


def mathml(translator: Any, node: Any) -> None:
    """A formula as MathML."""
    from docutils import nodes
    from latex2mathml.converter import convert

    translator.body.append(convert(node.astext(), display="block" if node.tagname == "math_block" else "inline"))
    raise nodes.SkipNode


def plain_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings are plain text with code in backticks: a star or a bar is no markup, `x`s is code with an s."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            pieces = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", line).split("`")
            lines[i] = "`".join(re.sub(r"(?<!\\)([*|])", r"\\\1", p) if k % 2 == 0 else p for k, p in enumerate(pieces))


def setup(app: Any) -> None:
    """Pages that come from code and data are written before Sphinx looks for its sources."""
    from pages import write_pages

    app.add_html_math_renderer("mathml", inline_renderers=(mathml, None), block_renderers=(mathml, None))
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)  # before napoleon reads it
    app.connect("config-inited", lambda app, config: write_pages(Path(app.srcdir)))
