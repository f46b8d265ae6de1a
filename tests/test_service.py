"The service under strain: many clients, a bad line, kill -9 on either side, nonsense. The ledger stays exact, and a run the same, bit for bit."
import asyncio, io, json, logging, secrets, socket, sqlite3, threading, time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
import httpx, numpy as np, pytest, torch
from PIL import Image
from faults import FAULTS, FIT, NAMES, PLENTY, Line, Owner, equal, killing, ledger, shots, use_and_kill
from fuzz import Flood, bodies, operations, picture_files, pictures, query_of, send, small, upload_of
from starlette.testclient import TestClient
from craft_nb.blackbox import BudgetExceeded, digest
from craft_nb.cli import main
from craft_nb.clip import CLIPBlackBox
from craft_nb.collab import CraFT
from craft_nb.remote import HEADER, RemoteBlackBox, _pieces, model_id, pack
from craft_nb.service import SCHEMA, Limits, Policy, Refused, Room, Service, Store, create_app, read_body, received, serving

@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads(); torch.set_num_threads(1); yield; torch.set_num_threads(n)

@pytest.fixture(scope='module')
def model(): return CLIPBlackBox('craft-mini', NAMES)

@pytest.fixture(scope='module')
def prompts(model): # (10, 4, 256)
    p0 = model.embed('a photo of a')
    return p0 + .02*torch.randn(10, *p0.shape, generator=torch.Generator().manual_seed(0))

@pytest.fixture
def path(tmp_path): return tmp_path/'store.db'

@pytest.fixture
def store(path): s = Store(path); yield s; s.close()

@pytest.fixture
def key(store): return store.add('ann')

@pytest.fixture
def serve(model, store):
    "serve(open=2, ...): a running server -> url, in a `with`"
    return lambda **limits: serving(create_app(model, store, Limits(**PLENTY | limits)))

def fit(box, budget): return CraFT(box, budget=budget, **FIT).fit(*shots())

@pytest.fixture(scope='module')
def local():
    torch.set_num_threads(1)
    return {b: fit(CLIPBlackBox('craft-mini', NAMES), b) for b in (77, 330)}

# --- other texts

@pytest.mark.parametrize('n', [4, 0])
def test_asking(serve, key, model, prompts, n):
    "Other texts over HTTP, behind a prompt or as whole sentences: the local answers, on the same account and pictures"
    near, texts, p = model.for_classes(NAMES), ['tench', 'a red violin'], prompts[:1, :n]
    with serve() as url, RemoteBlackBox(url, key, NAMES) as far:
        a, b = [box.asking(texts).query(p, box.upload(shots()[0][:3])) for box in (near, far)]
        assert b.shape == (1, 3, 2) and torch.allclose(a, b, atol=1e-4)
        assert (far.ledger.queries, far.ledger.texts, far.ledger.images) == (1, 2, 3) and far.classnames == NAMES

# --- accounts

def test_budget_under_32_clients(serve, store, prompts):
    "1,000 queries left, and 32 clients that want all of them: 1,000 are answered"
    key = store.add('shared', 1000)
    def spend(url):
        with RemoteBlackBox(url, key, NAMES) as box:
            images, n = box.upload(shots()[0][:2]), 0
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
    with serve() as url, RemoteBlackBox(url, key, NAMES) as ann, RemoteBlackBox(url, store.add('bob'), NAMES) as bob:
        hers = ann.upload(shots()[0])
        bob._store[hers.id] = known = ann._store[hers.id]
        with pytest.raises(KeyError, match=f'unknown image set {known[0]}'): bob.query(prompts[:1], hers)
        bob.forget(hers)
        ann.key = bob.key = 'one and the same'
        assert len(ann.query(prompts[:3], hers)) == 3 and len(bob.query(prompts[:2], bob.upload(shots()[0]))) == 2
        assert [b.account()['queries'] for b in (ann, bob)] == [3, 2] and bob.account()['name'] == 'bob'

def test_revoked(serve, store, key, prompts):
    "A revoked key and a wrong one open nothing, from one request to the next"
    with serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        store.revoke('ann')
        with pytest.raises(PermissionError, match='revoked'): box.query(prompts, images)
        with pytest.raises(PermissionError, match='wrong'): RemoteBlackBox(url, key[:-1] + 'AB'[key[-1] == 'A'], NAMES)
    assert store.accounts()[0]['queries'] == 0

def test_restart(model, path, prompts):
    "A second server on the same file knows the same ledger and the same image sets"
    first = Store(path); key = first.add('ann')
    with serving(create_app(model, first)) as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        a, known = box.query(prompts, images), box._store
    before = first.accounts(); first.close(); second = Store(path)
    assert second.accounts() == before and before[0]['queries'] == 10
    with serving(create_app(model, second)) as url, RemoteBlackBox(url, key, NAMES) as box:
        box._store = known
        b = box.query(prompts, images)
    assert torch.equal(a, b) and second.accounts()[0]['queries'] == 20
    second.close()

