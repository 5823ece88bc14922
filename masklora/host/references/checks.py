"""Whether a model, a data set's reference pictures and the settings go together, and what a person should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ConfigError, FamilyError
from ...findings import Finding, counted, note, warning
from ..families import References, families
from .conditions import is_inpainting

if TYPE_CHECKING:
    from ...cache.plan import Entry
    from ..model.trainable import TrainableModel


@dataclass(frozen=True)
class ReferenceRule:
    """What a cache does with reference pictures where its settings leave that to the model.

    Attributes:
        own_size: Whether they keep their own aspect; else they are cut as the picture that is learned is.
        pictures: How the text encoder is shown them, a name in `ways.WAYS`; "" where it is not.
    """

    own_size: bool = False
    pictures: str = ""


def references_of(trainable: TrainableModel) -> References | None:
    """How the model is given reference pictures; None where it takes none, as one for inpainting does."""
    return None if is_inpainting(trainable) else trainable.family.references


def rule_of(trainable: TrainableModel) -> ReferenceRule:
    """What a cache for the model does with reference pictures."""
    found = references_of(trainable)
    return ReferenceRule() if found is None else ReferenceRule(found.own_size, found.pictures)


def check_references(trainable: TrainableModel, entries: Sequence[Entry]) -> None:
    """Nothing if the model takes the reference pictures that these entries have, or that they have none.

    Raises:
        FamilyError: It takes none.
        ConfigError: It makes nothing without one, a picture has too many, or a clip has one.
    """
    given, title = [entry for entry in entries if entry.reference_sizes], trainable.family.title
    takes = references_of(trainable)
    if takes is None:
        if given:
            raise FamilyError(
                f"reference_folders: {given[0].name} has a reference picture, and this {title} model takes none. Empty "
                f"reference_folders in Load Dataset, or train a model that does: {_taking()}."
            )
        return
    bare = next((entry for entry in entries if not entry.reference_sizes), None)
    if takes.needed and bare is not None:
        raise ConfigError(
            f"reference_folders: {title} edits a reference picture, and {bare.name} has none. Name a folder of them in "
            "Load Dataset."
        )
    for entry in given:
        if entry.latent_frames:
            raise ConfigError(
                f"reference_folders: {entry.name} is a clip, and references are for pictures. Empty reference_folders "
                "in Load Dataset."
            )
        if len(entry.reference_sizes) > takes.most:
            raise ConfigError(
                f"reference_folders: {entry.name} has {len(entry.reference_sizes)} reference pictures, and {title} "
                f"takes {takes.most}. Name fewer folders in Load Dataset."
            )


def check_captions(trainable: TrainableModel, entries: Sequence[Entry]) -> None:
    """Nothing if captions were made as the model's text encoder is shown their reference pictures.

    Raises:
        ConfigError: The text encoder was not shown them.
    """
    takes = references_of(trainable)
    for entry in entries if takes is not None and takes.pictures else ():
        if entry.reference_sizes and not entry.empty_key:
            raise ConfigError(
                f"cache: the CLIP of {trainable.family.title} is shown the reference pictures with each caption, and "
                f"that of {entry.name} was made without. Connect the MODEL to Cache Dataset."
            )


def check_shown(trainable: TrainableModel, number: int) -> None:
    """Nothing if sample pictures of the model can have so many reference pictures, of one prompt the most.

    Raises:
        FamilyError: It takes none.
        ConfigError: It takes fewer, or makes nothing without one.
    """
    takes, title = references_of(trainable), trainable.family.title
    if takes is not None and takes.needed and not number:
        raise ConfigError(
            f"samples: {title} edits a reference picture, and the prompts have none. Connect references, or the data "
            "set, to Sample Pictures."
        )
    if number and takes is None:
        raise FamilyError(f"samples: {title} takes no reference pictures. Disconnect them from Sample Pictures.")
    if takes is not None and number > takes.most:
        raise ConfigError(
            f"samples: a prompt has {number} reference pictures, and {title} takes {takes.most}. Connect fewer to "
            "Sample Pictures."
        )


def _taking() -> str:
    return ", ".join(family.title for family in families() if family.references)


def reference_notes(trainable: TrainableModel, entries: Sequence[Entry], *, samples: bool | None) -> list[Finding]:
    """What a person should know of references before the first step.

    Args:
        trainable: The model.
        entries: Of the cache.
        samples: Whether sample pictures have references too; None where none are drawn.
    """
    given = sum(bool(entry.reference_sizes) for entry in entries)
    if not given:
        return []
    title, found = trainable.family.title, []
    found.append(
        note(
            f"reference_folders: {title} is shown the reference pictures, which are neither learned nor dropped; the "
            "mask is for the picture that is learned. The base model is shown them too where it is asked. The leak "
            "that is measured counts a background that they show as well."
        )
    )
    if given < len(entries):
        bare = counted(len(entries) - given, "[picture has none and is|pictures have none and are]")
        found.append(note(f"reference_folders: {bare} learned as from text alone."))
    takes = references_of(trainable)
    if takes is not None and not takes.own_size and any(e.bucket != s for e in entries for s in e.reference_sizes):
        found.append(
            warning(
                f"reference_size: {title} looks for each thing of the picture at the same place of its reference, and "
                'some are of another size. Set reference_size in Cache Dataset to "as the target".'
            )
        )
    if samples is False:
        found.append(
            warning(
                "samples: the model learns with reference pictures, and the sample pictures have none. Connect some to "
                "references in Sample Pictures."
            )
        )
    return found
