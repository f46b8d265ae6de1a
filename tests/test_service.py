"""The service under strain: many clients, a bad line, kill -9 on either side, nonsense.

The ledger stays exact, and a run the same, bit for bit."""
import asyncio, io, json, logging, secrets, socket, sqlite3, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
import httpx, numpy as np, pytest, torch
from PIL import Image
from conftest import HANG
from faults import FAULTS, FIT, NAMES, PLENTY, Line, Owner, equal, killing, ledger, shots, use_and_kill
from fuzz import Flood, bodies, operations, picture_files, pictures, query_of, send, small, upload_of
from starlette.testclient import TestClient
from craft_nb.blackbox import BudgetExceeded, digest
from craft_nb.cli import main
from craft_nb.clip import CLIPBlackBox
from craft_nb.craft import CraFT
from craft_nb.service.app import create_app, serving
from craft_nb.service.client import RemoteBlackBox, read_pieces
from craft_nb.service.handlers import Service
from craft_nb.service.limits import APIError, Limits, MemoryBudget, read_body, receive_body
from craft_nb.service.policy import Policy, access_report, account_limits, change_limits, policy_of
from craft_nb.service.store import SCHEMA, Store
from craft_nb.service.wire import MODEL_HEADER, model_id, pack_message

@pytest.fixture(scope='module')
def model(): return CLIPBlackBox('craft-mini', NAMES)

@pytest.fixture(scope='module')
def prompts(model): # (10, 4, 256)
    p0 = model.embed('a photo of a')
    return p0 + .02*torch.randn(10, *p0.shape, generator=torch.Generator().manual_seed(0))

@pytest.fixture
def path(tmp_path): return tmp_path/'store.db'

@pytest.fixture
def store(path):
    s = Store(path)
    yield s
    s.close()

@pytest.fixture
def key(store): return store.add('ann')

@pytest.fixture
def serve(model, store):
    "serve(open=2, ...): a running server -> url, in a `with`"
    return lambda **limits: serving(create_app(model, store, Limits(**PLENTY | limits)))

def fit(box, budget): return CraFT(box, budget=budget, **FIT).fit(*shots())

def bearer(key): return {'Authorization': f'Bearer {key}'}
def named(name): return {'Idempotency-Key': name}
def get(url, **kw): return httpx.get(url, timeout=HANG, **kw)
def post(url, **kw): return httpx.post(url, timeout=HANG, **kw)

def grey(value=0): return torch.full((9, 9, 3), value, dtype=torch.uint8)
PICTURE = pack_message({'0': grey()})

def question(prompts, images, names=NAMES):
    "The body of a query"
    return pack_message({'prompts': prompts}, images=images, classnames=names)

@pytest.fixture(scope='module')
def local():
    return {b: fit(CLIPBlackBox('craft-mini', NAMES), b) for b in (77, 330)}

# --- other texts

@pytest.mark.parametrize('n', [4, 0])
def test_asking(serve, key, model, prompts, n):
    "Other texts over HTTP, behind a prompt or as whole sentences: the local answers, on the same account and pictures"
    near = model.with_classes(NAMES)
    def ask(box): return box.with_texts(['tench', 'a red violin']).query(prompts[:1, :n], box.upload(shots()[0][:3]))
    with serve() as url, RemoteBlackBox(url, key, NAMES) as far:
        a, b = ask(near), ask(far)
        assert b.shape == (1, 3, 2) and torch.allclose(a, b, atol=1e-4)
        assert (far.ledger.queries, far.ledger.texts, far.ledger.images) == (1, 2, 3) and far.classnames == NAMES

# --- accounts

def test_budget_under_32_clients(serve, store, prompts):
    "1,000 queries left, and 32 clients that want all of them: 1,000 are answered"
    key = store.add('shared', 1000)
    def spend(url):
        with RemoteBlackBox(url, key, NAMES) as box:
            images = box.upload(shots()[0][:2])
            n = 0
            for p in (prompts[:7], prompts[:1]):
                try:
                    while True: n += len(box.query(p, images))
                except BudgetExceeded: pass
            return n, box.ledger.queries
    with serve() as url, ThreadPoolExecutor(32) as ex: spent = list(ex.map(spend, [url]*32))
    assert [sum(s) for s in zip(*spent)] == [1000, 1000] and store.accounts()[0]['queries'] == 1000
    assert store.rows('select sum(queries) as n from paid')[0]['n'] == 1000

def test_accounts_apart(serve, store, key, prompts):
    "No id of one account works for the other, and the other's ledger and idempotency keys are its own"
    his_key = store.add('bob')
    with serve() as url, RemoteBlackBox(url, key, NAMES) as ann, RemoteBlackBox(url, his_key, NAMES) as bob:
        images = ann.upload(shots()[0])
        hers = ann._store[images.id]
        bob._store[images.id] = hers
        with pytest.raises(KeyError, match=f'unknown image set {hers[0]}'): bob.query(prompts[:1], images)
        bob.forget(images)
        his = bob._store[bob.upload(shots()[0]).id]
        assert len(ann._logits(prompts[:3], hers, name='one and the same')) == 3
        assert len(bob._logits(prompts[:2], his, name='one and the same')) == 2
        assert [b.account()['queries'] for b in (ann, bob)] == [3, 2] and bob.account()['name'] == 'bob'

