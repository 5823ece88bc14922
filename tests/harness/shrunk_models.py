"""Small models of families that ComfyUI knows by their full size: it detects the full one, which is then shrunk.

Only the keys that detection looks at exist, on the meta device; the small network is ComfyUI's own class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import torch


@dataclass(frozen=True)
class Shrunk:
    """What ComfyUI detects a family by, and what its network is built with instead."""

    keys: dict[str, tuple[int, ...]]
    config: dict[str, Any] = field(default_factory=dict)

    def model(self, dtype: torch.dtype) -> Any:
        """A ModelPatcher on the CPU whose weights are not filled yet."""
        with torch.device("meta"):
            keys = {name: torch.empty(shape) for name, shape in self.keys.items()}
        config = comfy.model_detection.model_config_from_unet(keys, "")
        assert config is not None, "ComfyUI did not recognise the keys"
        config.unet_config |= self.config
        cast = comfy.model_management.unet_manual_cast(dtype, torch.device("cpu"), config.supported_inference_dtypes)
        config.set_inference_dtype(dtype, cast)
        device = torch.device("cpu")
        model = config.get_model({}, "", device=device)
        return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)


SHRUNK = {
    "chroma": Shrunk(
        keys={
            "distilled_guidance_layer.0.norms.0.scale": (5120,),
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "img_in.weight": (3072, 64),
            "txt_in.weight": (3072, 4096),
        },
        config={
            "hidden_size": 128,
            "num_heads": 1,
            "out_dim": 128,
            "hidden_dim": 64,
            "n_layers": 2,
            "depth": 2,
            "depth_single_blocks": 2,
        },
    ),
    "qwen_image": Shrunk(
        keys={"txt_norm.weight": (3584,), "img_in.weight": (3072, 64)},
        config={"num_layers": 3, "num_attention_heads": 1},
    ),
    "z_image": Shrunk(
        keys={
            "cap_embedder.1.weight": (3840, 2560),
            "noise_refiner.0.attention.k_norm.weight": (128,),
            "cap_pad_token": (1, 3840),
        },
        config={"dim": 256, "n_heads": 2, "n_kv_heads": 2, "n_layers": 3, "n_refiner_layers": 1},
    ),
    "wan": Shrunk(
        keys={
            "head.modulation": (1, 2, 5120),
            "head.head.weight": (64, 5120),
            "blocks.0.ffn.0.weight": (13824, 5120),
            "patch_embedding.weight": (5120, 16, 1, 2, 2),
        },
        config={"dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": 3},
    ),
}
