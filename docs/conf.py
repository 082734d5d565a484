"""Sphinx settings; custom Sphinx code is in `docs/_sphinx.py`."""

import sys
from pathlib import Path

import sklearn_cls
from sklearn_cls._version import DOCUMENTATION

sys.path.insert(0, str(Path(__file__).parent))

project = "sklearn_cls"
author = "the sklearn_cls developers"
copyright = f"2026, {author}"
version = release = sklearn_cls.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "numpydoc",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "_sphinx",
]
exclude_patterns = ["_build", "_templates", "examples"]
templates_path = ["_templates"]
default_role = "literal"
# scikit-learn's links contain the parameter types verbatim; smart quotes would break them.
smartquotes = False

# The inventories are local, so that a build needs no network: see docs/_inventories/write.py.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "_inventories/python.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "_inventories/numpy.inv"),
    "sklearn": ("https://scikit-learn.org/stable/", "_inventories/sklearn.inv"),
    "skorch": ("https://skorch.readthedocs.io/en/stable/", "_inventories/skorch.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable/", "_inventories/torch.inv"),
}

html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "header_links_before_dropdown": 4,
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": [], "auto_examples/index": []},
    "show_prev_next": False,
}
html_title = project
html_sidebars = {"*": []}  # No left sidebar on pages that are alone in their section.
html_context = {"default_mode": "auto"}
html_baseurl = DOCUMENTATION
html_math_renderer = "mathml"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["pages.css"]

add_module_names = False
toc_object_entries_show_parents = "hide"
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": "_sphinx.reading_order",
    "minigallery_sort_order": "_sphinx.reading_order",
    "doc_module": "sklearn_cls",
    "backreferences_dir": "generated/backreferences",
    "reset_modules": ("matplotlib", "_sphinx.strictly"),
    "reset_modules_order": "both",
    "image_srcset": ["2x"],
    "thumbnail_size": (800, 480),
    "ignore_repr_types": r"matplotlib|sklearn_cls\._display",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "remove_config_comments": True,
    "write_computation_times": False,
}
