"""How the documentation is built: see CONTRIBUTING.md."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ctxrnn"
author = "The ctxrnn developers"
copyright = "The ctxrnn developers, Apache-2.0"
version = release = installed("ctxrnn")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "command_line",
    "docstrings",
    "formulas",
    "public_names",
]
exclude_patterns = ["_build", "examples"]
nitpicky = True
# Types that signatures name and that no page of this site documents.
nitpick_ignore_regex = [("py:.*", r"^(?!ctxrnn\.).*"), ("py:.*", r"ctxrnn\.(\w+\.)*(_\w+.*|Tasks)")]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# A page of the checkout that is no page of this site is shown where the code is.
myst_url_schemes = ("http", "https", "mailto")

nb_execution_mode = "force"
# On a quiet laptop each takes under two minutes; a busy machine may need longer.
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
# What runs write stays out of the sources.
nb_execution_in_temp = True
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "image/svg+xml", 5)]

python_maximum_signature_line_length = 76
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "ctxrnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
}
html_sidebars = {"index": [], "gallery": []}
html_math_renderer = "mathml"
