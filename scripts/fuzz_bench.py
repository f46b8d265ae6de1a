"""Send the service what nobody should send: 10,000 inputs each of four kinds, then the parsers alone under atheris.

    python scripts/fuzz_bench.py --n 10000

The inputs are those of tests/fuzz.py. Printed are the statuses and how the memory of the process grew between the
highest point of the first tenth of the inputs and that of the rest, and between the first half's and the second's: a
leak shows in both, a pool that fills in the first only. hypothesis remembers what it has drawn, so the same inputs are
drawn once more in a process that sends them nowhere: what the service takes is the difference."""
import subprocess, sys, tempfile
from pathlib import Path
import torch
from fastcore.script import call_parse, store_true

sys.path.insert(0, str(Path(__file__).parent.parent/'tests'))

def flood(n, seed, dry=False):
    "All that goes through the app, in this process; `dry`: the same inputs, sent nowhere"
    from fuzz import Flood, bodies, operations, picture_files, pictures, query_of, send, small, upload_of
    from starlette.testclient import TestClient
    from craft_nb.clip import CLIPBlackBox
    from craft_nb.service.app import create_app
    from craft_nb.service.limits import Limits
    from craft_nb.service.store import Store
    folder = tempfile.TemporaryDirectory()
    box = CLIPBlackBox('craft-mini', ['anything'])
    store = Store(Path(folder.name)/'store.db')
    app = create_app(box, store, Limits(rate=1e6, burst=10**6, stored=10**9))
    files = picture_files()
    account = {'Authorization': f'Bearer {store.add("fuzz")}'}
    with TestClient(app, raise_server_exceptions=False, headers=account) as c:
        id = send(c, '/v1/images', small(upload_of(files[0]))).json()['id']
        good_query = query_of(box.embed('a photo of a'), id)
        good_upload = upload_of(*files[::3])
        kinds = dict(query=('/v1/query', bodies([good_query], id)),
                     images=('/v1/images', bodies([good_upload], '')),
                     pictures=('/v1/images', pictures(files)))
        runs = {k: (lambda b, to=to: send(c, to, b).status_code, inputs) for k, (to, inputs) in kinds.items()}
        runs['schema'] = lambda case: case.call(headers=dict(c.headers)).status_code, operations(app)
        print(f'{"":10}{"inputs":>8}{"5xx":>6}{"MiB after 1/10":>16}{"after 1/2":>11}  statuses')
        for k, (f, inputs) in runs.items():
            r = Flood((lambda x: 0) if dry else f, inputs, n, seed)
            broken = sum(r.broken.values())
            statuses = dict(sorted(r.statuses.items()))
            print(f'{k:10}{r.sent:8}{broken:6}{r.growth:16.1f}{r.late:11.1f}  {statuses}', flush=True)
            for b in r.worst: print(f'  5xx: {b!r:.300}')
    store.close()
    folder.cleanup()

def parse(n, seed):
    """Run `unpack_message`, `frames` and the checks of a query under atheris, which looks for new paths through them.

    Ends the process."""
    import atheris
    rooms = ['craft_nb.service.wire', 'craft_nb.service.limits', 'craft_nb.service.handlers']
    with atheris.instrument_imports(include=rooms): from craft_nb.service import handlers, limits, wire
    from fuzz import query_of, small
    from craft_nb.clip import CLIPBlackBox
    from craft_nb.service.store import Store
    box = CLIPBlackBox('craft-mini', ['anything'])
    service = handlers.Service(box, Store(':memory:'), limits.Limits())
    corpus = Path(tempfile.mkdtemp())
    good = query_of(box.embed('a')[:1], 'x'*32)
    answer = wire.frame(small(good)) + wire.frame(b'')
    for i, b in enumerate((good, small(good), answer)): (corpus/str(i)).write_bytes(b)
    parsers = [
        (wire.unpack_message, ValueError),
        (lambda b: list(wire.frames([b])), (ValueError, wire.IncompleteResponse)),
        (service.parse_query, limits.APIError),
        (lambda b: service.parse_query(small(b)), limits.APIError)]
    def one(data):
        for parse, expected in parsers:
            try: parse(data)
            except expected: pass
    options = [f'-runs={n}', f'-seed={seed + 1}', '-max_len=8192', '-rss_limit_mb=4096']
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()

@call_parse
def main(n: int=10_000,             # inputs of each kind
         seed: int=0,
         parser: store_true=False,  # atheris alone
         dry: store_true=False):    # draw the inputs, and send them nowhere
    "Fuzz the service in this process"
    torch.set_num_threads(1)
    if parser: return parse(n, seed)
    flood(n, seed, dry)
    if dry: return
    print('The same inputs, sent nowhere:', flush=True)
    again = [sys.executable, __file__, '--n', str(n), '--seed', str(seed)]
    subprocess.run([*again, '--dry'])
    out = subprocess.run([*again, '--parser'], capture_output=True, text=True)
    lines = out.stderr.strip().splitlines()
    print('atheris:', *([l for l in lines if 'DONE' in l] if out.returncode == 0 else lines[-30:]))
    sys.exit(out.returncode)