# --- bad lines and kill -9

def test_bad_line(path, key, local):
    "Answers that are dropped or cut, requests that come twice, late, or by half: the same run, and each query paid once"
    with Owner(path) as owner, Line(owner.url) as line, RemoteBlackBox(line.url, key, NAMES, timeout=.3) as box:
        clf = fit(box, 77)
        time.sleep(.7)                                                  # what is late has arrived
        assert set(line.seen) == set(FAULTS) and ledger(path) == box.ledger.queries == 77 and ledger(path, 'images') == 4
        clf.box = CLIPBlackBox('craft-mini', NAMES)
        assert equal(clf, local[77])

def test_killed_server(path, key, local):
    "kill -9 of the server, 20 times in a run"
    with Owner(path) as owner, RemoteBlackBox(owner.url, key, NAMES) as box:
        with killing(owner, box, 20, of=60): clf = fit(box, 330)
        assert owner.kills == 20 and ledger(path) == box.ledger.queries == 330
        assert equal(clf, local[330])

def test_killed_client(path, key, local, tmp_path):
    "kill -9 of the client, 20 times in a run that goes on from its checkpoint"
    with Owner(path) as owner: assert use_and_kill(owner, path, key, tmp_path, 330, 20) == 20
    assert ledger(path) == 330 and ledger(path, 'images') == 4
    assert equal(CraFT.load(tmp_path, CLIPBlackBox('craft-mini', NAMES)), local[330])

# --- too much, too large, too slow

def ask(url, head, body=b''):
    "A raw request, to be finished by the caller"
    s = socket.create_connection((httpx.URL(url).host, httpx.URL(url).port), timeout=20)
    s.sendall(head.encode() + b'\r\n\r\n' + body)
    return s

def slow(url, key): return ask(url, f'POST /v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: {secrets.token_hex(8)}\r\nContent-Length: 90000', b'a')

def until(ask, good, seconds=10):
    "The first good answer"
    end = time.monotonic() + seconds
    while not good(r := ask()) and time.monotonic() < end: time.sleep(.05)
    assert good(r); return r

@pytest.mark.parametrize('limits', [dict(open=2), dict(held=200_000)])
def test_back_pressure(serve, key, prompts, limits):
    "Two requests that stand still take all places, or all memory: others are told to come again, and get through once those are gone"
    with serve(**limits) as url, RemoteBlackBox(url, key, NAMES, patience=20) as box, ThreadPoolExecutor(1) as ex, httpx.Client(base_url=url, headers={'Authorization': f'Bearer {key}'}) as c:
        images, still = box.upload(torch.zeros(1, 9, 9, 3, dtype=torch.uint8).numpy()), [slow(url, key) for _ in range(2)]
        until(lambda: httpx.get(url + '/metrics').text, lambda text: 'craft_nb_held_bytes 180000.0' in text)      # both have arrived
        r = until(lambda: send(c, '/v1/query', bytes(21_000)), lambda r: r.status_code == 429)
        assert r.json()['error'] == 'busy' and int(r.headers['Retry-After']) >= 1
        answer = ex.submit(box.query, prompts, images)
        time.sleep(.3); waits = not answer.done()
        for s in still: s.close()
        assert waits and len(answer.result(20)) == box.account()['queries'] == 10

def test_rate(serve, key):
    "More requests than the rate allows: 429, and a client that waits gets all it asks for"
    with serve(rate=5, burst=3) as url, RemoteBlackBox(url, key, NAMES) as box:
        assert 429 in [httpx.get(url + '/v1/ledger', headers={'Authorization': f'Bearer {key}'}).status_code for _ in range(4)]
        assert [box.account()['queries'] for _ in range(3)] == [0]*3

def test_large_body(serve, key, prompts):
    "A body over the limit is refused, whether it says its length or not, and paid for by nobody"
    with serve(body=5000) as url, RemoteBlackBox(url, key, NAMES) as box:
        head = {'Authorization': f'Bearer {key}', 'Idempotency-Key': 'a'*8}
        for body, status in ((bytes(6000), 413), (iter([bytes(3000)]*2), 411)): assert httpx.post(url + '/v1/query', headers=head, content=body).status_code == status
        with pytest.raises(ValueError, match='5000 bytes'): box._logits(prompts, ('any', 4))
        assert box.account()['queries'] == 0

def test_slow_body(serve, key):
    "A body that does not arrive is given up, and its place is free again"
    with serve(patience=.3, open=1) as url:
        assert b' 408 ' in slow(url, key).recv(100)
        assert httpx.get(url + '/healthz').status_code == 200

# --- nonsense

@pytest.fixture
def client(model, store, key):
    with TestClient(create_app(model, store, Limits(**PLENTY)), raise_server_exceptions=False, headers={'Authorization': f'Bearer {key}'}) as c: yield c

def check(flood):
    assert not flood.broken and flood.sent >= 300 and flood.growth < 100, (flood.statuses, flood.growth)

