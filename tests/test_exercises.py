"The student's copy: what is taken out, and what is left."
import json, sys
import pytest
from conftest import run, script

exercises = script('exercises')
course = exercises.course()

def test_blank():
    "One-line bodies, long ones, comments above them, methods; the docstring stays"
    src = '''#| export
#| exercise
def f(x:int # a number
     )->int: # more
    "Say"
    # how
    y = x
    return y

@patch
def g(self:C): return 1
'''
    assert exercises.blank(src).splitlines() == [
        '#| export',
        'def f(x:int # a number',
        '     )->int: # more',
        '    "Say"',
        "    raise NotImplementedError('exercise: f')",
        '',
        '@patch',
        "def g(self:C): raise NotImplementedError('exercise: C.g')"]

def test_named():
    "Names after the mark choose what is blanked; a name that the cell does not have is an error"
    src = '''#| exercise C.g
class C:
    def f(self): return 1
    def g(self):
        "Say"
        return 2
'''
    assert exercises.blank(src).splitlines() == [
        'class C:',
        '    def f(self): return 1',
        '    def g(self):',
        '        "Say"',
        "        raise NotImplementedError('exercise: C.g')"]
    assert exercises.marked({'cells': [dict(cell_type='code', source=src)]}) == {0: ['C.g']}
    with pytest.raises(ValueError, match='C.h'): exercises.blank(src.replace('C.g', 'C.h'))

def test_copy(tmp_path):
    "What `make exercises` writes: no body of a marked function, no output, everything else"
    rc, out = run([sys.executable, 'scripts/exercises.py', '--out', tmp_path/'ex'])
    assert rc == 0 and f'{len(course)} notebooks' in out, out
    for p, nb in course.items():
        got = json.loads((tmp_path/'ex'/p.name).read_text(encoding='utf-8'))
        text = '\n'.join(''.join(c['source']) for c in got['cells'])
        names = [n for ns in exercises.marked(nb).values() for n in ns]
        assert all(f"NotImplementedError('exercise: {n}')" in text for n in names)
        assert not any(c.get('outputs') for c in got['cells']) and len(got['cells']) == len(nb['cells']) + 1
