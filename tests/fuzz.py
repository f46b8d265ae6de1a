"Bodies and pictures that nobody should send: good ones with bytes changed, tensors of any kind, garbage."
import io, json, secrets
from collections import Counter
import numpy as np, psutil, schemathesis, torch, zstandard
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from safetensors.torch import save
from craft_nb.service.wire import pack_message

DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int8, torch.int64, torch.bool,
    torch.complex64, torch.float8_e4m3fn]
small = zstandard.ZstdCompressor(level=1).compress       # a body of raw safetensors

@st.composite
def mutated(draw, good): # good: files to begin with
    "One of `good` with a few bytes changed, cut out, repeated or put in"
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 6))):
        i = draw(st.integers(0, max(0, len(data) - 1)))
        n = draw(st.integers(0, 16))
        new = draw(st.binary(max_size=8))
        data[i:i+n] = draw(st.sampled_from([new, new[:1]*n, bytes(data[i:i+n])*2, bytes(data[:i][-n:])]))
    return bytes(data)

def full(shape, dtype, value): return torch.full(shape, value).to(dtype)
shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 7, 256]), max_size=4).filter(lambda s: np.prod(s) < 2**20)
numbers = st.sampled_from([0., 1., -3., 1e30, torch.inf, torch.nan])
tensors = st.builds(full, shapes, st.sampled_from(DTYPES), numbers)

def nested(v): return st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3)
names = st.sampled_from(['prompts', '0', '1', '2', 'x', ''])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(leaves, nested, max_leaves=6)

text = st.text(st.characters(exclude_categories=()), max_size=300)   # surrogates too
def mostly(good): return st.one_of(good, good, good, good, values)

def infos(images): # id of an image set that exists
    "What goes with the tensors: good, nearly good and bad"
    classnames = st.lists(text | st.just('a cat'), min_size=1, max_size=4)
    needed = dict(images=mostly(st.just(images)), classnames=mostly(classnames))
    optional = dict(dtype=mostly(st.sampled_from(['fp32', 'fp16'])), normalize=mostly(st.booleans()), more=values)
    return st.fixed_dictionaries(needed, optional=optional)

def prompts_of(p, n, d, dtype, value): return dict(prompts=full((p, n, d), dtype, value))
shaped = st.builds(
    prompts_of,
    st.integers(1, 4),
    st.integers(0, 80),
    st.sampled_from([256, 256, 256, 255]),
    st.sampled_from(DTYPES[:2]),
    st.sampled_from([0., -3., 1e4, 1e30]))

def black(h, w, n): return {str(i): torch.zeros(h, w, 3, dtype=torch.uint8) for i in range(n)}
arrays = st.builds(black, st.integers(0, 300), st.integers(0, 300), st.integers(0, 3))

def raw(header, data): return small(len(header).to_bytes(8, 'little') + header + data)
def entry(dtype, shape, at): return dict(dtype=dtype, shape=shape, data_offsets=at)
entries = st.builds(
    entry,
    st.sampled_from(['F32', 'F16', 'U8', 'BF16', 'F4', 'F8_E8M0', 'C64', '?']) | values,
    st.lists(st.integers(-1, 2**64), max_size=4) | values,
    st.lists(st.integers(-1, 99), min_size=2, max_size=2) | values)
headers = st.dictionaries(names | st.just('__metadata__'), entries | values, max_size=3)
headers = headers.map(lambda h: json.dumps(h).encode())

def bodies(good, images): # good: raw safetensors; images: an id
    "Bodies of /v1/query and /v1/images"
    content = shaped | arrays | st.dictionaries(names, tensors, max_size=3)
    return st.one_of(
        mutated(good).map(small),
        mutated([small(g) for g in good]),
        st.builds(lambda t, i: pack_message(t, **i), content, infos(images)),
        st.builds(raw, headers, st.binary(max_size=99)),
        st.binary(max_size=99),
        st.binary(max_size=99).map(small))

def query_of(p0, images):
    info = dict(images=images, classnames=['a cat', 'a dog'], dtype='fp32')
    return save({'prompts': p0[None].contiguous()}, {'info': json.dumps(info)})

def upload_of(*files):
    tensors = [torch.frombuffer(bytearray(f), dtype=torch.uint8) for f in files]
    return save({str(i): t for i, t in enumerate(tensors)}, {'info': '{}'})

def picture_files():
    "Small files of each format, of each kind of colours"
    x = torch.arange(12*9*4, dtype=torch.uint8).reshape(12, 9, 4).numpy()
    def file(im, kind, **kw):
        f = io.BytesIO()
        im.save(f, kind, **kw)
        return f.getvalue()
    rgba = Image.fromarray(x)
    rgb = rgba.convert('RGB')
    grey, palette = rgb.convert('L'), rgb.convert('P')
    plain = dict(
        PNG=(rgb, rgba, palette, rgb.convert('1'), grey.convert('I;16')),
        JPEG=(rgb, grey, rgb.convert('CMYK')),
        GIF=(rgb, palette),
        WEBP=(rgb, rgba),
        BMP=(rgb, palette))
    files = [file(im, kind) for kind, pictures in plain.items() for im in pictures]
    progressive = file(rgb, 'JPEG', progressive=True)
    animated = file(rgb, 'GIF', save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
    return [*files, progressive, animated]

def pictures(good): return mutated(good).map(lambda f: small(upload_of(f)))

def operations(app):
    "Requests of all routes, as the OpenAPI page has them and as it has them not"
    modes = schemathesis.GenerationMode
    strategies = []
    for result in schemathesis.openapi.from_asgi('/openapi.json', app).get_all_operations():
        op = result.ok()
        fitting = [m for m in modes if m.value == 'positive' or op.method == 'post']
        strategies += [op.as_strategy(generation_mode=m) for m in fitting]
    return st.one_of(strategies)

class Flood:
    "Send n inputs of a strategy: what was answered, the first inputs that broke the server, and how the memory grew"
    def __init__(self, send, inputs, n, seed=0): # send(input) -> status
        self.statuses = Counter()
        self.worst = []
        self.peaks = [0]*10    # bytes, of each tenth of the inputs
        me = psutil.Process()
        @settings(max_examples=n, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(inputs)
        def flood(x):
            status = send(x)
            tenth = min(9, 10*self.sent//n)
            self.statuses[status] += 1
            if status >= 500: self.worst = [*self.worst, x][:3]
            self.peaks[tenth] = max(self.peaks[tenth], me.memory_info().rss)
        flood._hypothesis_internal_use_seed = seed
        flood()
    @property
    def sent(self): return sum(self.statuses.values())
    @property
    def broken(self): return {s: n for s, n in self.statuses.items() if s >= 500}
    def grew(self, tenth): # -> MiB, after so many tenths
        return (max(self.peaks[tenth:]) - max(self.peaks[:tenth]))/2**20
    @property
    def growth(self): return self.grew(1)
    @property
    def late(self): return self.grew(5)

def send(client, path, body):
    "Post a body under a new name"
    return client.post(path, content=body, headers={'Idempotency-Key': secrets.token_hex(8)})