def test_nonsense_query(client, prompts):
    "300 bodies of queries: mutated, of any types and shapes, garbage"
    id = send(client, '/v1/images', pack({'0': torch.zeros(9, 9, 3, dtype=torch.uint8)})).json()['id']
    good = query_of(prompts[0], id)
    assert send(client, '/v1/query', small(good)).status_code == 200
    check(Flood(lambda b: send(client, '/v1/query', b).status_code, bodies([good], id), 300))

def test_nonsense_upload(client):
    "300 bodies of uploads, the same way"
    check(Flood(lambda b: send(client, '/v1/images', b).status_code, bodies([upload_of(*picture_files()[::3])], ''), 300))

def test_nonsense_pictures(client):
    "300 damaged PNG, JPEG, GIF, WebP and BMP files; the whole ones are taken"
    assert send(client, '/v1/images', small(upload_of(*picture_files()))).json()['n'] == len(picture_files())
    check(Flood(lambda b: send(client, '/v1/images', b).status_code, pictures(picture_files()), 300))

def test_schema(client):
    "300 requests that schemathesis draws from the OpenAPI page, good and bad"
    check(Flood(lambda case: case.call(headers=dict(client.headers)).status_code, operations(client.app), 300))

@pytest.mark.parametrize('shape', [(1, 1), (1, 2000), (2000, 1), (3, 5000)])
def test_thin_pictures(client, shape):
    "A picture a pixel high or wide is a picture, or is refused"
    assert send(client, '/v1/images', pack({'0': torch.zeros(*shape, 3, dtype=torch.uint8)})).status_code in (200, 413, 422)

def test_bombs(client):
    "A small file of a huge picture and a small body of a huge message are refused before they unfold"
    for n in (9000, 20000):
        f = io.BytesIO(); Image.new('1', (n, n)).save(f, 'PNG')
        assert send(client, '/v1/images', small(upload_of(f.getvalue()))).status_code in (413, 422)
    assert send(client, '/v1/query', pack({'prompts': torch.zeros(1, 2**25)})).status_code == 422

# --- what would be free of charge

def test_key_reused(client, store, prompts):
    "Under a key that was paid, the same bytes as more candidates, or other pictures under the old id: refused, not answered for nothing"
    upload = lambda v: client.post('/v1/images', content=pack({'0': torch.full((9, 9, 3), v, dtype=torch.uint8)}), headers={'Idempotency-Key': 'pictures'})
    ask = lambda p: client.post('/v1/query', content=pack({'prompts': p}, images=id, classnames=NAMES), headers={'Idempotency-Key': 'question'}).status_code
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
        head = f'POST /v1/{route} HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {"a"*8}\r\nContent-Type: application/json\r\nContent-Length: 90000'
        with ask(url, head, b'{') as s: assert b' 401 ' in s.recv(100)

def test_unread_answer(model, store, key, prompts):
    "An answer that nobody reads is given up, and its memory is free again"
    app = create_app(model, store, Limits(**PLENTY, reading=.3)); room = app.state.service.room
    with serving(app) as url, RemoteBlackBox(url, key, [f'{i}' for i in range(600)]) as box:
        id, _ = box._store[box.upload(list(np.zeros((400, 9, 9, 3), np.uint8))).id]
        body = pack({'prompts': prompts[:8]}, images=id, classnames=box.classnames)
        with ask(url, f'POST /v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: question\r\nContent-Length: {len(body)}', body):
            until(lambda: room.used, lambda n: n > 2**22)
            until(lambda: room.used, lambda n: n == 0, 30)

# --- what an account gets

def query(box, images, names, p): return box.asking(names).query(p, images)
MANY = [f'thing {i}' for i in range(12)]

def test_policy_answers(serve, store, key, prompts):
    "Rounded, cut and turned into probabilities for one account, exact for the other; each is told what it gets"
    poor = store.add('bob', policy=Policy(top_k=3, decimals=2, probabilities=True))
    with serve() as url, RemoteBlackBox(url, key, MANY) as full, RemoteBlackBox(url, poor, MANY) as part:
        assert full.policy == {} and part.policy == dict(top_k=3, decimals=2, probabilities=True)
        Y, Z = (b.query(prompts[:2], b.upload(shots()[0])) for b in (full, part))
        id = next(iter(part._store.values()))[0]
        body = pack({'prompts': prompts[:2]}, images=id, classnames=MANY)
        raw = torch.cat([o['logits'] for o in part._ask('POST', '/v1/query', _pieces, content=body, headers={'Idempotency-Key': 'as it came'})]).view_as(Y)
    seen, top = ~raw.isnan(), Y.softmax(-1).topk(3)
    assert (seen.sum(-1) == 3).all() and seen.gather(-1, top.indices).all()
    assert torch.allclose(raw.gather(-1, top.indices), (100*top.values).round()/100, atol=1e-6)
    assert Z.isfinite().all() and torch.equal(Z.argmax(-1), raw.nan_to_num(-1).argmax(-1))

