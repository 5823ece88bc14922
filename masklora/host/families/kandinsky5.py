"""Kandinsky 5 for video, where a picture is a clip of one frame, and for pictures."""

from .family import BY_NETWORK, Blocks, Defaults, DiffusersNames, Family, Slot, attention_and_mlp

_BLOCK = r"visual_transformer_blocks\.\d+\."
_TAIL = {"tails": ("feed_forward.out_layer",), "gates": (Slot("time_embed"),)}
_LOOK = {"image": Slot("visual_embed"), "rotary": (Slot("freqs"),), "order": ("image",), "cross": ("cross_attention",)}
FAMILY = Family(
    name="kandinsky5",
    title="Kandinsky 5",
    configs={"Kandinsky5": 24.0, "Kandinsky5Image": None},
    blocks=(
        Blocks(path=r"text_transformer_blocks\.\d+", order=("text",), gate_layers=("text_modulation",), **_TAIL),
        Blocks(path=r"visual_transformer_blocks\.\d+", gate_layers=("visual_modulation",), **_LOOK, **_TAIL),
    ),
    targets=attention_and_mlp(_BLOCK + r"\w+_attention\.(to_\w+|out_layer)", _BLOCK + r"feed_forward\.(in|out)_layer"),
    architecture="kandinsky-5",
    base_model_version="kandinsky5",
    divides=True,
    text_layer=r"text_embeddings\.in_layer",
    pooled_layer=r"pooled_text_embeddings\.in_layer",
    text_fills=True,
    diffusers=DiffusersNames("transformer"),
    first_frame={"Kandinsky5": BY_NETWORK},
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=5.0,
        source="musubi-tuner, docs/kandinsky5.md (1e-4, rank 32, shift 5.0); 2000 steps as for Wan",
    ),
)
