"""Stable Diffusion 3 and 3.5."""

from .family import BlockTokens, Defaults, Family, TokenLayout

_ATTENTION = r"joint_blocks\.\d+\.(context|x)_block\.attn2?\.(qkv|proj)"
_FEED_FORWARD = r"joint_blocks\.\d+\.(context|x)_block\.mlp\.fc[12]"

SD3 = Family(
    name="sd3",
    title="Stable Diffusion 3",
    configs=("SD3",),
    latent_channels=16,
    latent_stride=8,
    patch=2,
    predictions=("flow",),
    blocks=("JointBlock",),
    tails={"JointBlock": ("x_block.mlp.fc2", "context_block.mlp.fc2")},
    gate_arguments=("c",),
    gate_layers=("x_block.adaLN_modulation", "context_block.adaLN_modulation"),
    mutates=False,
    tokens=TokenLayout(blocks={"JointBlock": BlockTokens(argument=1, result=1, joined=False)}),
    targets={
        "default": f"{_ATTENTION}|{_FEED_FORWARD}",
        "attention": _ATTENTION,
        "attention and mlp": f"{_ATTENTION}|{_FEED_FORWARD}",
        "all": r".*",
    },
    text_repeats=False,
    size_conditioning=False,
    kohya_as_diffusers=False,
    base_model_version="sd3",
    architecture="stable-diffusion-3",
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted",
        source="Esser et al. 2024 (arXiv 2403.03206): logit-normal(0, 1) timesteps, shifted as the model samples",
    ),
)