def test_policy_caps(serve, store, prompts):
    "A query of too many names, or of too many new texts, is refused and costs nothing; texts that were asked before may be asked again"
    key = store.add('ann', policy=Policy(texts=5, distinct=8))
    with serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        assert box.model['max_classes'] == 5
        with pytest.raises(ValueError, match='6 class names, and this account may send 5'): query(box, images, MANY[:6], prompts[:1])
        query(box, images, MANY[:5], prompts[:1])
        with pytest.raises(PermissionError, match='8 different texts scored, has had 5, and asks for 5 new'): query(box, images, MANY[:5], prompts[1:2])
        query(box, images, MANY[2:5], prompts[:1]); query(box, images, MANY[3:8], prompts[:1])
        with pytest.raises(PermissionError, match='another prompt'): query(box, images, MANY[8:9], prompts[:1])
        assert box.account()['queries'] == 3
    r, = store.access_report()
    assert (r['texts'], r['directions'], r['answers'], r['images']) == ('8', '8 of 256', 4*(5 + 3 + 5), 4)

def test_policy_caps_together(serve, store, prompts):
    "Sixteen clients of one account cannot get past its texts"
    key = store.add('ann', policy=Policy(distinct=20))
    def ask(i):
        with RemoteBlackBox(url, key, NAMES) as box:
            try: query(box, box.upload(shots()[0][:1]), [f'{i}', f'{i} again', f'{i} and again'], prompts[:1]); return 1
            except PermissionError: return 0
    with serve() as url, ThreadPoolExecutor(16) as ex: assert sum(ex.map(ask, range(16))) == 6
    assert store.distinct(1) == 18 and store.accounts()[0]['queries'] == 6

def test_policy_noise(model, path, prompts):
    "Asked again, after a restart: the same noise; another account, store or prompt: other noise"
    def answers(path, name, p, known={}):
        s = Store(path)
        key = known.get((path, name)) or s.add(name, policy=Policy(noise=1.))
        known[path, name] = key
        with serving(create_app(model, s, Limits(**PLENTY))) as url, RemoteBlackBox(url, key, MANY) as box:
            images = box.upload(shots()[0]); Y = [box.query(p, images) for _ in range(2)]
        s.close()
        assert torch.equal(*Y)
        return Y[0]
    clean = model.asking(MANY).query(prompts[:2], model.upload(shots()[0]))
    a, b = answers(path, 'ann', prompts[:2]), answers(path, 'ann', prompts[:2])
    others = answers(path, 'bob', prompts[:2]), answers(path.with_suffix('.2'), 'ann', prompts[:2]), answers(path, 'ann', prompts[:2] + 1e-6)
    assert torch.equal(a, b) and .8 < (a - clean).std() < 1.2
    for o in others: assert abs(float(torch.corrcoef(torch.stack([(a - clean).flatten(), (o - clean).flatten()]))[0, 1])) < .4

def test_policy_changes(serve, store, key, prompts):
    "A new policy holds from the next request on; a client that comes anew is told"
    with serve() as url, RemoteBlackBox(url, key, MANY) as box:
        images = box.upload(shots()[0]); box.query(prompts[:1], images)
        store.limit('ann', texts=3)
        with pytest.raises(ValueError, match='12 class names'): box.query(prompts[:1], images)
        with RemoteBlackBox(url, key, MANY) as again: assert again.policy == dict(texts=3)
    with pytest.raises(ValueError, match='no account'): store.limit('nobody', texts=3)

def test_old_store(model, path, prompts):
    "A file from before there were policies is served, its ledger as it was"
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA.split('create table if not exists texts')[0])
        db.execute('insert into accounts (name, key, budget, price, queries) values (?, ?, 50, 0, 7)', ('ann', digest('craft_old')))
    db.close(); store = Store(path)
    with serving(create_app(model, store)) as url, RemoteBlackBox(url, 'craft_old', NAMES) as box:
        box.query(prompts[:3], box.upload(shots()[0]))
        assert box.account()['queries'] == 10 and box.policy == {}
    assert store.access_report()[0]['directions'] == '6 of 256'
    store.close()

# --- noise that nobody can take the mean of

def answered(box, names, p, pictures): return box.asking(names).query(p, box.upload(pictures))[0]

def test_names_that_are_repeated(client, store, model, prompts):
    "One name a thousand times in one query, or in capitals: refused, and not charged"
    id = send(client, '/v1/images', pack({'0': torch.zeros(9, 9, 3, dtype=torch.uint8)})).json()['id']
    for names in (['cat']*1000, ['cat', 'dog', 'Cat'], ['cat', ' cat']):
        r = send(client, '/v1/query', pack({'prompts': prompts[:1]}, images=id, classnames=names))
        assert r.status_code == 422 and 'say the same to the model' in r.json()['message']
    assert store.accounts()[0]['queries'] == 0

