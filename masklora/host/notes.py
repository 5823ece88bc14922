"""Lines for people on settings that do nothing with the data they are given."""

from __future__ import annotations

from ..cache.cache import Cache
from ..findings import worded
from ..loss.tokens import parse_routes
from ..settings import LossSettings


def cache_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on what the loss asks for and does not find: mask channels, replaced backgrounds, triggers, tokens."""
    notes = [*_channel_notes(loss, cache), *_trigger_notes(loss, cache), *_token_notes(loss, cache)]
    masked = [entry for entry in cache.entries if entry.has_mask]
    replaced = any(entry.infills for entry in masked)
    if loss.infill_probability > 0 and masked and not replaced:
        notes.append("Every step sees the pictures' own backgrounds: infill_variants of Cache Dataset is 0.")
    if loss.infill_probability == 0 and replaced:
        notes.append("The replaced backgrounds in the cache are not used: infill_probability is 0.")
    weighing = [name for name in ("floor", "outside_share") if getattr(loss, name) > 0]
    weighing += ["mask_probability"] if loss.mask_probability < 1 else []
    if loss.infill_probability > 0 and replaced and weighing:
        notes.append(
            f"{' and '.join(weighing)} gives weight to what lies outside of the masks, but not where the background "
            "was replaced: that is not the picture's. Set infill_probability to 0 in Masked Loss to learn the "
            "background in every step."
        )
    return notes


def _trigger_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on pictures whose captions have no trigger word, where that is asked for."""
    if loss.preservation_weight <= 0:
        return []
    named = [entry for entry in cache.entries if not entry.regularisation]
    without = [entry.name for entry in named if not any(caption.plain_key for caption in entry.captions)]
    if not without:
        return []
    lack = worded(len(without), "[has|have] no trigger word")
    which = f"{len(without)} of {len(named)} captions {lack}, such as that of {without[0]}"
    if len(without) == len(named):
        which = "No caption has a trigger word"
    return [
        f"{which}: preservation_weight does nothing there. Write a trigger_word in Load Dataset, or set "
        "preservation_weight to 0."
    ]


def _token_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on token settings that other settings, or the data, leave without effect."""
    notes = []
    if loss.attention_mask and not any(entry.has_mask for entry in cache.entries):
        notes.append("attention_mask hides nothing: no picture has a mask. Switch it off, or give the pictures masks.")
    elif loss.attention_mask and loss.floor > 0 and loss.weight_threshold == 0:
        notes.append(
            f"attention_mask hides nothing of a picture's own background: floor {loss.floor:g} gives weight to all of "
            "it. Set floor to 0 in Masked Loss, or switch attention_mask off."
        )
    if parse_routes(loss.routes) and loss.route_until == 0:
        notes.append("routes do nothing: route_until is 0. Set it to the share of the run that is to be routed.")
    return notes


def _channel_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on data sets whose masks were read from another channel than the loss preset's trainer reads."""
    wanted = loss.mask_channel
    read = {s["settings"]["mask_channel"] for s in cache.sources if s["settings"]["mask_source"] != "alpha"}
    return [
        f"The preset {loss.preset} reads masks from their {wanted} channel, but a data set was read with "
        f"{channel}. For equal results set mask_channel to {wanted} in Load Dataset."
        for channel in sorted(read - {wanted})
        if wanted
    ]
