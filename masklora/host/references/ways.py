"""How text encoders are shown the reference pictures of a caption: by ComfyUI's own node of each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comfy_extras.nodes_boogu import TextEncodeBooguEdit
from comfy_extras.nodes_joyimage import TextEncodeJoyImageEdit
from comfy_extras.nodes_mage import TextEncodeMageFlowEdit
from comfy_extras.nodes_qwen import TextEncodeQwenImageEdit, TextEncodeQwenImageEditPlus
from comfy_extras.nodes_zimage import TextEncodeZImageOmni
from torch import Tensor

from ...errors import ConfigError, FamilyError

_Given = dict[str, Any]


def encoded_with(clip: Any, text: str, pictures: Sequence[Tensor], way: str) -> list[Any]:
    """ComfyUI's CONDITIONING of a caption whose reference pictures the text encoder is shown.

    Args:
        clip: ComfyUI's CLIP, of the models that are shown pictures so.
        text: The caption; an instruction as a rule.
        pictures: float32 (1, H, W, 3) in 0..1 each, whole, in order; at least one.
        way: A name in `WAYS`.

    Raises:
        ConfigError: There are more pictures than it is shown.
        FamilyError: The text encoder is another model's, and takes no pictures.
    """
    node, given = WAYS[way]
    if len(pictures) > MOST[way]:
        raise ConfigError(
            f"references: the CLIP of this model is shown {MOST[way]} at most, got {len(pictures)}. Connect or name "
            "fewer."
        )
    try:
        return node.execute(_Quiet(clip), text, **given(pictures))[0]
    except (TypeError, KeyError, AttributeError) as error:
        raise FamilyError(
            f"CLIP: this one cannot be shown reference pictures ({type(error).__name__}: {error}). Connect the CLIP "
            "that belongs to the MODEL, with the part that sees."
        ) from error


class _Quiet:
    """A CLIP that shows no bar of its own: progress is the caller's."""

    def __init__(self, clip: Any) -> None:
        self._clip = clip

    def tokenize(self, text: str, **told: Any) -> Any:
        return self._clip.tokenize(text, **told)

    def encode_from_tokens_scheduled(self, tokens: Any) -> Any:
        return self._clip.encode_from_tokens_scheduled(tokens, show_pbar=False)


def _one(pictures: Sequence[Tensor]) -> _Given:
    return {"image": pictures[0]}


def _each(pictures: Sequence[Tensor]) -> _Given:
    return {f"image{number}": picture for number, picture in enumerate(pictures, 1)}


def _joined(pictures: Sequence[Tensor]) -> _Given:
    return {"images": _each(pictures)}


def _listed(pictures: Sequence[Tensor]) -> _Given:
    return {
        "negative_prompt": "",
        "images": {f"image_{number}": picture for number, picture in enumerate(pictures, 1)},
    }


# By the name that a family's file gives: ComfyUI's node, and how it is given pictures.
WAYS: dict[str, tuple[Any, Callable[[Sequence[Tensor]], _Given]]] = {
    "qwen edit": (TextEncodeQwenImageEdit, _one),
    "qwen edit plus": (TextEncodeQwenImageEditPlus, _each),
    "boogu": (TextEncodeBooguEdit, _listed),
    "mage": (TextEncodeMageFlowEdit, _listed),
    "joyimage": (TextEncodeJoyImageEdit, _joined),
    "z-image omni": (TextEncodeZImageOmni, _each),
}
# How many pictures these nodes take.
MOST = {"qwen edit": 1, "qwen edit plus": 3, "boogu": 16, "mage": 16, "joyimage": 6, "z-image omni": 3}
# By ComfyUI's class of the tokenizer, where no MODEL tells it.
_BY_TOKENIZER = {
    "QwenImageTokenizer": "qwen edit plus",
    "Krea2Tokenizer": "qwen edit plus",
    "LongCatImageTokenizer": "qwen edit",
    "BooguTokenizer": "boogu",
    "MageFlowTokenizer": "mage",
    "JoyImageTokenizer": "joyimage",
    "ZImageTokenizer": "z-image omni",
}
# Ways whose node shows no picture to the negative prompt, and those whose node brings references to the picture's size.
UNSEEN_BY_NEGATIVE, AS_TARGET = ("boogu",), ("mage",)


def way_of(clip: Any) -> str:
    """The way of models with such a text encoder; "" where theirs is shown no pictures."""
    return _BY_TOKENIZER.get(type(clip.tokenizer).__qualname__, "")