def test_revoked(serve, store, key, prompts):
    "A revoked key and a wrong one open nothing, from one request to the next"
    with serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        store.revoke('ann')
        with pytest.raises(PermissionError, match='revoked'): box.query(prompts, images)
        wrong = key[:-1] + ('B' if key[-1] == 'A' else 'A')
        with pytest.raises(PermissionError, match='wrong'): RemoteBlackBox(url, wrong, NAMES)
    assert store.accounts()[0]['queries'] == 0

def test_restart(model, path, prompts):
    "A second server on the same file knows the same ledger and the same image sets"
    first = Store(path)
    key = first.add('ann')
    with serving(create_app(model, first)) as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        a = box.query(prompts, images)
        known = box._store
    before = first.accounts()
    first.close()
    second = Store(path)
    assert second.accounts() == before and before[0]['queries'] == 10
    with serving(create_app(model, second)) as url, RemoteBlackBox(url, key, NAMES) as box:
        box._store = known
        b = box.query(prompts, images)
    assert torch.equal(a, b) and second.accounts()[0]['queries'] == 20
    second.close()

# --- bad lines and kill -9

def test_bad_line(path, key, local):
    "Answers that are dropped or cut, requests that come twice, late, or by half: the same run, each query paid once"
    impatient = dict(timeout=.3, patience=HANG)
    with Owner(path) as owner, Line(owner.url) as line, RemoteBlackBox(line.url, key, NAMES, **impatient) as box:
        clf = fit(box, 77)
        line.settle()
        assert set(line.seen) == set(FAULTS)
        assert ledger(path) == box.ledger.queries == 77 and ledger(path, 'images') == 4
    clf.box = CLIPBlackBox('craft-mini', NAMES)
    assert equal(clf, local[77])

def test_killed_server(path, key, local):
    "kill -9 of the server, 20 times in a run"
    with Owner(path) as owner, RemoteBlackBox(owner.url, key, NAMES, patience=HANG) as box:
        with killing(owner, box, 20, of=60): clf = fit(box, 330)
        assert owner.kills == 20 and ledger(path) == box.ledger.queries == 330
        assert equal(clf, local[330])

def test_killed_client(path, key, local, tmp_path):
    "kill -9 of the client, 20 times in a run that goes on from its checkpoint"
    with Owner(path) as owner: assert use_and_kill(owner, path, key, tmp_path, 330, 20) == 20
    assert ledger(path) == 330 and ledger(path, 'images') == 4
    assert equal(CraFT.load(tmp_path, CLIPBlackBox('craft-mini', NAMES)), local[330])

# --- too much, too large, too slow

def ask(url, route, length, *headers, body=b''):
    "A raw request, to be finished by the caller"
    u = httpx.URL(url)
    head = [f'POST /v1/{route} HTTP/1.1', 'Host: x', f'Content-Length: {length}', *headers]
    s = socket.create_connection((u.host, u.port), timeout=HANG)
    s.sendall('\r\n'.join(head).encode() + b'\r\n\r\n' + body)
    return s

def raw_headers(key, name): return f'Authorization: Bearer {key}', f'Idempotency-Key: {name}'

def slow(url, key):
    "A request of which one byte is sent"
    return ask(url, 'query', 90000, *raw_headers(key, secrets.token_hex(8)), body=b'a')

def until(ask, good):
    "The first good answer"
    end = time.monotonic() + HANG
    while not good(r := ask()) and time.monotonic() < end: time.sleep(.05)
    assert good(r)
    return r

@pytest.mark.parametrize('limits', [dict(open=2), dict(held=200_000)])
def test_back_pressure(model, store, key, prompts, limits):
    "Two requests that stand still take all places, or all memory: others wait, and get through once those are gone"
    app = create_app(model, store, Limits(**PLENTY | limits))
    places = app.state.service.places
    with (serving(app) as url,
          RemoteBlackBox(url, key, NAMES, patience=HANG) as box,
          httpx.Client(base_url=url, headers=bearer(key), timeout=HANG) as c,
          ThreadPoolExecutor(1) as ex):
        images = box.upload(grey().numpy()[None])
        until(lambda: places.used, lambda n: n == 0)
        still = [slow(url, key) for _ in range(2)]
        until(lambda: get(url + '/metrics').text, lambda text: 'craft_nb_held_bytes 180000.0' in text)
        r = send(c, '/v1/query', bytes(21_000))
        assert r.status_code == 429 and r.json()['error'] == 'busy' and int(r.headers['Retry-After']) >= 1
        statuses = []
        box.connection.http.event_hooks = dict(response=[lambda r: statuses.append(r.status_code)])
        answer = ex.submit(box.query, prompts, images)
        until(lambda: statuses, lambda told: 429 in told)
        waits = not answer.done()
        for s in still: s.close()
        assert waits and len(answer.result(HANG)) == box.account()['queries'] == 10

def test_rate(model, store, key, monkeypatch):
    "More requests than the rate allows: 429, and a client that waits gets all it asks for"
    app = create_app(model, store, Limits(**PLENTY | dict(rate=5, burst=3)))
    bucket = app.state.service.bucket
    take, start = bucket.take, None
    def now(): return 0. if start is None else time.monotonic() - start     # the clock stands, and is started below
    monkeypatch.setattr(bucket, 'take', lambda who: take(who, now()))
    with serving(app) as url, RemoteBlackBox(url, key, NAMES) as box:
        statuses = [get(url + '/v1/ledger', headers=bearer(key)).status_code for _ in range(4)]
        assert statuses == [200, 200, 429, 429]     # the box has asked once
        start = time.monotonic()
        assert [box.account()['queries'] for _ in range(3)] == [0]*3

