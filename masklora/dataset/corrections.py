"""Masks and captions of a data set replaced by what other nodes made of them; no file is touched."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath

import numpy as np

from ..clips.reading import frame_times
from ..errors import ConfigError, DataError, MaskError
from ..folder.captions import as_loaded, caption_of_text
from ..pictures.packed_mask import PackedFrames, PackedMask, pack_mask
from ..settings import MaskTransform
from .loading import given_mask
from .sample import Dataset, Sample, source_path

SUGGESTIONS = 5


def find_picture(dataset: Dataset, text: str) -> int:
    """The position of the picture that a person means by `text`.

    Its name as the report shows it; without the extension; or without the subfolder, if only one picture
    fits. Accents count in either of their spellings.

    Raises:
        ConfigError: no picture fits (names the nearest) or several do.
    """
    wanted = _nfc(text.strip())
    names = [_nfc(sample.name) for sample in dataset.samples]
    for form in (str, _without_extension, _file_name, lambda name: _without_extension(_file_name(name))):
        found = [index for index, name in enumerate(names) if form(name) == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(names[index] for index in found[:SUGGESTIONS])
            raise ConfigError(
                f"picture: {text!r} fits {len(found)} pictures: {listed}. Write the name with its subfolder and "
                "extension; if data sets with equal names were merged, save them before they are merged."
            )
    near = difflib.get_close_matches(wanted, names, SUGGESTIONS, cutoff=0.4) or names[:SUGGESTIONS]
    raise ConfigError(
        f"picture: the dataset has no picture {text!r}. Expected a name such as {', '.join(near)}. "
        "The report of the dataset lists the names."
    )


def replace_masks(
    dataset: Dataset, masks: Sequence[np.ndarray], *, picture: int | None = None, invert: bool = False
) -> Dataset:
    """The data set with the given masks, packed in memory, in place of its own; transforms do not apply to them.

    Args:
        dataset: is not changed.
        masks: float32 (H, W) in 0..1, 1 = learn, at any scale of the picture's aspect: one for each picture in
            their order, or with `picture` a single one. A clip gets one for all of its frames, or one for each:
            `picture` then takes as many as it has frames, and otherwise every clip of the set has all of its own.
        picture: position of the only picture that gets a mask.
        invert: for masks in core's polarity, where 1 is transparent.

    Returns:
        A data set in which the empty 64×64 mask that core gives for an opaque picture means: no mask.

    Raises:
        MaskError: a count that does not fit, a mask of another aspect than its picture, or the empty mask
            for `picture`.
        DataError: a mask that is no (H, W) array, or holds values that are not finite.
    """
    chosen = range(len(dataset)) if picture is None else (picture,)
    samples = list(dataset.samples)
    for index, (mask, *others) in zip(chosen, _shared_out(dataset, picture, masks), strict=True):
        sample = samples[index]
        if others:
            samples[index] = _with_mask(sample, _packed_frames(sample, [mask, *others], invert))
            continue
        weights = given_mask(f"{sample.name} (input masks)", mask, sample.size, invert)
        if weights is None and picture is not None:
            raise MaskError(
                f"{sample.name} (input masks): got the empty mask that Load Image gives for an opaque picture. "
                "Paint a mask in the mask editor and save it there."
            )
        samples[index] = _with_mask(sample, None if weights is None else pack_mask(weights))
    return Dataset(tuple(samples), dataset.report)


def _shared_out(dataset: Dataset, picture: int | None, masks: Sequence[np.ndarray]) -> list[Sequence[np.ndarray]]:
    """The masks of each of the chosen samples: one, or of a clip as many as it has frames."""
    samples = dataset.samples if picture is None else (dataset.samples[picture],)
    if len(masks) == len(samples):
        return [[mask] for mask in masks]
    clips = [sample for sample in samples if sample.moving is not None]
    counts = [1 if sample.moving is None else len(frame_times(source_path(sample))) for sample in samples]
    if clips and len(masks) == sum(counts):
        rest = iter(masks)
        return [list(islice(rest, count)) for count in counts]
    expected = f"{len(samples)} (one per picture)" if picture is None else "one (picture names one picture)"
    frames = f", or {sum(counts)} (one per frame of a clip)" if clips else ""
    hint = " To replace the mask of one picture, write its name into picture." if len(masks) == 1 else ""
    raise MaskError(f"masks: expected {expected}{frames}, got {len(masks)}.{hint}")


def _packed_frames(sample: Sample, masks: Sequence[np.ndarray], invert: bool) -> PackedFrames:
    frames = []
    for number, mask in enumerate(masks):
        name = f"{sample.name}, frame {number} (input masks)"
        weights = given_mask(name, mask, sample.size, invert)
        if weights is None:
            raise MaskError(f"{name}: got the empty mask that Load Image gives for an opaque picture. Give it a mask.")
        frames.append(pack_mask(weights))
    return PackedFrames(tuple(frames))


def _with_mask(sample: Sample, mask: PackedMask | PackedFrames | None) -> Sample:
    plain = replace(sample, mask_path=None, mask_moving=False, parts=(), alpha=False, transform=MaskTransform())
    return replace(plain, mask=mask)


def replace_captions(dataset: Dataset, captions: Sequence[str], *, picture: int | None = None) -> Dataset:
    """The data set with the given captions in place of its own.

    Args:
        dataset: is not changed.
        captions: one for each picture in their order, or with `picture` a single one.
        picture: position of the only picture that gets a caption.

    Returns:
        A data set in which an empty text leaves a picture without a caption as it is: nodes that list captions
        give an empty text for those.

    Raises:
        DataError: a count that does not fit, or a text that no UTF-8 file can hold.
    """
    chosen = range(len(dataset)) if picture is None else (picture,)
    if len(captions) != len(chosen):
        expected = f"{len(chosen)} (one per picture)" if picture is None else "one (picture names one picture)"
        raise DataError(f"captions: expected {expected}, got {len(captions)}.")
    samples = list(dataset.samples)
    for index, text in zip(chosen, captions, strict=True):
        check_caption_text(samples[index], text)
        if text or samples[index].caption is not None:
            # Of a picture in memory a text is one caption, whatever its lines are.
            in_memory, settings = samples[index].image is not None, samples[index].settings.caption
            caption = caption_of_text(text) if in_memory else as_loaded(text, settings)
            samples[index] = replace(samples[index], caption=caption)
    return Dataset(tuple(samples), dataset.report)


def check_caption_text(sample: Sample, text: str) -> None:
    """Nothing if a UTF-8 file can hold the text and the loader reads it; else raises `DataError`."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{sample.name}: its caption holds half a character at position {error.start}, which UTF-8 cannot "
            "store. Check the node that made it."
        ) from error
    if "\0" in text:
        raise DataError(f"{sample.name}: its caption holds a zero byte. Check the node that made it.")


def _without_extension(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 (of a name, as the loader splits it)


def _file_name(name: str) -> str:
    return PurePosixPath(name).name


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
