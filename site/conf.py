"""What Sphinx makes of the executed notebooks and the README: see tools.site."""

from docutils import nodes
from latex2mathml.converter import convert

project = html_title = "Deep Learning Applications"
extensions = ["myst_nb"]
nb_execution_mode = "off"  # tools.execute has done that
nb_render_markdown_format = "myst"  # so that answers may hold formulas
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 2
suppress_warnings = ["myst.header"]  # questions are headings of level 3, with no level 2 above
exclude_patterns = ["README.md"]  # index.md includes it
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_math_renderer = "mathml"  # browsers draw it themselves: no script, no network


def _inline(self, node):
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(self, node):
    self.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    """Let Sphinx write formulas as MathML."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