def test_repeated_names_of_a_client(serve, key, model, prompts):
    "A list that has a name twice, as ImageNet's, is answered as by the local box"
    names = ['missile', 'cat', 'missile']
    with serve() as url, RemoteBlackBox(url, key, names) as far:
        near = model.for_classes(names)
        assert torch.allclose(*[box.query(prompts[:2], box.upload(shots()[0])) for box in (near, far)], atol=1e-4)
        assert far.model['max_classes'] and far.account()['queries'] == 2

def test_noise_of_a_picture(serve, store, prompts):
    "The same picture in another set, place or file, the same text among others: the same noise, so that two hundred answers say no more than one"
    key, (pics, _) = store.add('ann', policy=Policy(noise=1.)), shots()
    a, b = np.asarray(pics[0]), np.asarray(pics[1])
    f = io.BytesIO(); Image.fromarray(a).save(f, 'PNG')
    with serve() as url, RemoteBlackBox(url, key, MANY) as box:
        alone = answered(box, MANY[:1], prompts[:1], [a])
        among = answered(box, [*MANY[5:], MANY[0]], prompts[:1], [b, Image.open(f), a])
        many = answered(box, MANY[:1], prompts[:1], [a]*200)
        assert torch.allclose(among[1:, -1:], alone.expand(2, 1), atol=1e-4) and torch.allclose(many, alone.expand(200, 1), atol=1e-4)
        clean = answered(CLIPBlackBox('craft-mini', MANY[:1]), MANY[:1], prompts[:1], [a])
        assert abs(many.mean() - clean) > .5*abs(alone - clean)          # the mean is no nearer to the truth than one answer

def test_text_behind_its_end():
    "A name cannot write the end itself, so that the rest is not read: its underscores are spaces, and the words are read as words"
    box = CLIPBlackBox('craft-mini', [f'cat. <end_of_text>{i}' for i in range(9)])
    ended = box._tokens == box._tokenizer.eot_token_id
    assert (ended.sum(1) == 1).all() and len(box._tokens.unique(dim=0)) == 9

def test_names_that_say_the_same(client, store, prompts):
    "Capitals, spaces and underscores make no other text"
    id = send(client, '/v1/images', pack({'0': torch.zeros(9, 9, 3, dtype=torch.uint8)})).json()['id']
    for names in (['ankle boot', 'ankle_boot'], ['cat', 'Cat ']):
        assert send(client, '/v1/query', pack({'prompts': prompts[:1]}, images=id, classnames=names)).status_code == 422
    assert store.accounts()[0]['queries'] == 0

@pytest.mark.parametrize('policy', [dict(noise=5.), dict(noise=5., probabilities=True), dict(decimals=1)])
def test_noise_under_another_length(serve, store, prompts, policy):
    "Features that are not normalised have the same policy on the same numbers: the difference of two uploads tells nothing"
    key, (pics, _) = store.add('ann', policy=Policy(**policy)), shots()
    with serve() as url, RemoteBlackBox(url, key, MANY) as box:
        a, b = (answered(box, MANY, prompts[:1], pics) if n else box.query(prompts[:1], box.upload(pics, normalize=False))[0] for n in (True, False))
    ratio = (b/a).nanmedian(-1, keepdim=True).values
    assert torch.allclose(b, a*ratio, atol=1e-3) if not policy.get('probabilities') else torch.allclose(a, b, atol=1e-4)

# --- limits of an account, and its key

def test_limits_are_merged(path, capsys):
    "`keys limit` changes what it names and nothing else; a limit is taken away by name; a key is put in another's place"
    def keys(words): capsys.readouterr(); main(['serve', 'keys', *words.split(), '--store', str(path)]); return capsys.readouterr()
    old = keys('add ann --budget 500 --price 0.002 --top-k 5 --noise 1').out.strip()
    said = keys('limit ann --budget 9000').out
    assert 'before: budget=500 price=0.002 top_k=5 noise=1.0' in said and 'now:    budget=9000 price=0.002 top_k=5 noise=1.0' in said
    assert 'now:    budget=9000 price=0.002 top_k=5 decimals=2' in keys('limit ann --decimals 2 --remove noise').out
    assert 'now:    budget=none price=0.002 top_k=5 decimals=2' in keys('limit ann --remove budget').out
    assert 'now:    budget=none price=0.002 top_k=5 decimals=2' in keys('limit ann').out
    for bad in ('limit ann --top-k 0', 'limit ann --remove top', 'limit ann --budget 5 --remove budget', 'limit bob --budget 5'):
        with pytest.raises(SystemExit): keys(bad)
    new = keys('rotate ann').out.strip()
    s = Store(path)
    assert s.find(old) is None and s.find(new)['name'] == 'ann' and s.limits_of('ann') == dict(budget=None, price=.002, top_k=5, decimals=2)
    s.close()

