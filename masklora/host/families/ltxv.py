"""LTX-Video; a picture is a clip of one frame."""

from .family import IN_PLACE, Blocks, Defaults, DiffusersNames, Family, Slot, attention_and_mlp

_BLOCK = r"transformer_blocks\.\d+\."
FAMILY = Family(
    name="ltxv",
    title="LTX-Video",
    configs={"LTXV": 25.0},
    blocks=(
        Blocks(
            path=r"transformer_blocks\.\d+",
            image=Slot("x"),
            rotary=(Slot("pe", item=0),),
            order=("image",),
            cross=("attn2",),
            tails=("ff.net.2",),
            gates=(Slot("timestep"),),
        ),
    ),
    targets=attention_and_mlp(_BLOCK + r"attn[12]\.to_(q|k|v|out\.0)", _BLOCK + r"ff\.net\.(0\.proj|2)"),
    architecture="ltx-video",
    base_model_version="ltxv",
    patch=(1, 1, 1),
    mutates=True,
    text_extras=("attention_mask",),
    text_layer=r"caption_projection\.linear_1",
    text_fills=True,
    diffusers=DiffusersNames("diffusion_model", layers=r"transformer_blocks\..*"),
    first_frame={"LTXV": IN_PLACE},
    defaults=Defaults(
        learning_rate=2e-4,
        rank=32,
        alpha=32.0,
        steps=1500,
        timestep_sampling="shifted",
        timestep_shift=2.6,
        source="LTX-Video-Trainer's example (2e-4, rank 32, 1500 steps, shifted logit-normal: 2.6 at 1024 tokens)",
    ),
)
