"""LTX-2 and 2.3: a picture is a clip of one frame without sound."""

from .family import IN_PLACE, Blocks, Defaults, DiffusersNames, Family, Note, Slot, attention_and_mlp

_BLOCK = r"transformer_blocks\.\d+\."
_PICTURE = attention_and_mlp(_BLOCK + r"attn[12]\.to_(q|k|v|out\.0)", _BLOCK + r"ff\.net\.(0\.proj|2)")
_END = {"cross": ("attn2",), "tails": ("ff.net.2",), "gates": (Slot("v_timestep"),)}
FAMILY = Family(
    name="ltxav",
    title="LTX-2",
    configs={"LTXAV": 25.0},
    blocks=(
        Blocks(
            path=r"transformer_blocks\.\d+",
            image=Slot("x", item=0),
            result=Slot(0),
            rotary=(Slot("v_pe", item=0),),
            order=("image",),
            **_END,
        ),
    ),
    # What no picture passes, and what reads the texts before they are kept, learns nothing.
    targets={**_PICTURE, "all": r"(?!.*(audio|connector|av_ca|a2v|v2a)).*"},
    architecture="ltx-2",
    base_model_version="ltx2",
    patch=(1, 1, 1),
    mutates=True,
    text_adapter=r".*connector\..*",
    diffusers=DiffusersNames("diffusion_model"),
    first_frame={"LTXAV": IN_PLACE},
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="sigmoid",
        source="ai-toolkit's defaults (1e-4, rank 32, 3000 steps); SimpleTuner, LTXVIDEO2.md, for plain logit-normal",
    ),
    notes=(Note("LTX-2 also makes sound: its audio layers are not trained."),),
)
