"""Files that lie in a folder and are not used: by kind, with what to do about them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ..findings import Finding, note, warning, worded
from .mask_names import has_mask_word

NAMES_SHOWN = 8
SYSTEM_FOLDERS = {"@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "@snapshot", "@sharebin", "@tmp"}
SYSTEM_FOLDERS |= {"@__thumb", "@synoresource", "lost+found", "thumbnails", "thumbs", "__macosx", "$recycle.bin"}
SYSTEM_FOLDERS |= {"recycler", "found.000", "__pycache__", "system volume information"}
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
# What a person calls a picture, whether or not it can be read here.
PICTURE_LIKE = {
    ".heic",
    ".heif",
    ".hif",
    ".jxl",
    ".jp2",
    ".j2k",
    ".jpx",
    ".jpf",
    ".jpc",
    ".j2c",
    ".jpe",
    ".tga",
    ".icb",
}
PICTURE_LIKE |= {".vda", ".vst", ".apng", ".avifs", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".mpo", ".dng"}
PICTURE_LIKE |= {".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".psd", ".psb", ".xcf"}
PICTURE_LIKE |= {".kra", ".svg", ".exr", ".hdr", ".ico", ".pcx"}
VIDEOS = frozenset({".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".3gp", ".mts", ".m2ts", ".vob"})
# In what else masks are stored by programs, and packed for download.
_ARRAYS = frozenset({".npy", ".npz", ".pt", ".pth", ".mat", ".h5", ".zip", ".7z", ".rar", ".tar", ".gz", ""})
CAPTION_LIKE = frozenset({".json", ".jsonl", ".csv", ".tsv", ".md", ".rtf", ".xml", ".yaml", ".yml", ".parquet"})

PICTURE, VIDEO, BROKEN, MASK, LONE_MASK, CAPTION = "picture", "video", "broken", "mask", "lone mask", "caption"
CLOSED_MASK, ODD_MASK, DOUBLE = "closed mask", "odd mask", "double"
OTHER_CAPTION, LIST, ROW, FOLDER, SYSTEM, OTHER = "other caption", "list", "row", "subfolder", "system", "other"

_TOLD: dict[str, tuple[bool, str, str]] = {
    PICTURE: (
        True,
        "[looks like a picture|look like pictures] but cannot be read here, and [is|are] left out",
        "Convert them to PNG or JPEG; for HEIC install pillow-heif, for JPEG XL pillow-jxl-plugin.",
    ),
    VIDEO: (
        True,
        "[is a video of a kind that is|are videos of kinds that are] not read, and [is|are] left out",
        "Save them as MP4, or the pictures that you want as PNG or JPEG.",
    ),
    BROKEN: (
        True,
        "[is a link that leads|are links that lead] nowhere or in a circle, or no regular [file|files], and left out",
        "Connect the drive that they lead to, or remove them.",
    ),
    MASK: (
        True,
        "[is named like a mask and is|are named like masks and are] not used",
        "Choose the mask_source that takes them, or move them away.",
    ),
    CLOSED_MASK: (
        True,
        "[is named like a mask, but is of a format|are named like masks, but are of formats] that cannot be read here, "
        "and [is|are] left out",
        "Save them as PNG, named <picture>_mask.png.",
    ),
    LONE_MASK: (
        True,
        "[looks like a mask of a picture that is|look like masks of pictures that are] not here, and [is|are] left out",
        "Add the picture, remove the mask, or rename the file if it is a picture of its own.",
    ),
    ODD_MASK: (
        True,
        "[looks like a mask of a picture that is|look like masks of pictures that are] here, but not by "
        "[its whole name, and is|their whole names, and are] left out",
        "To use one, name it <picture>_mask.png; if it is a picture of its own, write a caption for it or rename it.",
    ),
    DOUBLE: (
        True,
        "[is black and white or flat and has the name of a picture|are black and white or flat and have the names of "
        "pictures] in many colours, as masks have, and [is|are] left out",
        "To use them, name their folder as mask_folder, or call each <picture>_mask.png; if they are pictures, give "
        "them other names, or choose mask_source none.",
    ),
    CAPTION: (
        True,
        "[looks like a caption of a picture that is|look like captions of pictures that are] not here",
        "A caption has the name of its picture: cat.txt for cat.jpg.",
    ),
    OTHER_CAPTION: (
        False,
        "[looks like a caption of a picture that has|look like captions of pictures that have] one from another file, "
        "and [is|are] not used",
        "Set caption_extension to theirs to use them.",
    ),
    LIST: (
        True,
        "may hold captions, but [is|are] not read",
        "Captions are read from text files beside the pictures and from metadata.jsonl.",
    ),
    ROW: (
        True,
        "of captions [names no picture or holds|name no picture or hold] no text, and [is|are] not used",
        'Write each as {"file_name": "cat.jpg", "text": "a cat"}.',
    ),
    FOLDER: (
        False,
        "[is a subfolder, which is|are subfolders, which are] not looked at because subfolders is off",
        "Turn it on to take what lies there.",
    ),
    SYSTEM: (False, "[belongs|belong] to the operating system or a NAS or [is|are] hidden, and left out", ""),
    OTHER: (False, "[is another file, which is|are other files, which are] passed over", ""),
}

_COUNTED = {FOLDER: "", ROW: " [line|lines]", SYSTEM: " [file or folder|files or folders]"}


class Leftover(NamedTuple):
    """A file or folder that is not used: its kind, one of this module's, and its relative name."""

    kind: str
    name: str


