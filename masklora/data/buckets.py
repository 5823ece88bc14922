"""Which training size each picture gets: aspect buckets under one pixel budget."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import CacheSettings
from ..errors import ConfigError, DataError

MAX_ASPECT = 4.0
Size = tuple[int, int]


def make_buckets(resolution: int, step: int, *, max_aspect: float = MAX_ASPECT) -> list[Size]:
    """All bucket sizes (width, height), widest last.

    For every width that is a multiple of `step`, the tallest height that is one too and keeps the area
    within resolution² pixels; and the same with the sides swapped.

    Raises:
        ConfigError: The resolution is smaller than one step.
    """
    if step < 1 or resolution < step:
        raise ConfigError(
            f"resolution: expected at least the bucket step {step}, got {resolution}. "
            "Raise the resolution or lower the bucket step."
        )
    budget = resolution * resolution
    found: set[Size] = set()
    side = step
    while side * step <= budget:
        other = budget // side // step * step
        if max(side, other) <= max_aspect * min(side, other):
            found |= {(side, other), (other, side)}
        side += step
    return sorted(found)


def choose_bucket(size: Size, settings: CacheSettings) -> Size | None:
    """The bucket for a picture of `size` (width, height), or None if it is smaller than every bucket.

    Among the buckets of `make_buckets`, the one that keeps most of the picture, the larger of equals; with
    bucketing off the one square. If that would enlarge the picture and upscaling is off, the largest
    multiple of the step that fits inside the picture instead.
    """
    step = settings.bucket_step
    if settings.bucketing:
        candidates = make_buckets(settings.resolution, step)
    else:
        make_buckets(settings.resolution, step)
        side = settings.resolution // step * step
        candidates = [(side, side)]
    best = max(candidates, key=lambda bucket: (kept_share(size, bucket), bucket[0] * bucket[1], bucket))
    if settings.upscale or (best[0] <= size[0] and best[1] <= size[1]):
        return best
    return _fitting(size, settings)


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
            f"bucket step: expected a multiple of {multiple} for this VAE and model, "
            f"got {settings.bucket_step}."
        )
    memo: dict[Size, Size | None] = {}
    for size in sizes:
        if size not in memo:
            memo[size] = choose_bucket(size, settings)
    tiny = [i for i, size in enumerate(sizes) if memo[size] is None]
    if tiny:
        step = settings.bucket_step
        listed = ", ".join(
            f"{names[i] if names else f'picture {i}'} ({sizes[i][0]}×{sizes[i][1]})" for i in tiny[:5]
        )
        more = f" and {len(tiny) - 5} more" if len(tiny) > 5 else ""
        raise DataError(
            f"{listed}{more}: smaller than the smallest bucket of {step}×{step}. "
            "Remove the picture, lower the bucket step, or allow upscaling."
        )
    return [memo[size] for size in sizes]  # type: ignore[misc]


def _fitting(size: Size, settings: CacheSettings) -> Size | None:
    step, budget = settings.bucket_step, settings.resolution**2
    best: tuple[float, Size] | None = None
    widths = range(step, size[0] + 1, step)
    for width in widths:
        height = min(size[1], budget // width) // step * step
        height = min(height, int(width * MAX_ASPECT) // step * step)
        if height < step or width > MAX_ASPECT * height:
            continue
        if not settings.bucketing:
            width = height = min(width, height)
        score = width * height * kept_share(size, (width, height)) ** 2
        if best is None or score > best[0]:
            best = (score, (width, height))
    return best[1] if best else None
