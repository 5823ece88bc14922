"""The text side: a hashed word table, as a CLIP object of ComfyUI, so that captions pass the pack's own cache node.

It understands no language. Every word has its own row of ±1 from an integer hash, every place its own row of ±0.5;
what is left of the places are zeros.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import torch
from torch import Tensor, nn

PLACES = 5
WIDTH = 64
_WORD = re.compile(r"\w+")
_WORD_ROWS, _PLACE_ROWS = 1.0, 0.5


def word_ids(text: str) -> list[int]:
    """One number per word, of the first five words."""
    return [zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())][:PLACES]


def features(ids: list[int]) -> Tensor:
    """(5, 64) float32 of a text of these words; zeros where it ends, of which the empty text is full."""
    rows = [_WORD_ROWS * _signs(word) + _PLACE_ROWS * _signs(place) for place, word in enumerate(ids)]
    rows += [torch.zeros(WIDTH)] * (PLACES - len(rows))
    return torch.stack(rows)


def _signs(number: int) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) of a number, as 64 signs."""
    word, full = (number * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & (2**64 - 1), 2**64 - 1
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & full
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & full
    word ^= word >> 31
    return torch.tensor([1.0 if word >> bit & 1 else -1.0 for bit in range(WIDTH)])


class WordTokenizer:
    """What ComfyUI asks of a tokenizer."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        """Needs nothing."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options: Any) -> dict[str, list[int]]:
        """The words' numbers; weights of words are not known here."""
        return {"words": word_ids(text)}


class WordTable(nn.Module):
    """What ComfyUI asks of a text encoder."""

    def __init__(self, dtype: Any = None, device: Any = None, model_options: Any = None) -> None:
        """Holds one number, because ComfyUI sorts models by their weights."""
        super().__init__()
        self.dtypes = {torch.float32}
        self.rows = nn.Parameter(torch.tensor([_WORD_ROWS, _PLACE_ROWS]), requires_grad=False)

    def encode_token_weights(self, tokens: dict[str, list[int]]) -> tuple[Tensor, None]:
        """Features (1, 5, 64), and no pooled ones."""
        return features(tokens["words"])[None], None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """There are none."""

    def reset_clip_options(self) -> None:
        """There are none."""


def make_clip() -> Any:
    """The word table as ComfyUI's CLIP."""
    import comfy.sd
    from comfy.supported_models_base import ClipTarget

    return comfy.sd.CLIP(ClipTarget(WordTokenizer, WordTable))
