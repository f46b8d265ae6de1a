"What every page of the site has around it: the side bar, a description; and a sitemap of them all."
import html
from functools import cache
from docutils.nodes import paragraph
from sphinx.addnodes import toctree

CAPTION = '<p class="caption" role="heading"><span class="caption-text">{}</span></p>'

@cache
def groups(env):
    "The links of the side bar: [(a caption, [(a title, a page), ...]), ...]"
    def links(tree): return [(title or env.titles[page].astext(), page) for title, page in tree['entries']]
    return [(tree['caption'], links(tree)) for tree in env.get_doctree('index').findall(toctree)]

def item(app, here, # the page that shows it
         title, to, # the page to which it leads
         below=(),  # pages that it holds
         level=1):
    "One link of the side bar, with those of the pages that it holds while one of them is shown"
    href = '#' if to == here else app.builder.get_relative_uri(here, to)
    link = f'<a class="reference internal" href="{href}">{html.escape(title)}</a>'
    if here not in [to, *below]: return f'<li class="toctree-l{level}">{link}</li>'
    nested = [item(app, here, app.env.titles[p].astext(), p, level=level + 1) for p in below]
    if nested: link = ''.join([link, '<ul>', *nested, '</ul>'])
    return f'<li class="toctree-l{level} current">{link}</li>'

def side_bar(app, page, template, context, doctree):
    "Write the side bar: Sphinx's own copies every heading of the site again for each page"
    held = app.env.toctree_includes
    def write(**options):
        out = []
        for caption, links in groups(app.env):
            items = [item(app, page, title, to, held.get(to, ())) for title, to in links]
            out += [CAPTION.format(html.escape(caption)), '<ul>', *items, '</ul>']
        return ''.join(out)
    context['toctree'] = write

def describe(app, page, template, context, doctree):
    "Give a page's first paragraph to search engines"
    first = next(iter(doctree.findall(paragraph)), None) if doctree else None
    if first is None: return
    text = html.escape(' '.join(first.astext().split()))
    context['metatags'] += f'<meta name="description" content="{text}">'

def write_sitemap(app, error):
    "List the pages for search engines, where the site has an address"
    base = app.config.html_baseurl
    if error or not base: return
    places = [html.escape(base + app.builder.get_target_uri(page)) for page in sorted(app.env.found_docs)]
    urls = ''.join(f'<url><loc>{place}</loc></url>' for place in places)
    start = '<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    (app.outdir/'sitemap.xml').write_text(f'{start}{urls}</urlset>', encoding='utf-8')

def setup(app):
    app.connect('html-page-context', side_bar, priority=400)  # before the theme reads it
    app.connect('html-page-context', describe)
    app.connect('build-finished', write_sitemap)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
