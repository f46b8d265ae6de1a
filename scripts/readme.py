"Write README.md and its figures from nbs/index.ipynb; `--check` only says whether they are up to date."
import os, re, shutil, sys
from pathlib import Path

import nbformat
from execnb.nbio import nb2str, read_nb
from nbconvert import MarkdownExporter
from nbdev.config import get_config
from nbdev.processors import FilterDefaults
from fastcore.script import call_parse
from traitlets.config import Config

figs = 'index_files'
kinds = 'text/markdown image/svg+xml image/png image/jpeg text/html text/plain'.split()
link = re.compile(r'(\]\()(?![a-z]+:|[#/])([^)\s]+)')

def relink(cell):
    "Make links relative to `nbs/` relative to the root"
    fix = lambda m: m[1] + Path(os.path.normpath(f'nbs/{m[2]}')).as_posix()
    if cell.cell_type == 'markdown': cell.source = link.sub(fix, cell.source)
    for o in cell.get('outputs', []):
        md = o.get('data', {}).get('text/markdown')
        if md: o['data']['text/markdown'] = link.sub(fix, ''.join(md))

def obey(cell):
    "Follow `#| echo: false` and `#| output: false`, then drop the directives"
    if cell.cell_type != 'code': return
    off = lambda k: cell.directives_.get(k, [''])[0].lower() == 'false'
    if off('output:'): cell.outputs = []
    cell.metadata['transient'] = {'remove_source': off('echo:')}
    cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()

class Readme(FilterDefaults):
    "nbdev's processors, less the links into a documentation site and the run of exported cells"
    def base_procs(self):
        drop = 'add_links add_show_docs exec_show_docs clean_show_doc'.split()
        return [p for p in super().base_procs() if p.__name__ not in drop] + [relink, obey]

def render(path # the index notebook
          ) -> tuple[str, dict]: # text of the README, {name: bytes of a figure}
    "Markdown and figures of the notebook at `path`"
    nb = read_nb(path)
    Readme()(nb)
    fm = nb.frontmatter_
    nb.cells = [c for c in nb.cells if c.cell_type != 'raw']
    node = nbformat.reads(nb2str(nb), as_version=4)
    node.metadata['language_info'] = {'name': 'python'}
    exp = MarkdownExporter(config=Config(NbConvertBase={'display_data_priority': kinds}))
    body, res = exp.from_notebook_node(node, {'output_files_dir': figs, 'unique_key': 'index'})
    for i, c in enumerate(nb.cells):
        alt = ' '.join(getattr(c, 'directives_', {}).get('fig-alt:', ['figure']))
        body = re.sub(rf'!\[\w+\](\({figs}/index_{i}_)', rf'![{alt}]\1', body)
    text = f"# {fm['title']}\n\n> {fm['description']}\n\n{body}"
    text = re.sub(r'\n{3,}', '\n\n', re.sub(r'[ \t]+\n', '\n', text)).strip() + '\n'
    return text, {Path(k).name: v for k, v in res['outputs'].items()}

def on_disk(root):
    "The README and figures that lie under `root`"
    md, d = root/'README.md', root/figs
    pics = {p.name: p.read_bytes() for p in sorted(d.glob('*'))} if d.exists() else {}
    return md.read_text(encoding='utf-8') if md.exists() else '', pics

@call_parse
def main(check:bool=False): # exit with 1 if README.md is out of date, write nothing
    "Write README.md and its figures from the index notebook"
    cfg = get_config()
    root = cfg.config_path
    text, pics = render(cfg.nbs_path/cfg.readme_nb)
    same = (text, pics) == on_disk(root)
    if check: sys.exit(0 if same else 'README.md is out of date: run `make readme`')
    if same: return print('README.md is up to date')
    shutil.rmtree(root/figs, ignore_errors=True)
    for k, v in pics.items():
        (root/figs).mkdir(exist_ok=True)
        (root/figs/k).write_bytes(v)
    (root/'README.md').write_text(text, encoding='utf-8')
    print(f'README.md: {len(text.splitlines())} lines, {len(pics)} figures')
