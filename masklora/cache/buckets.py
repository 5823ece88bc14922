"""Which training size each picture gets: aspect buckets under one pixel budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError, DataError
from ..settings import CacheSettings, about

MAX_ASPECT = 4.0
Size = tuple[int, int]


def resolutions(settings: CacheSettings) -> tuple[int, ...]:
    """Every resolution at which each picture is trained: that of `resolution` first, the others from large to small.

    Raises:
        ConfigError: `more_resolutions` holds something else than whole numbers in the range of `resolution`.
    """
    words = settings.more_resolutions.replace(",", " ").replace(";", " ").split()
    least, most = about(settings, "resolution").metadata["range"]
    for word in words:
        if not word.isdecimal() or not least <= int(word) <= most:
            raise ConfigError(
                f"more_resolutions: expected whole numbers from {least} to {most}, such as 512, 768; got {word!r}. "
                "Correct it, or empty it for one resolution."
            )
    others = sorted({int(word) for word in words} - {settings.resolution}, reverse=True)
    return settings.resolution, *others


def make_buckets(resolution: int, step: int, *, max_aspect: float = MAX_ASPECT) -> list[Size]:
    """All bucket sizes (width, height), sorted: sides that `step` divides, at most resolution² pixels.

    Raises:
        ConfigError: The resolution is smaller than one step.
    """
    if step < 1 or resolution < step:
        raise ConfigError(
            f"resolution: expected at least the bucket step {step}, got {resolution}. "
            "Raise the resolution or lower the bucket step."
        )
    budget = resolution * resolution
    return [
        (width, height)
        for width in range(step, budget // step + 1, step)
        for height in range(step, budget // width + 1, step)
        if max(width, height) <= max_aspect * min(width, height)
    ]


def choose_bucket(size: Size, settings: CacheSettings, *, buckets: Sequence[Size] = ()) -> Size | None:
    """The bucket for a picture of `size` (width, height), or None if it is smaller than every bucket.

    The one with the largest area times the square of `kept_share`: a bucket of nearly the picture's aspect is
    better than one a few pixels larger that crops. Without upscaling only buckets that fit inside the picture
    count, so small pictures get small ones; with bucketing off only squares.

    Args:
        size: Width and height after EXIF orientation.
        settings: Resolution, bucket step, bucketing, upscale.
        buckets: `make_buckets`' result, to make it once for many pictures.
    """
    usable = np.array(buckets or make_buckets(settings.resolution, settings.bucket_step), dtype=np.int64)
    if not settings.bucketing:
        usable = usable[usable[:, 0] == usable[:, 1]]
    if not settings.upscale:
        usable = usable[(usable[:, 0] <= size[0]) & (usable[:, 1] <= size[1])]
    if not len(usable):
        return None
    cross, other = size[0] * usable[:, 1], size[1] * usable[:, 0]
    kept = np.minimum(cross, other) / np.maximum(cross, other)
    best = usable[np.argmax(usable.prod(axis=1) * kept**2)]
    return int(best[0]), int(best[1])


def kept_share(size: Size, bucket: Size) -> float:
    """Share of a picture's area that is left after it is cropped to the bucket's aspect, in 0..1."""
    cross, other = size[0] * bucket[1], size[1] * bucket[0]
    return min(cross, other) / max(cross, other)


def assign(
    sizes: Sequence[Size], settings: CacheSettings, *, multiple: int = 1, names: Sequence[str] | None = None
) -> list[Size]:
    """The bucket (width, height) of each picture, in the order of `sizes`.

    Args:
        sizes: Width and height of every picture after EXIF orientation.
        settings: Resolution, bucket step, bucketing and upscale.
        multiple: What every side must divide by: the model's stride times its patch size.
        names: Names of the pictures for the message.

    Raises:
        ConfigError: The bucket step is no multiple of `multiple`.
        DataError: Pictures are smaller than one bucket step and upscaling is off.
    """
    if settings.bucket_step % multiple:
        raise ConfigError(
            f"bucket step: expected a multiple of {multiple} for this VAE and model, got {settings.bucket_step}."
        )
    buckets = make_buckets(settings.resolution, settings.bucket_step)
    memo: dict[Size, Size | None] = {}
    for size in sizes:
        if size not in memo:
            memo[size] = choose_bucket(size, settings, buckets=buckets)
    tiny = [i for i, size in enumerate(sizes) if memo[size] is None]
    if tiny:
        step = settings.bucket_step
        listed = ", ".join(f"{names[i] if names else f'picture {i}'} ({sizes[i][0]}×{sizes[i][1]})" for i in tiny[:5])
        more = f" and {len(tiny) - 5} more" if len(tiny) > 5 else ""
        raise DataError(
            f"{listed}{more}: smaller than the smallest bucket of {step}×{step}. "
            "Remove the picture, lower the bucket step, or allow upscaling."
        )
    return [memo[size] for size in sizes]  # type: ignore[misc]
