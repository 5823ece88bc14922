"""Lumina Image 2."""

from .family import Blocks, Defaults, Family, Slot, attention_and_mlp

_BLOCK = r"layers\.\d+\."

FAMILY = Family(
    name="lumina2",
    title="Lumina 2",
    configs=("Lumina2",),
    blocks=(
        # A norm reads each layer's result before it is added, so there are no tails.
        Blocks(path=r"context_refiner\.\d+"),
        Blocks(path=r"noise_refiner\.\d+", order=("image",)),
        Blocks(
            path=r"layers\.\d+",
            image=Slot("x", joined=True),
            result=Slot(joined=True),
            rotary=(Slot("freqs_cis", joined=True),),
            order=("text", "image"),
        ),
    ),
    targets=attention_and_mlp(_BLOCK + r"attention\.(qkv|out)", _BLOCK + r"feed_forward\.w[123]"),
    architecture="lumina-2",
    base_model_version="lumina2",
    text_layer=r"cap_embedder\.1",
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted",
        source="ai-toolkit's example for Lumina 2 (1e-4, rank 16, 2000 steps, the model's own shift)",
    ),
)
