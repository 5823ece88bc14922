"""PixArt Alpha and Sigma: tokens of the picture alone, which look at the text besides."""

from .family import Blocks, Defaults, Family, Slot, attention_and_mlp

_BLOCK = r"blocks\.\d+\."

FAMILY = Family(
    name="pixart",
    title="PixArt",
    configs=("PixArtAlpha", "PixArtSigma"),
    blocks=(
        # No image tokens: the blocks hand no options on, and take no mask, by which some could be hidden.
        Blocks(path=r"blocks\.\d+", tails=("mlp.fc2",), gates=(Slot("t"),)),
    ),
    targets=attention_and_mlp(
        _BLOCK + r"(attn\.(qkv|proj)|cross_attn\.(q_linear|kv_linear|proj))", _BLOCK + r"mlp\.fc[12]"
    ),
    architecture="pixart",
    base_model_version="pixart",
    predictions=("epsilon",),
    divides=True,
    least=33,
    text_layer=r"y_embedder\.y_proj\.fc1",
    text_repeats=True,
    defaults=Defaults(
        learning_rate=1e-5,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="uniform",
        source="PixArt-sigma, asset/docs/pixart_lora.md (1e-5, rank 16, as OneTrainer); alpha and steps as for SDXL",
    ),
)
