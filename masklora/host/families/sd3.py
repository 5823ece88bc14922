"""Stable Diffusion 3 and 3.5."""

from .family import Blocks, Defaults, DiffusersNames, Family, Slot, attention_and_mlp

_HALVES = r"joint_blocks\.\d+\.(context|x)_block\."

FAMILY = Family(
    name="sd3",
    title="Stable Diffusion 3",
    configs=("SD3",),
    blocks=(
        Blocks(
            path=r"joint_blocks\.\d+",
            image=Slot(1),
            result=Slot(1),
            order=("text", "image"),
            tails=("x_block.mlp.fc2", "context_block.mlp.fc2"),
            gates=(Slot("c"),),
            gate_layers=("x_block.adaLN_modulation", "context_block.adaLN_modulation"),
        ),
    ),
    targets=attention_and_mlp(_HALVES + r"attn2?\.(qkv|proj)", _HALVES + r"mlp\.fc[12]"),
    architecture="stable-diffusion-3",
    base_model_version="sd3",
    places="pos_embed_max_size",
    text_layer="context_embedder",
    pooled_layer=r"y_embedder\.mlp\.0",
    text_fills=True,
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted",
        source="Esser et al. 2024 (arXiv 2403.03206): logit-normal(0, 1) timesteps, shifted as the model samples",
    ),
)
