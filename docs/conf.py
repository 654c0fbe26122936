"""How the documentation is built: Sphinx with MyST, every warning an error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent

project = "exo-stream"
author = "the exo-stream authors"
copyright = author  # noqa: A001  Sphinx's name for it
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib_trio"]
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Everything is built from this checkout: nothing is fetched, so a build without a network is whole.
nitpicky = True
autodoc_typehints = "none"  # the sentence says what a value is; the signature is in the source
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "exo-stream"


def setup(app: Sphinx) -> None:
    """Teach the highlighter that a diagram is text."""
    app.add_lexer("mermaid", TextLexer)