def test_limits_of_limits(path, store, key):
    "What would fail after the charge is refused before; a revoked account gets no key; texts that were asked may be asked again"
    for bad in (dict(decimals=39), dict(noise=1e39), dict(price=float('nan')), dict(budget=-1)):
        with pytest.raises(ValueError): store.limit('ann', **bad)
    store.charge(1, 'question', 'digest', 1, range(10))
    store.limit('ann', distinct=5)
    assert store.charge(1, 'again', 'digest', 1, range(3), 5)
    store.revoke('ann')
    with pytest.raises(ValueError, match='is revoked'): store.rotate('ann')

def test_raised_budget(serve, store, prompts):
    "An account at its end goes on when its budget is raised; lowered below what is spent, nothing is left"
    key = store.add('ann', 2)
    with serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0]); box.query(prompts[:2], images)
        with pytest.raises(BudgetExceeded): box.query(prompts[:1], images)
        store.limit('ann', budget=5); box.query(prompts[:1], images)
        store.limit('ann', budget=1)
        assert box.account()['left'] == 0 == box.left()
        with pytest.raises(BudgetExceeded, match='0 left'): box.query(prompts[:1], images)

# --- a key belongs to a host

@pytest.fixture
def thief():
    "A server on this machine that writes down what it is sent -> (url, heads)"
    heads = []
    class Takes(BaseHTTPRequestHandler):
        def do_GET(self): heads.append(dict(self.headers)); self.send_response(404); self.end_headers()
        do_POST = do_GET
        def log_message(self, *_): pass
    with HTTPServer(('127.0.0.1', 0), Takes) as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{s.server_port}', heads
        s.shutdown()

@pytest.fixture
def gift(thief, model, tmp_path, monkeypatch):
    "A classifier and a run from somebody else, that name the thief's service"
    monkeypatch.chdir(tmp_path)
    CraFT(model, budget=11, **FIT).fit(*shots()).save('gift')
    info = json.loads((tmp_path/'gift/classifier.json').read_text())
    (tmp_path/'gift/classifier.json').write_text(json.dumps(info | dict(box=dict(model=thief[0], pretrained=None))))
    for i, (p, k) in enumerate(zip(*shots())):
        (tmp_path/f'pictures/{k}').mkdir(parents=True, exist_ok=True)
        p.save(f'pictures/{k}/{i}.png')
    main('fit pictures --shots 1 --budget 41 --methods craft --out gift/run --quiet'.split())
    command = json.loads((tmp_path/'gift/run/command.json').read_text())
    (tmp_path/'gift/run/command.json').write_text(json.dumps(command | dict(model=thief[0])))
    report = json.loads((tmp_path/'gift/run/report.json').read_text())
    (tmp_path/'gift/run/report.json').write_text(json.dumps(report | dict(model=[thief[0], None], runs=[])))
    return thief

@pytest.mark.parametrize('words', ['predict gift pictures', 'fit --resume gift/run --quiet'])
def test_address_in_a_file(gift, monkeypatch, capsys, words):
    "Nothing goes to the address that a file names until the user agrees; and then no key that is another host's"
    url, heads = gift
    monkeypatch.setenv('CRAFT_NB_KEY', 'craft_secret@models.example.org')
    with pytest.raises(SystemExit, match='nothing was sent: say --yes'): main(words.split())
    assert url in capsys.readouterr().err and not heads
    with pytest.raises(SystemExit, match='no key for 127.0.0.1'): main([*words.split(), '--yes'])
    assert not heads
    monkeypatch.setenv('CRAFT_NB_KEY', 'craft_secret')
    with pytest.raises(SystemExit, match='name no host'): main([*words.split(), '--yes'])
    assert not heads
    monkeypatch.setenv('CRAFT_NB_KEY', f'craft_secret@models.example.org craft_theirs@{url[7:]}')
    with pytest.raises((SystemExit, KeyError)): main([*words.split(), '--yes'])
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
    path, info = Path('gift/classifier.json'), json.loads(Path('gift/classifier.json').read_text())
    for box, says in ((dict(pretrained=url, model='craft-mini'), 'weights of its own'), (dict(x=url, model='craft-mini', pretrained=None), 'is of another method'), (dict(model=[url], pretrained=None), 'expected a name'), ([url, None], 'is of another method')):
        path.write_text(json.dumps(info | dict(box=box)))
        with pytest.raises(SystemExit, match=says): main('predict gift pictures'.split())
    assert not heads

def test_no_proxy(gift, monkeypatch):
    "What goes to this machine in the clear goes past no proxy"
    url, heads = gift
    for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'): monkeypatch.setenv(name, url)
    with pytest.raises(ConnectionError): RemoteBlackBox('http://127.0.0.1:9', 'craft_secret', NAMES, patience=.1)
    assert not heads

@pytest.mark.parametrize('text', ['craft_other@models.example.org,craft_theirs@HOST', 'craft_other@models.example.org craft_theirs@HOST', 'craft_theirs@HOST;craft_other'])
def test_several_keys(gift, text):
    "Of several keys, given in any way, the host's own is sent, or none"
    url, heads = gift
    with pytest.raises((KeyError, PermissionError)): RemoteBlackBox(url, text.replace('HOST', url[7:]), NAMES)
    assert not [h for h in heads if 'other' in h['Authorization']]

