"""The refiners that OmniGen 2 and Boogu share. A norm reads each layer's result, so they have no tails."""

from .family import Blocks, Slot, attention_and_mlp

REFINERS = (
    Blocks(path=r"(context|ref_image)_refiner\.\d+"),
    Blocks(path=r"noise_refiner\.\d+", order=("image",)),
)


def joined_blocks(path: str) -> Blocks:
    """The blocks at `path`, which are given text and image in one sequence."""
    return Blocks(
        path=path,
        image=Slot("hidden_states", joined=True),
        result=Slot(joined=True),
        rotary=(Slot("image_rotary_emb", joined=True),),
        order=("text", "references", "image"),
    )


def omnigen_targets(block: str) -> dict[str, str]:
    """The presets of targets in blocks whose paths begin with `block`."""
    return attention_and_mlp(
        block + r".*attn\.(processor\.)?((img|instruct)_)?(to_)?(q|k|v|out|out\.0)",
        block + r"((img|instruct)_)?feed_forward\.linear_[123]",
    )
