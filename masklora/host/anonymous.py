"""Texts without what tells who or where somebody is: paths, names of people, pictures and runs, captions."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What may stand in the name of a file or folder, as far as a sentence lets one tell where it ends.
_INNER = r"[^:;,\"'()\[\]<>|*?\n\r\t]"
_SUFFIXES = "png|jpe?g|webp|bmp|tiff?|gif|avif|jxl|txt|caption|jsonl?|csv|ya?ml|safetensors|ckpt|pth?|bin|gguf|sft|zip"
_QUOTED = (
    r"\"(?=\S)[^\"\n]+\"",
    r"'(?=\S)[^\n]+?'(?!\w)",
    r"«[^»\n]+»",
    r"\u201c[^\u201d\n]+\u201d",
    r"\u2018[^\u2019\n]+\u2019",
)
# A disk, a share, the root, a home folder.
_ROOT = r"(?:\b[A-Za-z]:[\\/]|\\\\|(?<![\w.:/<])/(?=[^\s/])|~[\\/])"
_BRANCH = r"(?!\d+/\d+\b)[^\s:;,\"'()\[\]<>|*?]+[\\/]"
_PATTERNS = (
    # An apostrophe within a word quotes nothing.
    (re.compile(rf"(?<!\w)(?:{'|'.join(_QUOTED)})"), "<quoted>"),
    (re.compile(_ROOT + _INNER + "*"), "<path>"),
    (re.compile(_BRANCH + _INNER + "*"), "<path>"),
    (re.compile(rf"(?:(?!\.){_INNER})*(?:\.[\w-]+)*\.(?:{_SUFFIXES})\b", re.IGNORECASE), " <file>"),
)
# A shorter word says nothing of anybody, and would be cut out of others.
_SHORTEST = 2


def anonymous(text: str, secrets: Iterable[str]) -> str:
    """`text` in one line, with every secret, path, file name and quotation replaced by what it is.

    Rather too much goes than too little: a path takes the words behind it along, and a file name those before it, up
    to the next mark of punctuation.

    Args:
        text: As people were told it.
        secrets: Words and sentences that are known to be somebody's own, such as a user's name and captions.
    """
    lower = text.casefold()
    known = {one.strip() for one in secrets if len(one.strip()) >= _SHORTEST and one.strip().casefold() in lower}
    for secret in sorted(known, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "<own>", text, flags=re.IGNORECASE)
    for pattern, word in _PATTERNS:
        text = pattern.sub(word, text)
    return " ".join(text.split())
