"torch.compile changes how the text tower is computed, not what."
import shutil
import open_clip, pytest, torch
from craft_nb.tower import TextTower

@pytest.mark.skipif(not shutil.which('g++'), reason='torch.compile needs a C++ compiler')
def test_compiled_tower():
    "Compiled and not, the same features to 1e-5"
    with torch.random.fork_rng():
        text = open_clip.transformer.TextTransformer(context_length=16, vocab_size=99, width=32, heads=2, layers=2)
        text.eval()
    names = [97, 5, 98], [97, 6, 7, 98], [97, 8, 9, 10, 98]
    tokens = torch.zeros(3, 16, dtype=torch.long)
    for row, ids in zip(tokens, names): row[:len(ids)] = torch.tensor(ids)
    p = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    plain = TextTower(text, tokens, compile=False)(p)
    compiled = TextTower(text, tokens, compile=True)(p)
    assert plain.shape == compiled.shape == (2, 3, 512)
    assert (plain - compiled).abs().max() < 1e-5
