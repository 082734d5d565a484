"""Sphinx extension of the documentation: formulas, links to parameters, order of the gallery."""

import warnings
from pathlib import Path

import torch
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes

READING_ORDER = [
    "plot_first_fit.py",
    "plot_unequal_lengths.py",
    "plot_from_aeon.py",
    "plot_what_cls_reads.py",
    "plot_value_of_cls.py",
    "plot_mechanism.py",
    "plot_embeddings.py",
    "plot_grid_search.py",
    "plot_cluster_search.py",
]

LINKED = ("Parameters", "Attributes")


def reading_order(path):
    """Return the position of an example in the gallery."""
    name = Path(path).name
    if name not in READING_ORDER:
        raise ValueError(f"{name} is not in READING_ORDER of docs/_sphinx.py; add it there.")
    return READING_ORDER.index(name)


def strictly(gallery_conf, name, when):
    """Run each example with one torch thread and with warnings as errors."""
    torch.set_num_threads(1)
    if when == "before":
        strictly.filters = warnings.filters[:]
        warnings.simplefilter("error")
    else:
        warnings.filters[:] = strictly.filters


def link_parameters(app, doctree):
    """Make each parameter and attribute a target of `:attr:`, with a permalink."""
    python = app.env.domains["py"]
    for desc in doctree.findall(addnodes.desc):
        signature, content = desc.children[0], desc.children[-1]
        fields = (
            field for child in content if isinstance(child, nodes.field_list) for field in child
        )
        for field in fields:
            if not signature.get("ids") or field[0].astext() not in LINKED:
                continue
            for item in field.findall(nodes.definition_list_item):
                name = f"{signature['ids'][0]}.{item[0].astext()}"
                item[0]["ids"].append(name)
                python.note_object(name, "attribute", name, location=item[0])
                link = f'<a class="headerlink" href="#{name}" title="Link to this definition">#</a>'
                # The link comes last because scikit-learn's links expect the type after the name.
                item[-2].append(nodes.raw("", link, format="html"))


def visit_math(translator, node):
    """Write a formula as MathML, which browsers display without scripts."""
    formula = tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block))
    if isinstance(node, nodes.math_block):
        formula = f'<div class="formula">{formula}</div>'
    translator.body.append(formula)
    raise nodes.SkipNode


def setup(app):
    """Register the extension."""
    app.connect("doctree-read", link_parameters)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
