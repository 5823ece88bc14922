"""What a clip says of itself, and which files may be clips."""

from __future__ import annotations

from dataclasses import dataclass

CLIP_EXTENSIONS = frozenset({".mp4", ".m4v", ".webm", ".mov", ".mkv", ".avi"})
# Files of these may be animated or one still picture.
ANIMATED_EXTENSIONS = frozenset({".gif", ".webp", ".png", ".apng"})


@dataclass(frozen=True)
class ClipHeader:
    """What a clip says of itself before decoding.

    Attributes:
        size: (width, height) as it is shown: turned as its rotation flag says, pixels made square.
        frames: Number of frames as the container tells it; where it tells none counted, in large files estimated.
        rate: Frames per second on average; 0 where it is unknown, as in a folder of numbered pictures.
        duration: Seconds; 0 where it is unknown.
        alpha: Whether it has an alpha band or transparent colours.
        reading: Stands for what is done to the stored frames before they are shown: rotated, square-pixels,
            deinterlaced, 10-bit (or more), hdr, wide-gamut. Words with blanks between them; usually empty.
    """

    size: tuple[int, int]
    frames: int
    rate: float
    duration: float
    alpha: bool
    reading: str = ""