@pytest.mark.parametrize('url', ['http://192.0.2.1:8000', 'http://models.example.org', 'http://127.0.0.1.example.org'])
def test_plain_http(url, tmp_path, monkeypatch):
    "Plain http beyond this machine is for those who ask for it; the address is refused before it is called"
    with pytest.raises(ValueError, match='is plain http'): RemoteBlackBox(url, 'craft_any', NAMES, patience=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='is plain http'): main(f'fit digits --shots 1 --model {url} --out run'.split())

# --- another model behind the same address

@pytest.fixture(scope='module')
def other(): return CLIPBlackBox('craft-mini-vit', NAMES)

def raw(url, key, body, name, **headers):
    return httpx.post(url + '/v1/query', content=body, headers={'Authorization': f'Bearer {key}', 'Idempotency-Key': name, **headers})

def test_other_model(model, other, store, key, prompts):
    "Features of one model are never met by texts of another: 409, not charged, in words; each answer says whose it is"
    with serving(create_app(model, store)) as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0]); box.query(prompts[:1], images)
        id, _ = box._store[images.id]
        body = pack({'prompts': prompts[:1]}, images=id, classnames=NAMES)
        first = raw(url, key, body, 'question 1')
        assert first.status_code == 200 and first.headers[HEADER] == model_id(model.fingerprint())
    with serving(create_app(other, store)) as url:
        for headers in ({}, {HEADER: model_id(model.fingerprint())}):
            for name in ('question 1', 'question 2'):
                r = raw(url, key, body, name, **headers)
                assert (r.status_code, r.json()['error']) == (409, 'model') and 'upload the pictures again' in r.json()['message']
        assert store.accounts()[0]['queries'] == 2
        with RemoteBlackBox(url, key, NAMES) as new:
            new._store[images.id] = box._store[images.id]
            with pytest.raises(ValueError, match='another model was served'): new.query(prompts[:1], images)
            fresh = new.upload(shots()[0])
            assert torch.allclose(new.query(prompts[:1], fresh), other.query(prompts[:1], other.upload(shots()[0])), atol=1e-4)

def test_other_model_under_a_client(model, other, store, key, prompts):
    "The model is changed while a client is at work: its next question is refused, and an answer without the right name is not used"
    with serving(create_app(model, store)) as url, RemoteBlackBox(url, key, NAMES) as box:
        images = box.upload(shots()[0])
        with serving(create_app(other, store)) as elsewhere:
            box._http.base_url = elsewhere
            with pytest.raises(ValueError, match='another model is served'): box.query(prompts[:1], images)
            with pytest.raises(ValueError, match='another model is served'): box.upload(shots()[0])
            with pytest.raises(ValueError, match='serves another model'): box.account()
        box._http.base_url = url
        assert box.account()['queries'] == 0

def test_paid_by_another_model(model, other, store, key, prompts):
    "A request that the old model was paid for is not answered by the new one"
    a, b = (Service(box, store, Limits()) for box in (model, other))
    ann = store.find(key)
    picture = pack({'0': torch.zeros(9, 9, 3, dtype=torch.uint8)})
    body = lambda up: pack({'prompts': prompts[:1]}, images=up.id, classnames=NAMES)
    question = body(a.upload(ann, picture, 0, 'pictures'))
    list(a.query(ann, question, 'question'))
    store.drop(ann['id'], b.upload(ann, picture, 0, 'others').id)
    with pytest.raises(Refused) as e: b.upload(ann, picture, 0, 'pictures')
    assert e.value.status == 409
    with pytest.raises(Refused) as e: list(b.query(ann, body(b.upload(ann, picture, 0, 'anew')), 'question'))
    assert (e.value.status, e.value.body['error']) == (409, 'model') and store.accounts()[0]['queries'] == 1

@pytest.mark.parametrize('change', ['ending', 'heads', 'colours'])
def test_same_weights_otherwise(change, store, key, prompts):
    "The same weights, used otherwise, are another model"
    a, b = (CLIPBlackBox('craft-mini', NAMES) for _ in range(2))
    if change == 'ending': b = b.for_classes(NAMES, ending='')
    if change == 'heads': next(m for m in b._clip.modules() if isinstance(getattr(m, 'num_heads', None), int)).num_heads = 2
    if change == 'colours': b._clip.visual.preprocess_cfg = dict(b._clip.visual.preprocess_cfg, mean=(.1, .2, .3))
    assert a.fingerprint()['weights'] == b.fingerprint()['weights'] and model_id(a.fingerprint()) != model_id(b.fingerprint())
    with serving(create_app(a, store)) as url, RemoteBlackBox(url, key, NAMES) as box, serving(create_app(b, store)) as elsewhere:
        images = box.upload(shots()[0])
        box._http.base_url = elsewhere
        with pytest.raises(ValueError, match='another model is served'): box.query(prompts[:1], images)

# --- bodies that lie, and sets that go

