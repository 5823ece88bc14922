"""Cosmos-Predict2, text to image; a picture is a clip of one frame."""

from .family import Blocks, Defaults, Family, Slot, attention_and_mlp

_BLOCK = r"blocks\.\d+\."

FAMILY = Family(
    name="cosmos_predict2",
    title="Cosmos-Predict2",
    configs=("CosmosT2IPredict2",),
    blocks=(
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
    architecture="cosmos-predict2",
    base_model_version="cosmos_predict2",
    text_layer=r"blocks\.\d+\.cross_attn\.k_proj",
    defaults=Defaults(
        learning_rate=6e-5,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted by resolution",
        source="SimpleTuner, COSMOS2IMAGE.md (6e-5, shifted by resolution); rank 16 and 2000 steps as for FLUX.1",
    ),
)
