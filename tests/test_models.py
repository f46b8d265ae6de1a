"""All architectures of open_clip, shrunken and with random weights: a box answers as the model's own forward does."""
import json
from copy import deepcopy
import numpy as np, open_clip, pytest, torch
import torch.nn.functional as F
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import (AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, CLIPImageProcessor,
                          M2M100Config, MT5Config, PreTrainedTokenizerFast, RobertaConfig, XLMRobertaConfig)
from craft_nb.apis import CallableBlackBox
from craft_nb.models import HFBlackBox, open_model, pipeline_scores
from craft_nb.clip import CLIPBlackBox
from craft_nb.tower import HookTower, TextTower

ALL = open_clip.list_models()
NAMES = ['red fish', 'owl', 'blue bird', 'old house']
WORDS = 'a an photo of the red blue old fish owl bird house .'.split()

# family of a tokenizer: what stands before the words, what behind, and the padding
FRAMES = {'SigLIP': ([], ['</s>'], '</s>'), 'mt5': ([], ['</s>'], '<pad>'), 'nllb': (['eng_Latn'], ['</s>'], '<pad>'),
          'xlm': (['<s>'], ['</s>'], '<pad>'), 'roberta': (['<s>'], ['</s>'], '<pad>'),
          'bert': (['[CLS]'], ['[SEP]'], '[PAD]'),           # behind it: "roberta" holds "bert"
          'openai': (['<s>'], ['</s>'], '</s>')}
SMALL = dict(vocab_size=64, pad_token_id=1)
LAYERS = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
              max_position_embeddings=130)
CONFIGS = {'roberta': RobertaConfig(**SMALL, **LAYERS), 'xlm': XLMRobertaConfig(**SMALL, **LAYERS),
           'mt5': MT5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2),
           'nllb': M2M100Config(**SMALL, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
                                decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64)}

def family_of(name): return next(f for f in FRAMES if f in name)

def make_tokenizer(folder, family):
    "Write a tokenizer of few words with the start, end and padding of a family"
    start, end, pad = FRAMES[family]
    ids = {'<s>': 0, '<pad>': 1, '</s>': 2} if family not in ('mt5', 'SigLIP') else {'<pad>': 0, '</s>': 1}
    for word in [*start, *end, pad, '<unk>', *WORDS]: ids.setdefault(word, len(ids))
    made = Tokenizer(models.WordLevel(ids, unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    around = [(t, ids[t]) for t in dict.fromkeys([*start, *end])]
    made.post_processor = processors.TemplateProcessing(' '.join([*start, '$A', *end]), special_tokens=around)
    special = dict(pad_token=pad, unk_token='<unk>', eos_token=end[0], sep_token=end[0])
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)

def shrunken(name, folders):
    "The configuration of an architecture, with few layers, narrow ones, and local files in the place of downloads"
    cfg = deepcopy(open_clip.get_model_config(name))
    text = cfg['text_cfg']
    cfg['embed_dim'] = 32 if text.get('proj_type') == 'none' else 16
    cfg['vision_cfg'] = dict(layers=1, width=32, head_width=16, patch_size=16, image_size=32)
    if 'hf_model_name' in text:
        text['hf_model_name'] = str(folders[family_of(text['hf_model_name'])])
    else: text |= dict(width=32, heads=2, layers=2)
    if 'hf_tokenizer_name' in text:
        text['hf_tokenizer_name'] = str(folders[family_of(text['hf_tokenizer_name'])])
        text['vocab_size'] = 64
    if 'multimodal_cfg' in cfg: cfg['multimodal_cfg'] |= dict(width=cfg['embed_dim'], heads=2, layers=1)
    return cfg

@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "A tokenizer, and a model of random weights where one is named, for each family"
    root = tmp_path_factory.mktemp('families')
    for family in FRAMES:
        make_tokenizer(root/family, family)
        if family in CONFIGS: AutoModel.from_config(CONFIGS[family]).save_pretrained(root/family)
    return {family: root/family for family in FRAMES}

@pytest.fixture(scope='module')
def made(folders, tmp_path_factory):
    "Give open_clip the shrunken architectures by the names `small-...`"
    root = tmp_path_factory.mktemp('models')
    for name in ALL: (root/f'small-{name}.json').write_text(json.dumps(shrunken(name, folders)))
    open_clip.add_model_config(root)

def is_fast(box): return isinstance(box.tower, TextTower)

@pytest.mark.parametrize('name', ALL)
def test_architecture(made, name):
    "Words as a prompt are what the model makes of the sentence; other words are another prompt"
    torch.manual_seed(0)
    box = CLIPBlackBox((f'small-{name}', 'random'), NAMES)
    clip, tokens = box._clip, box._tokenizer
    own = clip.encode_text(tokens([f'a photo of a {c}.' for c in NAMES]), normalize=False)
    p0 = box.embed('a photo of a')
    assert p0.shape == (4, 32)
    found = box.tower(p0[None])[0]
    assert found.shape == own.shape
    assert_close(F.normalize(found, dim=-1), F.normalize(own, dim=-1), atol=1e-5, rtol=1e-4)
    other = box.tower(box.embed('the old blue bird')[None])[0]
    assert (F.normalize(other, dim=-1) - F.normalize(own, dim=-1)).norm(dim=-1).min() > 1e-4
    if is_fast(box):
        hooked = HookTower(clip, box._tokens, box._frame)(p0[None])[0]
        assert_close(F.normalize(hooked, dim=-1), F.normalize(own, dim=-1), atol=1e-5, rtol=1e-4)
    images = box.upload([Image.new('RGB', (32, 32), c) for c in ('red', 'blue')])
    pictures = box._store[images.id]
    expected = clip.logit_scale.exp()*pictures @ F.normalize(own, dim=-1).T
    if getattr(clip, 'logit_bias', None) is not None: expected = expected + clip.logit_bias
    assert_close(box.score('a photo of a', images), expected, atol=1e-3, rtol=1e-3)

# kind -> what is its own of the text side, of the whole, and the family of its tokenizer
DUAL = {'clip': ({}, dict(projection_dim=16), 'openai'), 'clipseg': ({}, dict(projection_dim=16), 'openai'),
        'metaclip_2': ({}, dict(projection_dim=16), 'xlm'), 'siglip': (dict(max_position_embeddings=64), {}, 'SigLIP'),
        'chinese_clip': ({}, dict(projection_dim=16), 'bert'), 'blip': ({}, dict(projection_dim=16), 'bert'),
        'altclip': (dict(project_dim=16), dict(projection_dim=16), 'xlm'),
        'align': ({}, dict(projection_dim=32), 'bert')}
TEXT = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=80)
VISION = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=32,
              patch_size=16)