def test_large_body(serve, key, prompts):
    "A body over the limit is refused, whether it says its length or not, and paid for by nobody"
    with serve(body=5000) as url, RemoteBlackBox(url, key, NAMES) as box:
        def status(body): return post(url + '/v1/query', headers=bearer(key) | named('a'*8), content=body).status_code
        assert status(bytes(6000)) == 413
        assert status(iter([bytes(3000)]*2)) == 411
        with pytest.raises(ValueError, match='5000 bytes'): box._logits(prompts, ('any', 4))
        assert box.account()['queries'] == 0

def test_slow_body(serve, key):
    "A body that does not arrive is given up, and its place is free again"
    with serve(patience=.3, open=1) as url:
        with slow(url, key) as s: assert b' 408 ' in s.recv(100)
        until(lambda: get(url + '/v1/ledger', headers=bearer(key)).status_code, lambda status: status == 200)

# --- nonsense

def client_of(app, key): return TestClient(app, raise_server_exceptions=False, headers=bearer(key))

@pytest.fixture
def client(model, store, key):
    with client_of(create_app(model, store, Limits(**PLENTY)), key) as c: yield c

def check(flood):
    assert not flood.broken and flood.sent >= 300 and flood.growth < 100, (flood.statuses, flood.growth)

def flood_route(client, route, inputs):
    "Send 300 bodies"
    check(Flood(lambda body: send(client, f'/v1/{route}', body).status_code, inputs, 300))

def test_nonsense_query(client, prompts):
    "300 bodies of queries: mutated, of any types and shapes, garbage"
    id = send(client, '/v1/images', PICTURE).json()['id']
    good = query_of(prompts[0], id)
    assert send(client, '/v1/query', small(good)).status_code == 200
    flood_route(client, 'query', bodies([good], id))

def test_nonsense_upload(client):
    "300 bodies of uploads, the same way"
    good = upload_of(*picture_files()[::3])
    flood_route(client, 'images', bodies([good], ''))

def test_nonsense_pictures(client):
    "300 damaged PNG, JPEG, GIF, WebP and BMP files; the whole ones are taken"
    files = picture_files()
    assert send(client, '/v1/images', small(upload_of(*files))).json()['n'] == len(files)
    flood_route(client, 'images', pictures(files))

def test_schema(client):
    "300 requests that schemathesis draws from the OpenAPI page, good and bad"
    def status(case): return case.call(headers=dict(client.headers)).status_code
    check(Flood(status, operations(client.app), 300))

@pytest.mark.parametrize('shape', [(1, 1), (1, 2000), (2000, 1), (3, 5000)])
def test_thin_pictures(client, shape):
    "A picture a pixel high or wide is a picture, or is refused"
    body = pack_message({'0': torch.zeros(*shape, 3, dtype=torch.uint8)})
    assert send(client, '/v1/images', body).status_code in (200, 413, 422)

def test_bombs(client):
    "A small file of a huge picture and a small body of a huge message are refused before they unfold"
    for n in (9000, 20000):
        f = io.BytesIO()
        Image.new('1', (n, n)).save(f, 'PNG')
        assert send(client, '/v1/images', small(upload_of(f.getvalue()))).status_code in (413, 422)
    assert send(client, '/v1/query', pack_message({'prompts': torch.zeros(1, 2**25)})).status_code == 422

# --- what would be free of charge

def test_key_reused(client, store, prompts):
    "Under a key that was paid, the same bytes as more candidates, or other pictures under the old id: refused"
    def upload(v): return client.post('/v1/images', content=pack_message({'0': grey(v)}), headers=named('pictures'))
    def ask(p): return client.post('/v1/query', content=question(p, id), headers=named('question')).status_code
    id = upload(0).json()['id']
    assert ask(prompts[:1]) == ask(prompts[:1]) == 200
    assert ask(prompts[:1].reshape(4, 1, -1)) == upload(1).status_code == 409
    client.delete(f'/v1/images/{id}')
    assert upload(1).json()['id'] == id and ask(prompts[:1]) == 409
    assert store.accounts()[0]['queries'] == 1

@pytest.mark.parametrize('route', ['embed', 'images', 'query'])
def test_stranger(serve, route):
    "Who has no key is told so before a body is read"
    with serve(open=1) as url:
        headers = f'Idempotency-Key: {"a"*8}', 'Content-Type: application/json'
        with ask(url, route, 90000, *headers, body=b'{') as s: assert b' 401 ' in s.recv(100)

def test_unread_answer(model, store, key, prompts, monkeypatch):
    "An answer that nobody reads is given up, and its memory is free again"
    app = create_app(model, store, Limits(**PLENTY, reading=.3))
    memory = app.state.service.memory
    hold, used = memory.hold, [0]
    @contextmanager
    def noting(n):
        with hold(n):
            used.append(memory.used)
            yield
    monkeypatch.setattr(memory, 'hold', noting)
    with serving(app) as url, RemoteBlackBox(url, key, [f'{i}' for i in range(600)]) as box:
        id, _ = box._store[box.upload(list(np.zeros((400, 9, 9, 3), np.uint8))).id]
        body = question(prompts[:8], id, box.classnames)
        with ask(url, 'query', len(body), *raw_headers(key, 'question'), body=body):
            until(lambda: max(used), lambda n: n > 2**22)
            until(lambda: memory.used, lambda n: n == 0)

