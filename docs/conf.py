"""How Sphinx builds the site: ``python -m sphinx -n -W --keep-going -b html docs OUT``, with ``nodedb_ring`` built."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference  # noqa: F401 - stands in for an alias of NumPy's that nodedb_ring then takes

import nodedb_ring

project = "nodedb_ring"
project_copyright = "the nodedb_ring authors, Apache-2.0"
version = release = nodedb_ring.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "reference"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["width.css"]
html_title = f"nodedb_ring {release}"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_class_signature = "mixed"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "special-members": "__arrow_c_schema__, __arrow_c_array__, __arrow_c_stream__",
}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
# A single backquote is a parameter's name.
default_role = "code"

# What is not ours has no page here, and the build asks nobody's inventory for one.
nitpick_ignore_regex = [(r"py:.*", r"(?!nodedb_ring\b)\w+\..+")]
