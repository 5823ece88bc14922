"""FLUX.1 dev and schnell."""

from .family import BlockTokens, Defaults, Family, TokenLayout

_ATTENTION = r"double_blocks\.\d+\.(img|txt)_attn\.(qkv|proj)|single_blocks\.\d+\.linear[12]"
_FEED_FORWARD = r"double_blocks\.\d+\.(img|txt)_mlp\.[02]"

FLUX = Family(
    name="flux",
    title="FLUX.1",
    configs=("Flux", "FluxSchnell"),
    latent_channels=16,
    latent_stride=8,
    patch=2,
    predictions=("flow",),
    blocks=("DoubleStreamBlock", "SingleStreamBlock"),
    tails={"DoubleStreamBlock": ("img_mlp.2", "txt_mlp.2"), "SingleStreamBlock": ("linear2",)},
    gate_arguments=("vec",),
    gate_layers=("img_mod", "txt_mod", "modulation"),
    mutates=True,
    tokens=TokenLayout(
        blocks={
            "DoubleStreamBlock": BlockTokens(argument="img", result=0, joined=False),
            "SingleStreamBlock": BlockTokens(argument=0, result=None, joined=True),
        },
        rotary="pe",
        rotary_axis=2,
    ),
    targets={
        "default": f"{_ATTENTION}|{_FEED_FORWARD}",
        "attention": _ATTENTION,
        "attention and mlp": f"{_ATTENTION}|{_FEED_FORWARD}",
        "all": r".*",
    },
    text_repeats=False,
    size_conditioning=False,
    kohya_as_diffusers=False,
    base_model_version="flux1",
    architecture="flux-1-dev",
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="sigmoid",
        source="ai-toolkit's published FLUX.1 example (rank 16, 1e-4, 2000 steps, sigmoid timesteps)",
    ),
)