# --- what an account gets

def query(box, images, names, p): return box.with_texts(names).query(p, images)
MANY = [f'thing {i}' for i in range(12)]

def test_policy_answers(serve, store, key, prompts):
    "Rounded, cut and turned into probabilities for one account, exact for the other; each is told what it gets"
    poor = store.add('bob', policy=Policy(top_k=3, decimals=2, probabilities=True))
    with serve() as url, RemoteBlackBox(url, key, MANY) as full, RemoteBlackBox(url, poor, MANY) as part:
        assert full.policy == {} and part.policy == dict(top_k=3, decimals=2, probabilities=True)
        Y, Z = (b.query(prompts[:2], b.upload(shots()[0])) for b in (full, part))
        (id, _), = part._store.values()
        body = question(prompts[:2], id, MANY)
        pieces = part.connection.ask('POST', '/v1/query', read_pieces, content=body, headers=named('as it came'))
    raw = torch.cat([o['logits'] for o in pieces]).view_as(Y)
    seen, top = ~raw.isnan(), Y.softmax(-1).topk(3)
    assert (seen.sum(-1) == 3).all() and seen.gather(-1, top.indices).all()
    assert torch.allclose(raw.gather(-1, top.indices), (100*top.values).round()/100, atol=1e-6)
    assert Z.isfinite().all() and torch.equal(Z.argmax(-1), raw.nan_to_num(-1).argmax(-1))

def test_policy_caps(serve, store, prompts):
    "A query of too many names, or of too many new texts, costs nothing; texts that were asked may be asked again"
    key = store.add('ann', policy=Policy(texts=5, distinct=8))
    with serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        assert box.model['max_classes'] == 5
        def ask(names, p=prompts[:1]): return query(box, images, names, p)
        with pytest.raises(ValueError, match='6 class names, and this account may send 5'): ask(MANY[:6])
        ask(MANY[:5])
        says = '8 different texts scored, has had 5, and asks for 5 new'
        with pytest.raises(PermissionError, match=says): ask(MANY[:5], prompts[1:2])
        ask(MANY[2:5])
        ask(MANY[3:8])
        with pytest.raises(PermissionError, match='another prompt'): ask(MANY[8:9])
        assert box.account()['queries'] == 3
    r, = access_report(store)
    assert (r['texts'], r['directions'], r['answers'], r['images']) == ('8', '8 of 256', 4*(5 + 3 + 5), 4)

def test_policy_caps_together(serve, store, prompts):
    "Sixteen clients of one account cannot get past its texts"
    key = store.add('ann', policy=Policy(distinct=20))
    def ask(i):
        texts = [f'{i}', f'{i} again', f'{i} and again']
        with RemoteBlackBox(url, key, NAMES) as box:
            images = box.upload(shots()[0][:1])
            try: query(box, images, texts, prompts[:1])
            except PermissionError: return 0
            return 1
    with serve() as url, ThreadPoolExecutor(16) as ex: assert sum(ex.map(ask, range(16))) == 6
    assert store.count_texts(1) == 18 and store.accounts()[0]['queries'] == 6

def test_policy_noise(model, path, prompts):
    "Asked again, after a restart: the same noise; another account, store or prompt: other noise"
    keys = {}
    def answers(path, name, p):
        s = Store(path)
        if (path, name) not in keys: keys[path, name] = s.add(name, policy=Policy(noise=1.))
        app = create_app(model, s, Limits(**PLENTY))
        with serving(app) as url, RemoteBlackBox(url, keys[path, name], MANY) as box:
            images = box.upload(shots()[0])
            first, second = box.query(p, images), box.query(p, images)
        s.close()
        assert torch.equal(first, second)
        return first
    p = prompts[:2]
    clean = model.with_texts(MANY).query(p, model.upload(shots()[0]))
    a, b = answers(path, 'ann', p), answers(path, 'ann', p)
    assert torch.equal(a, b) and .8 < (a - clean).std() < 1.2
    others = dict(
        account=answers(path, 'bob', p),
        store=answers(path.with_suffix('.2'), 'ann', p),
        prompt=answers(path, 'ann', p + 1e-6))
    for other, answer in others.items():
        noises = torch.stack([(a - clean).flatten(), (answer - clean).flatten()])
        assert abs(torch.corrcoef(noises)[0, 1]) < .4, other

def test_policy_changes(serve, store, key, prompts):
    "A new policy holds from the next request on; a client that comes anew is told"
    with serve() as url, RemoteBlackBox(url, key, MANY) as box:
        images = box.upload(shots()[0])
        box.query(prompts[:1], images)
        change_limits(store, 'ann', texts=3)
        with pytest.raises(ValueError, match='12 class names'): box.query(prompts[:1], images)
        with RemoteBlackBox(url, key, MANY) as again: assert again.policy == dict(texts=3)
    with pytest.raises(ValueError, match='no account'): change_limits(store, 'nobody', texts=3)