def test_two_lengths(serve, key):
    "A body with content-length and with transfer-encoding passes no gauge: refused before it is read"
    with serve() as url:
        head = f'POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nIdempotency-Key: {"a"*8}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked'
        with ask(url, head, b'100000\r\n') as s:
            answer = s.recv(2000)
            assert b' 400 ' in answer.split(b'\r\n')[0], answer
        assert httpx.get(url + '/v1/ledger', headers={'Authorization': f'Bearer {key}'}).json()['bytes_in'] == 0

def test_two_lengths_past_the_parser():
    "The same where the server's HTTP parser lets the pair through, as some do"
    async def stream(): yield bytes(2**20)
    async def take():
        async with received(SimpleNamespace(headers={'content-length': '5', 'transfer-encoding': 'chunked'}, stream=stream), Limits(), Room(2**30)): pass
    with pytest.raises(Refused) as e: asyncio.run(take())
    assert e.value.status == 400

def test_longer_than_promised():
    "A body is read no further than its head said"
    async def stream():
        for _ in range(10**6): yield bytes(1000)
    with pytest.raises(Refused) as e: asyncio.run(read_body(SimpleNamespace(stream=stream), Limits(), 5))
    assert e.value.status == 400

@pytest.mark.parametrize('when, status, paid', [('question', 404, 0), ('pay', 200, 1)])
def test_set_deleted_in_a_query(model, store, key, prompts, monkeypatch, when, status, paid):
    "Deleted before it is read: 404 and no charge. Deleted after: answered, and paid once"
    app = create_app(model, store); service = app.state.service
    with TestClient(app, raise_server_exceptions=False, headers={'Authorization': f'Bearer {key}'}) as c:
        id = send(c, '/v1/images', pack({'0': torch.zeros(9, 9, 3, dtype=torch.uint8)})).json()['id']
        true = getattr(service, when)
        def deleting(*args):
            result = true(*args)
            store.drop(1, id)
            return result
        monkeypatch.setattr(service, when, deleting)
        assert send(c, '/v1/query', pack({'prompts': prompts[:1]}, images=id, classnames=NAMES)).status_code == status
    assert store.accounts()[0]['queries'] == paid

def test_set_replaced_in_a_query(model, store, key, prompts, monkeypatch):
    "Other pictures under the same id, between look and charge: not answered, not charged"
    app = create_app(model, store); service = app.state.service
    with TestClient(app, raise_server_exceptions=False, headers={'Authorization': f'Bearer {key}'}) as c:
        upload = lambda n: c.post('/v1/images', content=pack({str(i): torch.full((9, 9, 3), i, dtype=torch.uint8) for i in range(n)}), headers={'Idempotency-Key': 'pictures'}).json()['id']
        id, true = upload(1), service.question
        def replacing(*args):
            q = true(*args)
            store.drop(1, id); upload(3)
            return q
        monkeypatch.setattr(service, 'question', replacing)
        assert send(c, '/v1/query', pack({'prompts': prompts[:1]}, images=id, classnames=NAMES)).status_code == 404
    assert store.accounts()[0]['queries'] == 0

# --- what is told

def test_logs(serve, store, path, key, prompts, caplog):
    "A line of JSON a request, with no key and no picture in it; nor are those in the store"
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    f = io.BytesIO(); Image.fromarray(picture).save(f, 'PNG')
    with caplog.at_level(logging.INFO), serve() as url, RemoteBlackBox(url, key, NAMES) as box:
        box.query(prompts[:3], box.upload([picture, Image.fromarray(picture)]))
        assert httpx.get(url + '/healthz').json() == dict(status='ok')
        assert 'craft_nb_queries_total 3.0' in httpx.get(url + '/metrics').text.splitlines()
        for _ in range(2): httpx.get(url + f'/v1/ledger?key={key}', headers={'Authorization': f'Bearer {key}!'})
    told = [r.getMessage() for r in caplog.records if r.name == 'craft_nb.service']
    lines = list(map(json.loads, told))
    assert [l['route'] for l in lines if l['status'] == 200] == ['/v1/model', '/v1/images', '/v1/query', '/healthz', '/metrics']
    assert {tuple(l) for l in lines} == {('time', 'route', 'method', 'status', 'ms', 'account')}
    kept = ''.join(told).encode() + b''.join(p.read_bytes() for p in path.parent.iterdir())
    assert b'ann' in kept and key.encode() not in kept and picture.tobytes()[:32] not in kept and f.getvalue()[60:90] not in kept

def test_advise_at_a_service(serve, store, monkeypatch, capsys):
    "One query, and the account says so"
    key = store.add('ann', budget=3)
    with serve() as url:
        monkeypatch.setenv('CRAFT_NB_KEY', f'{key}@{url.removeprefix("http://")}')
        main(['fit', 'typefaces', '--shots', '2', '--advise', '--model', url])
    assert 'try ' in capsys.readouterr().out and store.accounts()[0]['queries'] == 1