def is_system(name: str) -> bool:
    """Whether a file or folder belongs to a system, a NAS or a browser of pictures, and not to the person."""
    folded = name.casefold()
    return folded.startswith(".") or folded in SYSTEM_FOLDERS or folded in SYSTEM_FILES


def kind_of(name: str, extension: str, *, starts: bytes = b"") -> str:
    """The kind of a file that nothing has used, by its extension (lower case) or, without one, by its first bytes."""
    if extension in PICTURE_LIKE or (not extension and _is_picture(starts)):
        return CLOSED_MASK if has_mask_word(name) else PICTURE
    if extension in _ARRAYS and has_mask_word(name):
        return CLOSED_MASK
    if extension in VIDEOS:
        return VIDEO
    return LIST if extension in CAPTION_LIKE else OTHER


def leftover_findings(leftovers: Iterable[Leftover], *, captions_missing: bool) -> list[Finding]:
    """One sentence for each kind: how many, of which extensions, the first by name, and what to do.

    Args:
        leftovers: what was not used.
        captions_missing: whether pictures lack captions, which makes files that may hold them a matter of concern.
    """
    by_kind: dict[str, list[str]] = {}
    for kind, name in leftovers:
        by_kind.setdefault(kind, []).append(name)
    found = []
    for kind, (grave, text, remedy) in _TOLD.items():
        names = by_kind.get(kind)
        if not names:
            continue
        what = _COUNTED.get(kind, " [file|files]")
        told = f"{len(names)}{worded(len(names), what)}{_extensions(names)} {worded(len(names), text)}"
        sentence = f"{told}: {shown(names)}.{f' {remedy}' if remedy else ''}"
        worth = grave and (captions_missing or kind not in (LIST, ROW, CAPTION))
        found.append(warning(sentence) if worth else note(sentence))
    return found


def shown(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"


def _extensions(names: list[str]) -> str:
    # Lines of lists have none, but the names of their files and pictures do.
    ends = (os.path.splitext(name)[1].lower() for name in names)  # noqa: PTH122
    counted = Counter(end if end[1:].isalnum() else "no extension" for end in ends)
    if len(counted) == 1 and "no extension" in counted:
        return ""
    told = ", ".join(f"{count} {extension}" for extension, count in counted.most_common(6))
    return f" ({told})"


def _is_picture(starts: bytes) -> bool:
    signatures = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cJXL", b"\xff\x0a")
    return starts.startswith(signatures) or starts[8:12] == b"WEBP" or starts[4:8] == b"ftyp"