def test_old_store(model, path, prompts):
    "A file from before there were policies is served, its ledger as it was"
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA.split('create table if not exists texts')[0])
        columns = 'name, key, budget, price, queries'
        db.execute(f'insert into accounts ({columns}) values (?, ?, 50, 0, 7)', ('ann', digest('craft_old')))
    db.close()
    store = Store(path)
    with serving(create_app(model, store)) as url, RemoteBlackBox(url, 'craft_old', NAMES) as box:
        box.query(prompts[:3], box.upload(shots()[0]))
        assert box.account()['queries'] == 10 and box.policy == {}
    assert access_report(store)[0]['directions'] == '6 of 256'
    assert policy_of(store.find('craft_old')) == Policy()
    store.close()

# --- noise that nobody can take the mean of

def answered(box, names, p, pictures): return box.with_texts(names).query(p, box.upload(pictures))[0]

@pytest.mark.parametrize('names', [
    ['cat']*1000,
    ['cat', 'dog', 'Cat'],
    ['cat', 'Cat '],
    ['cat', ' cat'],
    ['ankle boot', 'ankle_boot']], ids=lambda names: repr(names[:3]))
def test_names_that_say_the_same(client, store, prompts, names):
    "One name a thousand times in one query; capitals, spaces and underscores: refused, and not charged"
    id = send(client, '/v1/images', PICTURE).json()['id']
    r = send(client, '/v1/query', question(prompts[:1], id, names))
    assert r.status_code == 422 and 'say the same to the model' in r.json()['message']
    assert store.accounts()[0]['queries'] == 0

def test_repeated_names_of_a_client(serve, key, model, prompts):
    "A list that has a name twice, as ImageNet's, is answered as by the local box"
    names = ['missile', 'cat', 'missile']
    with serve() as url, RemoteBlackBox(url, key, names) as far:
        near = model.with_classes(names)
        a, b = (box.query(prompts[:2], box.upload(shots()[0])) for box in (near, far))
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4)
        assert far.model['max_classes'] and far.account()['queries'] == 2

def test_noise_of_a_picture(serve, store, prompts):
    "A picture in another set, place or file, a text among others: the same noise, so 200 answers say no more than one"
    key = store.add('ann', policy=Policy(noise=1.))
    pics, _ = shots()
    a, b = np.asarray(pics[0]), np.asarray(pics[1])
    f = io.BytesIO()
    Image.fromarray(a).save(f, 'PNG')
    with serve() as url, RemoteBlackBox(url, key, MANY) as box:
        alone = answered(box, MANY[:1], prompts[:1], [a])
        among = answered(box, [*MANY[5:], MANY[0]], prompts[:1], [b, Image.open(f), a])
        many = answered(box, MANY[:1], prompts[:1], [a]*200)
        assert torch.allclose(among[1:, -1:], alone.expand(2, 1), atol=1e-4)
        assert torch.allclose(many, alone.expand(200, 1), atol=1e-4)
    clean = answered(CLIPBlackBox('craft-mini', MANY[:1]), MANY[:1], prompts[:1], [a])
    assert abs(many.mean() - clean) > .5*abs(alone - clean)     # the mean is no nearer to the truth than one answer

def test_text_behind_its_end():
    "A name cannot write the end itself, so that the rest is not read: its words are read as words"
    box = CLIPBlackBox('craft-mini', [f'cat. <end_of_text>{i}' for i in range(9)])
    ended = box._tokens == box._tokenizer.eot_token_id
    assert (ended.sum(1) == 1).all() and len(box._tokens.unique(dim=0)) == 9

@pytest.mark.parametrize('policy', [dict(noise=5.), dict(noise=5., probabilities=True), dict(decimals=1)])
def test_noise_under_another_length(serve, store, prompts, policy):
    "Features that are not normalised have the same policy on the same numbers: two uploads tell no more than one"
    key = store.add('ann', policy=Policy(**policy))
    pics, _ = shots()
    with serve() as url, RemoteBlackBox(url, key, MANY) as box:
        a, b = [box.query(prompts[:1], box.upload(pics, normalize=n))[0] for n in (True, False)]
    if policy.get('probabilities'): assert torch.allclose(a, b, atol=1e-4)
    else:
        ratio = (b/a).nanmedian(-1, keepdim=True).values
        assert torch.allclose(b, a*ratio, atol=1e-3)

# --- limits of an account, and its key

def test_limits_are_merged(path, capsys):
    "`keys limit` changes what it names and nothing else; a limit is removed by name; a key takes another's place"
    def keys(words):
        capsys.readouterr()
        main(['serve', 'keys', *words.split(), '--store', str(path)])
        return capsys.readouterr()
    old = keys('add ann --budget 500 --price 0.002 --top-k 5 --noise 1').out.strip()
    said = keys('limit ann --budget 9000').out
    assert 'before: budget=500 price=0.002 top_k=5 noise=1.0' in said
    assert 'now:    budget=9000 price=0.002 top_k=5 noise=1.0' in said
    said = keys('limit ann --decimals 2 --remove noise').out
    assert 'now:    budget=9000 price=0.002 top_k=5 decimals=2' in said
    for words in ('limit ann --remove budget', 'limit ann'):
        assert 'now:    budget=none price=0.002 top_k=5 decimals=2' in keys(words).out
    for bad in (
        'limit ann --top-k 0',
        'limit ann --remove top',
        'limit ann --budget 5 --remove budget',
        'limit bob --budget 5'):
        with pytest.raises(SystemExit): keys(bad)
    new = keys('rotate ann').out.strip()
    s = Store(path)
    assert s.find(old) is None and s.find(new)['name'] == 'ann'
    assert account_limits(s, 'ann') == dict(budget=None, price=.002, top_k=5, decimals=2)
    s.close()

