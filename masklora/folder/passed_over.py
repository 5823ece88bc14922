"""The files of a folder that nothing reads, by what they look like."""

from __future__ import annotations

from .caption_files import METADATA
from .captions import TEXT_EXTENSIONS
from .leftovers import Leftover, kind_of
from .mask_names import MASK_EXTENSION
from .tree import Tree

# Files without an extension whose first bytes are looked at.
MOST_STARTS = 1000


def passed_over(tree: Tree) -> list[Leftover]:
    """The files that are neither pictures, masks nor captions, by what they look like."""
    left, looked = [], 0
    for file in tree.others:
        if file.extension == MASK_EXTENSION or file.extension in TEXT_EXTENSIONS or file.name.casefold() == METADATA:
            continue
        starts = b""
        if not file.extension and looked < MOST_STARTS:
            looked += 1
            try:
                with file.path.open("rb") as opened:
                    starts = opened.read(16)
            except OSError:
                starts = b""
        left.append(Leftover(kind_of(file.stem, file.extension, starts=starts), file.label))
    return left
