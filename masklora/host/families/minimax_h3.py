"""MiniMax H3: one stream of blocks over text, sound and clip; a picture is a clip of one frame without sound."""

from .family import Blocks, Defaults, DiffusersNames, Family, Note, Slot, attention_and_mlp

_PRESETS = attention_and_mlp(r"blocks\.\d+\.attn\.(qkv|out)_proj", r"blocks\.\d+\.mlp\.fc[12]")
_FROM = "musubi-tuner, docs/minimax_h3.md (1e-4, rank 16, evenly with shift 12); ai-toolkit for 3000 steps"
_USUAL = Defaults(
    learning_rate=1e-4, rank=16, alpha=16.0, steps=3000, timestep_sampling="uniform", timestep_shift=12.0, source=_FROM
)
FAMILY = Family(
    name="minimax_h3",
    title="MiniMax H3",
    configs={"MiniMaxH3": 24.0},
    blocks=(
        Blocks(
            path=r"blocks\.\d+",
            image=Slot("x", axis=0, joined=True),
            result=Slot(axis=0, joined=True),
            rotary=(Slot("rope_freqs", joined=True),),
            # The runs of tokens that it modulates alike end with the picture: the last one takes what tokens there are.
            order=("text", "image"),
            tails=("mlp.fc2",),
            gates=(Slot("t_emb"),),
            gate_layers=("adaln_proj.linear",),
        ),
    ),
    # What no picture passes, and what reads the texts before they are kept, learns nothing.
    targets={**_PRESETS, "all": r"(?!.*(audio|condition_proj|token_refiner)).*"},
    architecture="minimax-h3",
    base_model_version="minimax_h3",
    channels=24,
    sound=(32, 2, 0),
    alone=True,
    decoded=2,
    mutates=True,
    text_layer="condition_proj",
    diffusers=DiffusersNames("diffusion_model", layers=r"blocks\..*"),
    defaults=_USUAL,
    notes=(Note("MiniMax H3's sound is not trained. Its distilled guidance fades: after long runs draw with cfg 3."),),
)
