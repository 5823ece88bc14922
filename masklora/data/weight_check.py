"""Whether a cache holds anything to learn from."""

from __future__ import annotations

from ..errors import MaskError
from .cache import Cache


def require_weight(cache: Cache) -> None:
    """Nothing if some picture has weight at its training geometry; stops at the first that has.

    Regularisation pictures do not count: without a subject beside them they teach nothing.

    Raises:
        MaskError: Every mask is black at the training size.
    """
    entries = [entry for entry in cache.entries if not entry.regularisation]
    for entry in entries:
        if not entry.has_mask:
            return
        if any(bool(cache.mask(entry, variant).any()) for variant in range(entry.variants)):
            return
    if entries:
        raise MaskError(
            f"All {len(entries)} masks are black at the training size, beginning with {entries[0].name}: "
            "nothing would be learned. White means learn; turn on invert in Transform Masks if yours mean the "
            "opposite, or grow them if they are tiny."
        )
