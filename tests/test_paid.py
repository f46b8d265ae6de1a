"APIs that charge: nothing is paid twice, a limit holds, keys stay secret, and the commands work from end to end."
import base64, io, threading
from contextlib import redirect_stderr, redirect_stdout
import pytest
from conftest import py
from craft_nb.blackbox import BudgetExceeded
from craft_nb.paid import APIClient, Request, Tariff, Usage, local_api

SECRET = 'hf_a-secret'
open_client = dict(headers={'Authorization': f'Bearer {SECRET}'}, rate=None)

def echo(asked):
    "An API that answers each request with its own number"
    def answer(path, headers, body):
        asked.append(body['n'])
        return dict(n=body['n'])
    return answer

def requests(n): return [Request('/n', dict(n=i)) for i in range(n)]

def test_once_each(tmp_path):
    "Many threads, the same requests many times: each goes out once, and the answers keep their places"
    asked = []
    with local_api(echo(asked)) as url:
        client = APIClient(url, **open_client, store=tmp_path/'a.sqlite', workers=8)
        found = client.ask_all(requests(50)*3, 150)
    assert [a['n'] for a in found] == [*range(50)]*3
    assert sorted(asked) == [*range(50)]
    assert client.spent() == Usage(calls=50)

def test_limit_of_several_workers(tmp_path):
    "A limit holds with several calls under way, and what was answered is kept"
    asked = []
    with local_api(echo(asked)) as url:
        client = APIClient(url, **open_client, tariff=Tariff(call=.1), limit=1.05, store=tmp_path/'a.sqlite', workers=8)
        with pytest.raises(BudgetExceeded, match='the limit is 1.05'): client.ask_all(requests(50), 50)
        assert len(asked) == 10
        client.limit = None
        client.ask_all(requests(50), 50)
    assert sorted(asked) == [*range(50)]

def test_limit_of_two_processes(tmp_path):
    "Two processes that share a file spend no more than its limit together"
    asked = []
    code = """
import sys
from craft_nb.paid import APIClient, Request, Tariff
client = APIClient(sys.argv[1], tariff=Tariff(call=1), limit=40, store=sys.argv[2], rate=None)
try: client.ask_all([Request('/n', dict(n=f'{sys.argv[3]} {i}')) for i in range(60)], 60)
except Exception as e: print(type(e).__name__)
"""
    with local_api(echo(asked)) as url:
        said = []
        def user(name): said.append(py(code, url, tmp_path/'a.sqlite', name)[1])
        users = [threading.Thread(target=user, args=(name,)) for name in 'ab']
        for u in users: u.start()
        for u in users: u.join()
    assert len(asked) == 40
    assert [s.strip() for s in said] == ['BudgetExceeded']*2

def test_lost_answer_counts(tmp_path):
    "A connection that drops after the request leaves the call in the count; the next try is another call"
    calls = []
    def answer(path, headers, body):
        calls.append(body)
        return None if len(calls) == 1 else dict(ok=True)
    with local_api(answer) as url:
        client = APIClient(url, store=tmp_path/'a.sqlite', rate=None)
        assert client.ask(Request('/x', {})) == dict(ok=True)
    assert client.store.spent(client.name) == (Usage(calls=2), 1, 0)

def test_no_api_at_all(tmp_path):
    "Nobody listens: the error says so, and nothing is spent"
    client = APIClient('http://127.0.0.1:9', store=tmp_path/'a.sqlite', rate=None, patience=.2)
    with pytest.raises(ConnectionError, match='no connection'): client.ask(Request('/x', {}))
    assert client.store.spent(client.name) == (Usage(), 0, 0)

@pytest.fixture(scope='module')
def hugging_face():
    "Hugging Face's zero-shot image classification, with `craft-mini` behind it; counts its calls"
    from craft_nb.clip import CLIPBlackBox
    from craft_nb.pictures import open_picture
    clip = CLIPBlackBox('craft-mini', ['a', 'b'])
    nothing = clip._embed('')[None]
    kept, calls, lock = {}, [], threading.Lock()
    def weights(texts):
        if texts not in kept: kept[texts] = clip.with_texts(list(texts), ending='')._weights(nothing)[0]
        return kept[texts]
    def feature(image):
        if image not in kept: kept[image] = clip._encode([open_picture(io.BytesIO(base64.b64decode(image)))])[0][0]
        return kept[image]
    def answer(path, headers, body):
        if headers['Authorization'] != f'Bearer {SECRET}': return 401, dict(error='Invalid username or password.'), {}
        labels = body['parameters']['candidate_labels']
        with lock:
            calls.append(len(labels))
            p = (weights(tuple(labels)) @ feature(body['inputs'])).softmax(-1)
        return sorted((dict(label=t, score=float(v)) for t, v in zip(labels, p)), key=lambda row: -row['score'])
    with local_api(answer) as url: yield url, calls

