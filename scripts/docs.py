"""Build the site: the notebooks as chapters, an API reference from the docments, a search.

All of it is readable from a folder."""
import ast, html.parser, json, os, re, shutil, subprocess, sys, urllib.parse
from pathlib import Path
from fastcore.script import call_parse
from nbdev.config import get_config

root = Path(__file__).resolve().parent.parent
remote = re.compile(r'^(https?:)?//')

def said(src):
    "The directives of a cell, {'hide': '', 'output': 'false'}"
    return {k: v.strip() for k, v in re.findall(r'^#\|\s*([\w-]+):?[ \t]*(.*)$', src, flags=re.M)}

def hides(d): # directives of a cell
    "The tags by which the site leaves out a cell, or its input"
    tags = []
    if 'hide' in d or 'default_exp' in d or d.get('include') == 'false': tags.append('remove-cell')
    if d.get('echo') == 'false': tags.append('remove-input')
    return tags

def known(nb,   # a notebook, as JSON
          names # {public name: its module}
         ):
    "The names that mean ours in this notebook: its own, what it imports, and all classes (a `read` may be anybody's)"
    imports = re.findall(r'^from craft_nb[\w.]* import (\([^)]*\)|[^\n]*)', text(nb), flags=re.M)
    imported = set(re.findall(r'\w+', ' '.join(imports)))
    own = module(nb)
    return {n: m for n, m in names.items() if m == own or n in imported or re.match(r'[A-Z]+\w*[a-z]', n)}

def chapter(nb, # a notebook, as JSON
            names=None, # {public name: 'module'}, to link `name` to its reference
            before='', # markdown for a line below the title
            after='', # markdown for the end
           ):
    "The notebook as the site shows it: no hidden cells, no directives, names linked to the reference"
    names = known(nb, names or {})
    def ref(m): return f'{{py:obj}}`{m[0][1:-1]} <craft_nb.{names[m[1]]}.{m[1]}>`' if m[1] in names else m[0]
    for c in nb['cells']:
        src = ''.join(c['source'])
        if c['cell_type'] == 'markdown':
            # odd parts are code, formulas and links, which stay as they are
            parts = re.split(r'(^```.*?^```|\$\$.*?\$\$|\[[^\]]*\]\([^)]*\))', src, flags=re.M|re.S)
            src = ''.join(p if j%2 else re.sub(r'(?<![`\w])`(\w+)`(?!`)', ref, p) for j, p in enumerate(parts))
        else:
            d = said(src)
            if d.get('output') == 'false': c['outputs'] = []
            c['metadata'] = {'tags': hides(d)}
            src = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip('\n')
            if not src: c['metadata'] = {'tags': ['remove-cell']}
        c['source'] = src
    nb['cells'].insert(1, {'cell_type': 'markdown', 'id': 'before', 'metadata': {}, 'source': before})
    nb['cells'].append({'cell_type': 'markdown', 'id': 'after', 'metadata': {}, 'source': after})
    return nb

def text(nb):
    "The sources of all cells of a notebook"
    return '\n'.join(''.join(c['source']) for c in nb['cells'])

def title(nb):
    "The first heading of a notebook"
    return re.search(r'^# (.+)$', text(nb), flags=re.M)[1]

def module(nb):
    "The module that a notebook writes, or None"
    m = re.search(r'^#\|\s*default_exp\s+([\w.]+)', text(nb), flags=re.M)
    return m and m[1]

def exported():
    "{module: its public names}, read from the modules without importing them"
    alls = {}
    for p in sorted(root.glob('craft_nb/**/[!_]*.py')):
        m = '.'.join(p.relative_to(root/'craft_nb').with_suffix('').parts)
        alls[m] = re.search(r'^__all__ = (\[.*?\])', p.read_text(encoding='utf-8'), flags=re.M|re.S)
    return {k: ast.literal_eval(m[1]) for k, m in alls.items() if m}

