"""A small model that describes pictures: ComfyUI's own Qwen3-VL with its tokenizer, at a thousandth of its size.

What it writes means nothing, but depends on the picture.
"""

import comfy.sd
import comfy.supported_models_base
import torch
from comfy.text_encoders import qwen3vl

from .small.encoder import llama

SIZE = "qwen3vl_4b"
_EYES = {"hidden_size": 256, "intermediate_size": 64, "depth": 2, "deepstack_visual_indexes": [0]}


def describer():
    """A CLIP with random weights, drawn from one seed."""
    real = qwen3vl.QWEN3VL_VISION[SIZE]
    qwen3vl.QWEN3VL_VISION[SIZE] = _EYES
    try:
        target = comfy.supported_models_base.ClipTarget(qwen3vl.tokenizer(model_type=SIZE), qwen3vl.te(model_type=SIZE))
        options = {f"{SIZE}_model_config": llama(32, 4), "dtype": torch.float32}
        made = comfy.sd.CLIP(target, model_options=options)
    finally:
        qwen3vl.QWEN3VL_VISION[SIZE] = real
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in made.cond_stage_model.parameters():
            scale = max(1, p[0].numel()) ** -0.5 if p.ndim > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return made
