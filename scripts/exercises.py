"""Make the student's copy of the course.

The bodies of the functions marked `#| exercise` are taken out, their tests are left."""
import ast, copy, json, os, re, shutil, sys
from pathlib import Path
from fastcore.script import call_parse

root = Path(__file__).resolve().parent.parent
mark = re.compile(r'^#\|\s*exercise\b(.*)\n', flags=re.M)

def functions(src): # functions and methods of a cell
    "(name, its node) of each function in a cell"
    for n in ast.parse(src).body:
        if isinstance(n, ast.FunctionDef):
            # @patch: the class of `self`
            owner = n.args.args[0].annotation if n.decorator_list and n.args.args else None
            yield (f'{owner.id}.{n.name}' if isinstance(owner, ast.Name) else n.name), n
        if isinstance(n, ast.ClassDef):
            for m in n.body:
                if isinstance(m, ast.FunctionDef): yield f'{n.name}.{m.name}', m

def chosen(src): # a marked cell
    "The functions that a student writes: those named after the mark (`f`, or `Class.f`), or all of the cell"
    named = mark.search(src)[1].split()
    found = dict(functions(src))
    unknown = [n for n in named if n not in found]
    if unknown: raise ValueError(f'exercise names {unknown}: the cell has {[*found]}')
    return [(n, f) for n, f in found.items() if not named or n in named]

def blank(src): # a marked cell
    "The cell with the body of each chosen function, below its docstring, replaced by an error that names it"
    names = [n for n, _ in chosen(src)]
    src = mark.sub('', src)
    lines = src.splitlines()
    for name, f in reversed([*functions(src)]):
        if name not in names: continue
        body = f.body[1:] if ast.get_docstring(f) is not None else f.body
        todo = f"raise NotImplementedError('exercise: {name}')"
        if not body: continue
        a, z = body[0], body[-1]
        head = lines[a.lineno-1][:a.col_offset]
        above = a.lineno-1
        while not head.strip() and lines[above-1].lstrip().startswith('#'): above -= 1
        lines[above:z.end_lineno] = [(head if above == a.lineno-1 else ' '*a.col_offset) + todo]
    return '\n'.join(lines)

def marked(nb): # a notebook, as JSON
    "{place of a marked cell: names of what is to be written there}"
    src = {i: ''.join(c['source']) for i, c in enumerate(nb['cells']) if c['cell_type'] == 'code'}
    return {i: [n for n, _ in chosen(s)] for i, s in src.items() if mark.search(s)}

def student(nb): # a notebook, as JSON
    "The student's copy: marked bodies gone, outputs too, and a note of what is to be written"
    nb, todo = copy.deepcopy(nb), marked(nb)
    for i, c in enumerate(nb['cells']):
        if c['cell_type'] != 'code': continue
        c['outputs'] = []
        if i in todo: c['source'] = blank(''.join(c['source'])).splitlines(keepends=True)
    names = ', '.join(f'`{n}`' for ns in todo.values() for n in ns)
    note = (f'**To write in this notebook:** {names}. Run it from the top: the first cell that fails tests what is to '
            'be written next. It is done when every cell runs.')
    nb['cells'].insert(1, {'cell_type': 'markdown', 'id': 'exercise', 'metadata': {}, 'source': note})
    return nb

def course(): # notebooks that have exercises
    "{path: the notebook as JSON} of those with marked cells"
    nbs = {p: json.loads(p.read_text(encoding='utf-8')) for p in sorted(root.glob('nbs/[!_.]*.ipynb'))}
    return {p: nb for p, nb in nbs.items() if marked(nb)}

def fails(shell, cells): # a shell that ran what comes before
    "Run `cells` in a child of this process; the error they end in, or '' if they pass. The shell stays as it was."
    r, w = os.pipe()
    if (pid := os.fork()) == 0:
        for c in cells:
            shell.run(c)
            if shell.exc: break
        os.write(w, (f'{type(shell.exc).__name__}: {shell.exc}' if shell.exc else '').encode()[:1000])
        os._exit(0)
    os.close(w)
    os.waitpid(pid, 0)
    with os.fdopen(r) as f: return f.read()

def runnable(c): # a cell
    "The code of a cell, or '' if it is not to be run"
    src = ''.join(c['source'])
    if c['cell_type'] != 'code' or re.search(r'^#\|\s*eval:\s*false', src, flags=re.M): return ''
    return src

def prove(path): # a notebook
    """Run a notebook from top to bottom; before each exercise, run the student's cells from there on.

    Yields the names of what is to be written, and the error that the cells end in."""
    from execnb.shell import CaptureShell
    os.chdir(path.parent)
    nb = json.loads(path.read_text(encoding='utf-8'))
    todo = marked(nb)
    cells = [runnable(c) for c in nb['cells']]
    shell = CaptureShell(path)
    for i, c in enumerate(cells):
        if i in todo:
            upto = min((j for j in todo if j > i), default=len(cells))
            yield todo[i], fails(shell, [blank(c), *cells[i+1:upto]])
        shell._cell_idx = i + 1 # for the traceback
        shell.run(c)
        if shell.exc: sys.exit(shell.prettytb(fname=path))

def check(path): # a notebook
    "Run a notebook and prove its exercises; exit with status 1 where it fails, or where an exercise does not"
    held = [*prove(Path(path).resolve())]
    for names, err in held: print(f'{", ".join(names)}: {err or "NOTHING FAILS"}')
    sys.exit(not all(err for _, err in held))

INTRO = ('Each notebook is the one of the course with some functions to be written by you. Run it from the top (in an '
         'environment with craft_nb and jupyterlab); the first cell that fails says what is missing. The whole '
         'notebooks are in `nbs/`, answers to the questions in `nbs/solutions/`.')

@call_parse
def main(out:str='exercises', # folder of the student's copy, made anew
        ):
    "Make the student's copy of the course"
    out = (root/out).resolve()
    rows = []
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root/'nbs/results', out/'results')
    for p, nb in course().items():
        (out/p.name).write_text(json.dumps(student(nb), indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
        names = ', '.join(f'`{n}`' for ns in marked(nb).values() for n in ns)
        rows.append(f'| [{p.stem}]({p.name}) | {names} |')
    text = ['# Exercises', '', INTRO, '', '| notebook | to write |', '|---|---|', *rows, '']
    (out/'README.md').write_text('\n'.join(text), encoding='utf-8')
    print(f"{os.path.relpath(out)}/README.md: {len(rows)} notebooks")