def test_limits_of_limits(path, store, key):
    "What would fail after the charge is refused before; a revoked account gets no key; old texts may be asked again"
    for bad in (dict(decimals=39), dict(noise=1e39), dict(price=float('nan')), dict(budget=-1)):
        with pytest.raises(ValueError): change_limits(store, 'ann', **bad)
    store.charge(1, 'question', 'digest', 1, range(10))
    change_limits(store, 'ann', distinct=5)
    assert store.charge(1, 'again', 'digest', 1, range(3), 5)
    store.revoke('ann')
    with pytest.raises(ValueError, match='is revoked'): store.rotate('ann')

def test_raised_budget(serve, store, prompts):
    "An account at its end goes on when its budget is raised; lowered below what is spent, nothing is left"
    key = store.add('ann', 2)
    with serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        box.query(prompts[:2], images)
        with pytest.raises(BudgetExceeded): box.query(prompts[:1], images)
        change_limits(store, 'ann', budget=5)
        box.query(prompts[:1], images)
        change_limits(store, 'ann', budget=1)
        assert box.account()['left'] == 0 == box.left()
        with pytest.raises(BudgetExceeded, match='0 left'): box.query(prompts[:1], images)

# --- a key belongs to a host

@pytest.fixture
def thief():
    "A server on this machine that writes down what it is sent -> (url, heads)"
    heads = []
    class Takes(BaseHTTPRequestHandler):
        def do_GET(self):
            heads.append(dict(self.headers))
            self.send_response(404)
            self.end_headers()
        do_POST = do_GET
        def log_message(self, *_): pass
    with HTTPServer(('127.0.0.1', 0), Takes) as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{s.server_port}', heads
        s.shutdown()

def change(file, **values):
    "Put other values into a file of JSON"
    info = json.loads(Path(file).read_text())
    Path(file).write_text(json.dumps(info | values))

@pytest.fixture
def gift(thief, model, tmp_path, monkeypatch):
    "A classifier and a run from somebody else, that name the thief's service"
    monkeypatch.chdir(tmp_path)
    url, _ = thief
    CraFT(model, budget=11, **FIT).fit(*shots()).save('gift')
    change('gift/classifier.json', box=dict(model=url, pretrained=None))
    for i, (p, k) in enumerate(zip(*shots())):
        (tmp_path/f'pictures/{k}').mkdir(parents=True, exist_ok=True)
        p.save(f'pictures/{k}/{i}.png')
    main('fit pictures --shots 1 --budget 41 --methods craft --out gift/run --quiet'.split())
    change('gift/run/command.json', model=url)
    change('gift/run/report.json', model=[url, None], runs=[])
    return thief

@pytest.mark.parametrize('words', ['predict gift pictures', 'fit --resume gift/run --quiet'])
def test_address_in_a_file(gift, monkeypatch, capsys, words):
    "Nothing goes to the address that a file names until the user agrees; and then no key that is another host's"
    url, heads = gift
    monkeypatch.setenv('CRAFT_NB_KEY', 'craft_secret@models.example.org')
    with pytest.raises(SystemExit, match='nothing was sent: say --yes'): main(words.split())
    assert url in capsys.readouterr().err and not heads
    agreed = [*words.split(), '--yes']
    with pytest.raises(SystemExit, match='no key for 127.0.0.1'): main(agreed)
    assert not heads
    monkeypatch.setenv('CRAFT_NB_KEY', 'craft_secret')
    with pytest.raises(SystemExit, match='name no host'): main(agreed)
    assert not heads
    monkeypatch.setenv('CRAFT_NB_KEY', f'craft_secret@models.example.org craft_theirs@{url[7:]}')
    with pytest.raises((SystemExit, KeyError)): main(agreed)
    assert heads and {h['Authorization'] for h in heads} == {'Bearer craft_theirs'}

def test_answer_of_the_user(gift, monkeypatch):
    "At a terminal the user is asked"
    url, heads = gift
    monkeypatch.setenv('CRAFT_NB_KEY', f'craft_theirs@{url[7:]}')
    monkeypatch.setattr('sys.stdin', SimpleNamespace(isatty=lambda: True))
    for answer in ('', 'n', 'no'):
        monkeypatch.setattr('builtins.input', lambda *_: answer)
        with pytest.raises(SystemExit, match='nothing was sent'): main('predict gift pictures'.split())
    assert not heads
    monkeypatch.setattr('builtins.input', lambda *_: 'y')
    with pytest.raises((SystemExit, KeyError)): main('predict gift pictures'.split())
    assert heads

