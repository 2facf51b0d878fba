"""The site: Sphinx, pages in Markdown (MyST), theme furo.  `make docs` builds it."""

from __future__ import annotations

import sys
from pathlib import Path

from n2uq_hw import __version__

sys.path.append(str(Path(__file__).parent))  # for `reference`

project, author, release = "n2uq-hw", "the n2uq-hw authors", __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "reference"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make docs-figures` runs the notebook, and keeps what it prints
html_theme = "furo"
html_title = "n2uq-hw"
html_copy_source = False
exclude_patterns = ["build"]
highlight_language = "none"
default_role = "code"  # in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