def craft_nb(*args, key=SECRET):
    "Run a command in this process; return (exit status, output)"
    from craft_nb.cli import main
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as m, redirect_stdout(out), redirect_stderr(out):
        if key: m.setenv('HF_TOKEN', key)
        try: main([str(a) for a in args])
        except SystemExit as e: return e.code, f'{out.getvalue()}\n{e.code}'
    return 0, out.getvalue()

def pictures(folder):
    "Two classes of six pictures, and two more to judge on"
    from craft_nb.data import fewshot
    task = fewshot('digits', 8, 1)
    for part, places in (('train', range(6)), ('test', range(6, 8))):
        for k in (0, 1):
            own = [i for i, y in enumerate(task.train[1]) if y == k]
            (folder/part/task.classnames[k]).mkdir(parents=True)
            for j in places: task.train[0][own[j]].save(folder/part/task.classnames[k]/f'{j}.png')
    return folder

def test_command(hugging_face, tmp_path, monkeypatch):
    "fit and predict at an API: a dry run sends nothing, a second run pays nothing, no file holds the key"
    url, calls = hugging_face
    monkeypatch.chdir(tmp_path)
    folder = pictures(tmp_path/'digits')
    options = f'url={url} store={tmp_path}/answers.sqlite rate=10000/second'
    own = ['--model', 'huggingface:openai/clip', '--api', options]
    fit = ['fit', folder, '--shots', '4', '--out', tmp_path/'out', '--quiet', *own]
    rc, out = craft_nb(*fit, '--dry-run', key=None)
    assert rc == 0 and 'probes, in pieces' in out and not calls, out
    assert sorted(p.name for p in tmp_path.iterdir()) == ['digits']
    rc, out = craft_nb(*fit)
    assert rc and 'say --yes to pay for it' in out and 'Traceback' not in out and not calls, out
    rc, out = craft_nb(*fit, '--yes')
    assert rc and 'say budget=' in out and 'Traceback' not in out and not calls, out
    rc, out = craft_nb(*fit, '--yes', '--budget', '100', key='wrong')
    assert rc and '401: Invalid username' in out and 'Traceback' not in out and not calls, out
    rc, out = craft_nb(*fit, '--yes', '--budget', '100')
    assert rc == 0 and 'chosen:' in out, out
    paid = len(calls)
    assert paid >= 4 + 2*4*7                      # zero-shot on four pictures, and a fit in seven pieces at most
    rc, out = craft_nb(*fit, '--yes', '--budget', '100', '--seeds', '1', '--out', tmp_path/'again')
    assert rc == 0 and len(calls) == paid, out
    rc, out = craft_nb('predict', tmp_path/'out', folder/'test', *own[2:], '--yes')
    assert rc == 0 and out.count('.png') == 4, out
    rc, out = craft_nb(*fit, '--yes', '--methods', 'craft', '--out', tmp_path/'soft')
    assert rc and 'needs soft prompts' in out and 'Traceback' not in out, out
    for path in tmp_path.rglob('*'):
        if path.is_file(): assert SECRET.encode() not in path.read_bytes(), path

def test_secrets_stay_inside(tmp_path):
    "What is printed of a client, and what its errors say, holds no key"
    client = APIClient('http://127.0.0.1:9', dict(Authorization=f'Bearer {SECRET}'), store=tmp_path/'a.sqlite',
                       secrets=dict(api_key=SECRET), patience=.1, rate=None)
    with pytest.raises(ConnectionError) as e: client.ask(Request('/x', dict(a=1)))
    assert SECRET not in repr(client) + str(e.value) + repr(e.value.__cause__) + repr(e.value.__context__)