def test_box_in_another_order(gift, monkeypatch):
    "What is confirmed is what is opened, in whatever order a file has it"
    url, heads = gift
    monkeypatch.setenv('CRAFT_NB_KEY', f'craft_theirs@{url[7:]}')
    for box, says in (
        (dict(pretrained=url, model='craft-mini'), 'weights of its own'),
        (dict(x=url, model='craft-mini', pretrained=None), 'is of another method'),
        (dict(model=[url], pretrained=None), 'expected a name'),
        ([url, None], 'is of another method')):
        change('gift/classifier.json', box=box)
        with pytest.raises(SystemExit, match=says): main('predict gift pictures'.split())
    assert not heads

def test_no_proxy(gift, monkeypatch):
    "What goes to this machine in the clear goes past no proxy"
    url, heads = gift
    for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'): monkeypatch.setenv(name, url)
    nobody = 'http://127.0.0.1:9'
    with pytest.raises(ConnectionError): RemoteBlackBox(nobody, 'craft_secret', NAMES, patience=.1)
    assert not heads

@pytest.mark.parametrize('text', [
    'craft_other@models.example.org,craft_theirs@HOST',
    'craft_other@models.example.org craft_theirs@HOST',
    'craft_theirs@HOST;craft_other'])
def test_several_keys(gift, text):
    "Of several keys, given in any way, the host's own is sent, or none"
    url, heads = gift
    keys = text.replace('HOST', url[7:])
    with pytest.raises((KeyError, PermissionError)): RemoteBlackBox(url, keys, NAMES)
    assert not [h for h in heads if 'other' in h['Authorization']]

@pytest.mark.parametrize('url', ['http://192.0.2.1:8000', 'http://models.example.org', 'http://127.0.0.1.example.org'])
def test_plain_http(url, tmp_path, monkeypatch):
    "Plain http beyond this machine is for those who ask for it; the address is refused before it is called"
    with pytest.raises(ValueError, match='is plain http'): RemoteBlackBox(url, 'craft_any', NAMES, patience=0)
    monkeypatch.chdir(tmp_path)
    words = f'fit digits --shots 1 --model {url} --out run'
    with pytest.raises(SystemExit, match='is plain http'): main(words.split())

# --- another model behind the same address

@pytest.fixture(scope='module')
def other(): return CLIPBlackBox('craft-mini-vit', NAMES)

def test_other_model(model, other, store, key, prompts):
    "Features of one model are never met by texts of another: 409, not charged, in words; each answer says whose it is"
    old = model_id(model.fingerprint())
    def ask(url, name, **meant):
        return post(url + '/v1/query', content=body, headers=bearer(key) | named(name) | meant)
    with serving(create_app(model, store)) as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        box.query(prompts[:1], images)
        id, _ = box._store[images.id]
        body = question(prompts[:1], id)
        first = ask(url, 'question 1')
        assert first.status_code == 200 and first.headers[MODEL_HEADER] == old
    with serving(create_app(other, store)) as url:
        for meant in ({}, {MODEL_HEADER: old}):
            for name in ('question 1', 'question 2'):
                r = ask(url, name, **meant)
                assert (r.status_code, r.json()['error']) == (409, 'model')
                assert 'upload the pictures again' in r.json()['message']
        assert store.accounts()[0]['queries'] == 2
        with RemoteBlackBox(url, key, NAMES) as new:
            new._store[images.id] = box._store[images.id]
            with pytest.raises(ValueError, match='another model was served'): new.query(prompts[:1], images)
            far = new.query(prompts[:1], new.upload(shots()[0]))
            near = other.query(prompts[:1], other.upload(shots()[0]))
            assert torch.allclose(far, near, atol=1e-4)

def test_other_model_under_a_client(model, other, store, key, prompts):
    "The model is changed while a client is at work: its next question is refused, an answer of the new one not used"
    with serving(create_app(model, store)) as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        with serving(create_app(other, store)) as elsewhere:
            box.connection.http.base_url = elsewhere
            with pytest.raises(ValueError, match='another model is served'): box.query(prompts[:1], images)
            with pytest.raises(ValueError, match='another model is served'): box.upload(shots()[0])
            with pytest.raises(ValueError, match='serves another model'): box.account()
        box.connection.http.base_url = url
        assert box.account()['queries'] == 0

def test_paid_by_another_model(model, other, store, key, prompts):
    "A request that the old model was paid for is not answered by the new one"
    a, b = Service(model, store, Limits()), Service(other, store, Limits())
    ann = store.find(key)
    def upload(service, name): return service.upload(ann, PICTURE, 0, name).id
    def ask(service, id): return list(service.query(ann, question(prompts[:1], id), 'question'))
    ask(a, upload(a, 'pictures'))
    store.delete_set(ann['id'], upload(b, 'others'))
    with pytest.raises(APIError) as e: upload(b, 'pictures')
    assert e.value.status == 409
    fresh = upload(b, 'anew')
    with pytest.raises(APIError) as e: ask(b, fresh)
    assert (e.value.status, e.value.body['error']) == (409, 'model') and store.accounts()[0]['queries'] == 1

def without_ending(box): return box.with_classes(NAMES, ending='')

def with_two_heads(box):
    attention = next(m for m in box._clip.modules() if isinstance(getattr(m, 'num_heads', None), int))
    attention.num_heads = 2
    return box

def with_other_colours(box):
    visual = box._clip.visual
    visual.preprocess_cfg = dict(visual.preprocess_cfg, mean=(.1, .2, .3))
    return box