def course_map():
    "The groups of the course as the index shows them, {'The first evening': ['01_blackbox', ...]}"
    cells = json.loads((root/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells']
    shown = [''.join(o.get('data', {}).get('text/markdown', '')) for c in cells for o in c.get('outputs', [])]
    groups = {}
    for row in re.findall(r'^\| (.*?) \|', '\n'.join(shown), flags=re.M):
        group, stem = re.match(r'\*\*(.+)\*\*', row), re.match(r'\[`(\w+)`\]', row)
        if group: groups[group[1]] = []
        elif stem: list(groups.values())[-1].append(stem[1])
    return groups

def links(path,   # of a notebook
          git='', # the address of the repository on GitHub, where it has one
          branch='main',
         ):
    "The line below a chapter's title, in Markdown: where to take the notebook from, and where to edit it"
    rel = path.relative_to(root).as_posix()
    line = [f'{{download}}`Download this notebook </notebooks/{rel[len("nbs/"):]}>`']
    if git: line.append(f'[Edit it]({git}/edit/{branch}/{rel})')
    if git.startswith('https://github.com/'):
        colab = git.replace('github.com', 'colab.research.google.com/github')
        line.append(f'[Open in Colab]({colab}/blob/{branch}/{rel})')
    return ' · '.join(line)

def lay(src, # an empty folder
        cfg, # what `settings.ini` says
       ):
    "Write the pages from which Sphinx builds: chapters, answers, reference"
    mods = exported()
    names = {n: m for m, ns in mods.items() for n in ns}
    names = {n: m for n, m in names.items() if sum(n in ns for ns in mods.values()) == 1}
    for d in 'solutions', 'api', '_static', 'notebooks/solutions': (src/d).mkdir(parents=True)
    for f in root.glob('docs/*'): shutil.copy(f, src/('_static' if f.suffix == '.css' else '.')/f.name)
    course = sorted(p for p in root.glob('nbs/[!_.]*.ipynb') if p.stem != 'index')
    answers = sorted(root.glob('nbs/solutions/[!_.]*.ipynb'))
    made, heads = {}, {}
    for p in [*course, *answers, root/'nbs/index.ipynb']:
        nb = json.loads(p.read_text(encoding='utf-8'))
        rel = p.relative_to(root/'nbs')
        mod = module(nb)
        after = []
        if mod in mods: after.append(f'{{doc}}`Reference of craft_nb.{mod} </api/{mod}>`')
        answered = (root/'nbs/solutions'/p.name) in answers
        if answered and p.parent.name == 'nbs': after.append(f'{{doc}}`Answers </solutions/{p.stem}>`')
        if mod: made[mod] = p
        heads[rel] = title(nb)
        before = links(p, cfg.git_url, cfg.branch)
        if p.stem == 'index': before, after = '', [contents(heads)]
        (src/rel).write_text(json.dumps(chapter(nb, names, before, ' · '.join(after))), encoding='utf-8')
        shutil.copy(p, src/'notebooks'/rel)
    for m in mods:
        (src/f'api/{m}.rst').write_text(reference(f'craft_nb.{m}', made.get(m)), encoding='utf-8')
    (src/'reference.rst').write_text(listing('Reference', [f'api/{m}' for m in mods]), encoding='utf-8')
    (src/'answers.rst').write_text(listing('Answers', [f'solutions/{p.stem}' for p in answers]), encoding='utf-8')

def reference(name, # of a module
              path, # of the notebook that derives it, or None
             ):
    "The page of a module, in reStructuredText"
    chap = f'Derived in :doc:`/{path.stem}`.\n\n' if path else ''
    options = '   :members:\n   :undoc-members:\n   :show-inheritance:\n'
    return f'{name}\n{"="*len(name)}\n\n{chap}.. automodule:: {name}\n{options}'

def listing(title, # of a page
            docs,  # that it leads to
           ):
    "A page of links, in reStructuredText"
    return '\n'.join([title, '='*len(title), '', '.. toctree::', '   :maxdepth: 1', '', *[f'   {d}' for d in docs], ''])

def contents(heads # {path of a notebook, relative to `nbs/`: its title}
            ):
    "The tables of contents for the side bar: the course by its groups, then answers and reference, a line each"
    def toc(caption, docs): return '\n'.join(['```{toctree}', ':hidden:', f':caption: {caption}', '', *docs, '```', ''])
    def line(stem): return f'{stem.split("_")[0]} · {heads[Path(stem + ".ipynb")]} <{stem}>'
    course = [toc(group, map(line, stems)) for group, stems in course_map().items()]
    return '\n'.join([*course, toc('Beside it', ['Answers <answers>', 'Reference <reference>'])])

class Links(html.parser.HTMLParser):
    "Collect a page's anchors, links, and what it loads by itself"
    def __init__(self):
        super().__init__()
        self.ids, self.hrefs, self.loads = set(), [], []
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        if tag == 'a' and a.get('href'): self.hrefs.append(a['href'])
        if tag == 'link' and a.get('rel') not in ('canonical',): self.loads.append(a.get('href', ''))
        if tag in ('script', 'img', 'iframe', 'source') and a.get('src'): self.loads.append(a['src'])

def broken(out # the built site
          ): # problems, as text
    "Links within the site that lead nowhere, and whatever a page would load from elsewhere"
    pages = {}
    for p in sorted(out.rglob('*.html')):
        pages[p] = Links()
        pages[p].feed(p.read_text(encoding='utf-8'))
    bad = []
    for p, l in pages.items():
        here = p.relative_to(out)
        bad += [f'{here}: loads {u} from elsewhere' for u in l.loads if remote.match(u)]
        for u in [*l.hrefs, *l.loads]:
            if remote.match(u) or re.match(r'(mailto|data|javascript):', u): continue
            path, _, frag = u.partition('#')
            to = (p.parent/urllib.parse.unquote(path.split('?')[0])).resolve() if path else p
            if not to.exists(): bad.append(f'{here}: {u} leads nowhere')
            elif frag and to in pages and urllib.parse.unquote(frag) not in pages[to].ids:
                bad.append(f'{here}: {u}: no such place on that page')
    return bad

@call_parse
def main(out:str='_docs', # folder of the site, made anew
         work:str='build/docs', # folder for the pages it is built from
         base:str='', # the address where it will stand, for a sitemap; that of settings.ini if not given
        ):
    "Build the site and check every link in it"
    out, work = (root/out).resolve(), (root/work).resolve()
    for d in out, work: shutil.rmtree(d, ignore_errors=True)
    cfg = get_config(path=root)
    lay(work/'pages', cfg)
    if cfg.doc_host: base = base or cfg.doc_host + cfg.doc_baseurl
    sphinx = [sys.executable, '-m', 'sphinx', '-q', '-j', '2', '-b', 'html', '-D', f'html_baseurl={base}']
    r = subprocess.run([*sphinx, '-d', work/'doctrees', work/'pages', work/'html'],
                       cwd=root, text=True, capture_output=True)
    if r.returncode: sys.exit(f'Sphinx failed:\n{r.stdout}\n{r.stderr}')
    shutil.move(work/'html', out)
    warnings = dict.fromkeys(l for l in r.stderr.splitlines() if 'WARNING' in l or 'ERROR' in l)
    bad = [*warnings, *broken(out)]
    n = len(list(out.rglob('*.html')))
    print(f'{os.path.relpath(out)}/index.html: {n} pages, {len(bad)} problems', *bad, sep='\n')
    sys.exit(bool(bad))
