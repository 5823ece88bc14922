"""HiDream-I1, its picture in front of the texts; its experts are no targets, and no tails: their shares read them."""

from dataclasses import replace

from .family import Blocks, Defaults, DiffusersNames, Family, Slot, attention_and_mlp

_DOUBLE = Blocks(
    path=r"double_stream_blocks\.\d+",
    image=Slot("image_tokens"),
    result=Slot(0),
    rotary=(Slot("rope", joined=True),),
    order=("image", "text"),
    tails=("block.ff_i.shared_experts.w2", "block.ff_t.w2"),
    gates=(Slot("adaln_input"),),
    gate_layers=("block.adaLN_modulation",),
)
# No routes: behind each the network cuts the texts off where all of the picture would end.
_SINGLE = replace(_DOUBLE, path=r"single_stream_blocks\.\d+", image=None, rotary=(), tails=_DOUBLE.tails[:1])
FAMILY = Family(
    name="hidream",
    title="HiDream-I1",
    configs=("HiDream",),
    blocks=(_DOUBLE, _SINGLE),
    targets=attention_and_mlp(r".*\.attn1\.to_\w+", r".*\.(ff_i\.shared_experts|ff_t)\.w[123]"),
    architecture="hidream-i1",
    base_model_version="hidream_i1",
    text_layer=r"caption_projection\.\d+\.linear",
    pooled_layer=r"p_embedder\.pooled_embedder\.linear_1",
    text_extras=("conditioning_llama3",),
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=2e-4,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="shifted",
        timestep_shift=3.0,
        source="ai-toolkit's HiDream example (2e-4, rank 32, 3000 steps, no experts); shift 3 as Full samples",
    ),
)
