"Sphinx's settings for the site; `scripts/docs.py` lays its pages beside a copy of this file."
import inspect, re, sys
from pathlib import Path
from docutils.nodes import SkipNode
from fastcore.docments import docments
from latex2mathml.converter import convert

project, author, copyright = 'craft_nb', 'the craft_nb authors', '2026 onwards, the craft_nb authors'
sys.path.insert(0, str(Path(__file__).parent))  # for `pages`, which lies beside this file
extensions = ['pages', 'myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.viewcode']
html_theme, html_title, html_static_path = 'furo', 'craft_nb', ['_static']
html_css_files = ['craft.css']
html_theme_options = {'navigation_with_keys': True}
html_math_renderer = 'mathml'
exclude_patterns = ['notebooks']  # as they are: to download
nb_execution_mode, nb_merge_streams = 'off', True
nb_render_markdown_format = 'myst'  # tables that cells print are tables
myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 3
autodoc_member_order, autodoc_typehints, toc_object_entries_show_parents = 'bysource', 'signature', 'hide'
add_module_names = python_use_unqualified_type_names = False
suppress_warnings = ['mystnb.unknown_mime_type', 'config.cache']

def inline(self, node):
    "A formula within a line, as MathML: browsers draw it without a script"
    self.body.append(convert(node.astext()))
    raise SkipNode

def block(self, node):
    "A formula of its own"
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise SkipNode

def literal(s):
    "Backticks as we write them, `so`, in reStructuredText"
    return re.sub(r'(?<!`)`([^`]+)`(?!`)', r'``\1``\\ ', s).replace('*', r'\*')

def say_docments(app, what, name, o, options, lines):
    "Add each parameter's docment to a docstring, for Sphinx to set as a list"
    if not getattr(o, '__doc__', None): del lines[1:]  # inherited: its first line will do
    lines[:] = [literal(l) for l in lines]
    if what not in ('function', 'method', 'class'): return
    try: said, pars = docments(o, full=True), inspect.signature(o).parameters
    except (TypeError, ValueError, OSError): return
    said = {k: v.docment for k, v in said.items() if getattr(v, 'docment', None) and (k in pars or k == 'return')}
    if not said: return
    one = lambda s: literal(' '.join(s.split()))
    params = [f':param {k}: {one(v)}' for k, v in said.items() if k != 'return']
    returns = [f':returns: {one(said[k])}' for k in said if k == 'return']
    lines += ['', *params, *returns, '']

def theirs(app, what, name, o, skip, options):
    "Leave out what another library put into our classes"
    if not getattr(o, '__module__', 'craft_nb').startswith('craft_nb'): return True

def setup(app):
    app.add_html_math_renderer('mathml', inline_renderers=(inline, None), block_renderers=(block, None))
    app.connect('autodoc-process-docstring', say_docments)
    app.connect('autodoc-skip-member', theirs)
