"""Caption words as CLIP token ids, so that training the base needs no tokenizer.

The ids are those of CLIP's public byte-pair vocabulary; a test compares them with ComfyUI's own tokenizer.
"""

from __future__ import annotations

from .text import END_TOKEN, START_TOKEN

WORDS = 13  # caption tokens kept: all later ones are identical padding

WORD_IDS = {
    "a": 320, "on": 525,
    "ball": 1069, "square": 3999, "triangle": 14615, "star": 1565, "heart": 1936, "ring": 2540, "cross": 3417,
    "moon": 3293,
    "red": 736, "yellow": 4481, "green": 1901, "blue": 1746, "purple": 5496, "black": 1449,
    "white": 1579, "paper": 2802, "grey": 5046, "stone": 2441, "stripes": 14239, "pink": 3360, "dots": 19019,
    "checks": 13737, "sunset": 3424, "sky": 2390, "hills": 5289, "brown": 2866, "bricks": 21029,
}  # fmt: skip
TRIGGER_IDS = (2651, 5924)


def caption_ids(caption: str) -> list[int]:
    """The first 13 of CLIP's 77 token ids for a caption of known words; `<1234>` stands for that id itself.

    Raises:
        KeyError: a word that the table does not hold.
    """
    words = [int(word[1:-1]) if word.startswith("<") else WORD_IDS[word] for word in caption.split()]
    return ([START_TOKEN, *words] + [END_TOKEN] * WORDS)[:WORDS]