EFFICIENTNET = dict(width_coefficient=.1, depth_coefficient=.1, hidden_dim=640, image_size=64, initializer_range=.5)

@pytest.fixture(params=DUAL)
def dual(request, tmp_path):
    "A folder with a small dual encoder of random weights, as `transformers` writes it"
    kind = request.param
    text, whole, family = DUAL[kind]
    vision = EFFICIENTNET if kind == 'align' else VISION
    make_tokenizer(tmp_path, family)
    own = AutoTokenizer.from_pretrained(tmp_path)
    if kind == 'siglip': own.padding_side = 'left'            # as Gemma's, which must not matter
    own.save_pretrained(tmp_path)
    text = TEXT | text | dict(pad_token_id=own.pad_token_id, eos_token_id=own.eos_token_id)
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, text_config=text, vision_config=vision, **whole))
    model.save_pretrained(tmp_path)
    side = vision['image_size']
    CLIPImageProcessor(size=dict(shortest_edge=side), crop_size=dict(height=side, width=side)).save_pretrained(tmp_path)
    return tmp_path

def test_dual_encoder(dual):
    "A box of Hugging Face's model answers as the model does, and its prompt is read"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 80, 70, 3), dtype=np.uint8)
    pictures = [Image.fromarray(p) for p in pixels]
    box = HFBlackBox(dual, NAMES)
    model = AutoModel.from_pretrained(dual).eval()
    tokenizer = AutoTokenizer.from_pretrained(dual, padding_side='right')
    process = AutoImageProcessor.from_pretrained(dual)
    padding = dict(padding='max_length', max_length=64) if model.config.model_type == 'siglip' else dict(padding=True)
    words = tokenizer([f'a photo of a {c}.' for c in NAMES], return_tensors='pt', **padding)
    seen = process(images=pictures, return_tensors='pt')
    if model.config.model_type == 'siglip': words = {'input_ids': words['input_ids']}
    words = {k: v for k, v in words.items() if k != 'token_type_ids'}
    with torch.no_grad(): own = model(**words, pixel_values=seen['pixel_values'], return_dict=True)
    images = box.upload(pictures)
    assert_close(box.score('a photo of a', images), own.logits_per_image, atol=1e-4, rtol=1e-4)
    p0 = box.embed('a photo of a')
    other = box.query(torch.stack([p0, p0.flip(0)]), images)
    assert (other[0] - other[1]).abs().max() > 1e-5
    assert box.image_size == seen['pixel_values'].shape[-1]

@pytest.mark.parametrize('dual', ['clip', 'siglip'], indirect=True)
def test_pipeline(dual):
    "A pipeline of `transformers` in a `CallableBlackBox` says what `HFBlackBox` says of whole texts"
    from transformers import pipeline
    pipe = pipeline('zero-shot-image-classification', model=str(dual))
    pipe.tokenizer.padding_side = 'right'             # as SigLIP's own files say, and unlike this fixture's
    if pipe.model.config.model_type == 'siglip': pipe.tokenizer.model_input_names = ['input_ids']
    kind = 'sigmoid' if pipe.model.config.model_type == 'siglip' else 'probabilities'
    pixels = np.random.default_rng(0).integers(0, 256, (3, 80, 70, 3), dtype=np.uint8)
    pictures = [Image.fromarray(p) for p in pixels]
    direct = HFBlackBox(dual, NAMES)
    expected = direct.score('a photo of a', direct.upload(pictures))
    box = CallableBlackBox(pipeline_scores(pipe), NAMES, kind=kind)
    found = box.score('a photo of a', box.upload(pictures))
    assert_close(found.softmax(-1), expected.softmax(-1), atol=1e-3, rtol=1e-2)
    assert box.kind == kind

def test_fingerprint(dual):
    "Another mean of the pictures is another model, and so is another activation"
    def of(folder): return HFBlackBox(folder, NAMES).fingerprint()
    before = of(dual)
    assert of(dual) == before
    path = next(dual.glob('*processor_config.json'))
    text = path.read_text()
    path.write_text(text.replace('0.48145466', '0.5'))
    assert of(dual) != before
    path.write_text(text)
    config = json.loads((dual/'config.json').read_text())
    config['text_config']['hidden_act'] = 'relu'
    (dual/'config.json').write_text(json.dumps(config))
    assert of(dual) != before

def test_refused(dual):
    "Weights named beside a repository, another kind of model, a name that is none: errors that say so"
    with pytest.raises(ValueError, match='has weights of its own'): HFBlackBox((dual, 'openai'), NAMES)
    config = json.loads((dual/'config.json').read_text()) | dict(model_type='bert')
    (dual/'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match='is a bert model: expected one of align'): HFBlackBox(dual, NAMES)
    with pytest.raises(ValueError, match='no such file or folder'): open_model('nobody/nothing', NAMES)