@pytest.mark.parametrize('otherwise', [without_ending, with_two_heads, with_other_colours])
def test_same_weights_otherwise(otherwise, store, key, prompts):
    "The same weights, used otherwise, are another model"
    a = CLIPBlackBox('craft-mini', NAMES)
    b = otherwise(CLIPBlackBox('craft-mini', NAMES))
    assert a.fingerprint()['weights'] == b.fingerprint()['weights']
    assert model_id(a.fingerprint()) != model_id(b.fingerprint())
    with (serving(create_app(a, store)) as url,
          serving(create_app(b, store)) as elsewhere,
          RemoteBlackBox(url, key, NAMES) as box):
        images = box.upload(shots()[0])
        box.connection.http.base_url = elsewhere
        with pytest.raises(ValueError, match='another model is served'): box.query(prompts[:1], images)

# --- bodies that lie, and sets that go

def test_two_lengths(serve, key):
    "A body with content-length and with transfer-encoding passes no gauge: refused before it is read"
    with serve() as url:
        headers = *raw_headers(key, 'a'*8), 'Transfer-Encoding: chunked'
        with ask(url, 'images', 5, *headers, body=b'100000\r\n') as s: answer = s.recv(2000)
        assert b' 400 ' in answer.split(b'\r\n')[0], answer
        assert get(url + '/v1/ledger', headers=bearer(key)).json()['bytes_in'] == 0

def test_two_lengths_past_the_parser():
    "The same where the server's HTTP parser lets the pair through, as some do"
    async def stream(): yield bytes(2**20)
    request = SimpleNamespace(headers={'content-length': '5', 'transfer-encoding': 'chunked'}, stream=stream)
    async def take():
        async with receive_body(request, Limits(), MemoryBudget(2**30)): pass
    with pytest.raises(APIError) as e: asyncio.run(take())
    assert e.value.status == 400

def test_longer_than_promised():
    "A body is read no further than its head said"
    async def stream():
        for _ in range(10**6): yield bytes(1000)
    with pytest.raises(APIError) as e: asyncio.run(read_body(SimpleNamespace(stream=stream), Limits(), 5))
    assert e.value.status == 400

@pytest.mark.parametrize('when, status, paid', [('check_query', 404, 0), ('charge', 200, 1)])
def test_set_deleted_in_a_query(model, store, key, prompts, monkeypatch, when, status, paid):
    "Deleted before it is read: 404 and no charge. Deleted after: answered, and paid once"
    app = create_app(model, store)
    service = app.state.service
    with client_of(app, key) as c:
        id = send(c, '/v1/images', PICTURE).json()['id']
        true = getattr(service, when)
        def deleting(*args):
            result = true(*args)
            store.delete_set(1, id)
            return result
        monkeypatch.setattr(service, when, deleting)
        assert send(c, '/v1/query', question(prompts[:1], id)).status_code == status
    assert store.accounts()[0]['queries'] == paid

def test_set_replaced_in_a_query(model, store, key, prompts, monkeypatch):
    "Other pictures under the same id, between look and charge: not answered, not charged"
    app = create_app(model, store)
    service = app.state.service
    with client_of(app, key) as c:
        def upload(n):
            body = pack_message({str(i): grey(i) for i in range(n)})
            return c.post('/v1/images', content=body, headers=named('pictures')).json()['id']
        id = upload(1)
        true = service.check_query
        def replacing(*args):
            q = true(*args)
            store.delete_set(1, id)
            upload(3)
            return q
        monkeypatch.setattr(service, 'check_query', replacing)
        assert send(c, '/v1/query', question(prompts[:1], id)).status_code == 404
    assert store.accounts()[0]['queries'] == 0

# --- what is told

def test_logs(serve, store, path, key, prompts, caplog):
    "A line of JSON a request, with no key and no picture in it; nor are those in the store"
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    f = io.BytesIO()
    Image.fromarray(picture).save(f, 'PNG')
    with caplog.at_level(logging.INFO), serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        box.query(prompts[:3], box.upload([picture, Image.fromarray(picture)]))
        assert get(url + '/healthz').json() == dict(status='ok')
        assert 'craft_nb_queries_total 3.0' in get(url + '/metrics').text.splitlines()
        for _ in range(2): get(url + f'/v1/ledger?key={key}', headers=bearer(key + '!'))
    told = [r.getMessage() for r in caplog.records if r.name == 'craft_nb.service']
    lines = list(map(json.loads, told))
    routes = [l['route'] for l in lines if l['status'] == 200]
    assert routes == ['/v1/model', '/v1/images', '/v1/query', '/healthz', '/metrics']
    assert {tuple(l) for l in lines} == {('time', 'route', 'method', 'status', 'ms', 'account')}
    kept = ''.join(told).encode() + b''.join(p.read_bytes() for p in path.parent.iterdir())
    assert b'ann' in kept
    for secret in (key.encode(), picture.tobytes()[:32], f.getvalue()[60:90]): assert secret not in kept

def test_advise_at_a_service(serve, store, monkeypatch, capsys):
    "One query, and the account says so"
    key = store.add('ann', budget=3)
    with serve() as url:
        monkeypatch.setenv('CRAFT_NB_KEY', f'{key}@{url.removeprefix("http://")}')
        main(['fit', 'typefaces', '--shots', '2', '--advise', '--model', url])
    assert 'try ' in capsys.readouterr().out and store.accounts()[0]['queries'] == 1
