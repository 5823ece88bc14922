"""Z-Image, base and turbo. A norm reads each layer's result before it is added, so its blocks have no tails."""

from .family import Blocks, Defaults, DiffusersNames, Family, Note, References, Slot, attention_and_mlp

_BLOCK = r"layers\.\d+\."

FAMILY = Family(
    name="z_image",
    title="Z-Image",
    configs=("ZImage",),
    blocks=(
        Blocks(path=r"context_refiner\.\d+"),
        Blocks(path=r"noise_refiner\.\d+", order=("references", "image", "pad"), pad=32),
        Blocks(
            path=r"layers\.\d+",
            image=Slot("x", joined=True),
            result=Slot(joined=True),
            rotary=(Slot("freqs_cis", joined=True),),
            bounds=(Slot("timestep_zero_index"),),
            order=("text", "references", "image", "pad"),
            pad=32,
        ),
    ),
    targets=attention_and_mlp(_BLOCK + r"attention\.(qkv|out)", _BLOCK + r"feed_forward\.w[123]"),
    architecture="z-image",
    base_model_version="z_image",
    text_layer=r"cap_embedder\.1",
    references=References(pictures="z-image omni", most=3),
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="shifted",
        timestep_shift=2.0,
        source="musubi-tuner, docs/zimage.md (1e-4, rank 32, shift 2.0); ai-toolkit's defaults for 3000 steps",
    ),
    notes=(Note("Turbo is distilled, which training undoes: train the base, or set its adapter as assistant_lora."),),
)
