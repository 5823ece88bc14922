"""Anima: Cosmos-Predict2's blocks with an adapter in front that joins the text encoder's features to T5's tokens."""

from .family import Blocks, Defaults, Family, Slot, attention_and_mlp

_BLOCK = r"blocks\.\d+\."

FAMILY = Family(
    name="anima",
    title="Anima",
    configs=("Anima",),
    blocks=(
        Blocks(path=r"llm_adapter\.blocks\.\d+", tails=("mlp.2",)),
        Blocks(
            path=r"blocks\.\d+",
            image=Slot("x_B_T_H_W_D"),
            rotary=(Slot("rope_emb_L_1_1_D"),),
            order=("image",),
            cross=("cross_attn",),
            tails=("mlp.layer2",),
            gates=(Slot("emb_B_T_D"), Slot("adaln_lora_B_T_3D")),
            gate_layers=("adaln_modulation_mlp",),
        ),
    ),
    targets=attention_and_mlp(_BLOCK + r"(self|cross)_attn\.(q|k|v|output)_proj", _BLOCK + r"mlp\.layer[12]"),
    architecture="anima",
    base_model_version="anima",
    text_layer=r"llm_adapter\.blocks\.0\.cross_attn\.k_proj",
    text_extras=("t5xxl_ids", "t5xxl_weights"),
    text_adapter=r"llm_adapter\..*",
    defaults=Defaults(
        learning_rate=3e-5,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="logit-normal",
        source="OneTrainer's Anima preset (3e-5, logit-normal); ai-toolkit's defaults for rank 32 and 3000 steps",
    ),
)
