"""Krea 2: one stream of blocks, in front of it a small network that joins twelve layers of the text encoder."""

from .family import Blocks, Defaults, DiffusersNames, Family, References, Slot, attention_and_mlp

FAMILY = Family(
    name="krea2",
    title="Krea 2",
    configs=("Krea2",),
    blocks=(
        Blocks(path=r"txtfusion\.layerwise_blocks\.\d+", tails=("mlp.down",)),
        Blocks(path=r"txtfusion\.refiner_blocks\.\d+", order=("text",), tails=("mlp.down",)),
        Blocks(
            path=r"blocks\.\d+",
            image=Slot("x", joined=True),
            result=Slot(joined=True),
            rotary=(Slot("freqs", axis=2, joined=True),),
            bounds=(Slot("timestep_zero_index"),),
            order=("text", "image", "references"),
            tails=("mlp.down",),
            gates=(Slot("vec"),),
        ),
    ),
    targets=attention_and_mlp(r"blocks\.\d+\.attn\.(wq|wk|wv|wo|gate)", r"blocks\.\d+\.mlp\.(gate|up|down)"),
    architecture="krea-2",
    base_model_version="krea2",
    text_layer=r"txtmlp\.1",
    text_taps=r"txtfusion\.projector",
    text_fills=True,
    references=References(method="index_timestep_zero", pictures="qwen edit plus", most=3),
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=2.5,
        source="musubi-tuner, docs/krea2.md (1e-4, rank 32, shift 2.5); 2000 steps as for Qwen-Image",
    ),
)
