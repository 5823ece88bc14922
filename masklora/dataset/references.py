"""References: the pictures that a model is given beside the caption, found, checked and decoded."""

from __future__ import annotations

import filecmp
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..findings import of_kinds, printable
from ..folder.leftovers import shown
from ..folder.listing import Item
from ..folder.report import MatchReport
from ..pictures.reading import ImageData, read_header, read_image
from ..settings import DatasetSettings
from .geometry import ASPECT_TOLERANCE
from .sample import Reference, Sample, naming


@dataclass
class Pairing:
    """The references of a folder's pictures as they are read one by one, and what a person should know of them.

    Attributes:
        settings: What a picture that lacks a reference means.
    """

    settings: DatasetSettings
    _paired: list[str] = field(default_factory=list)
    _lacking: dict[str, str] = field(default_factory=dict)
    _same: list[str] = field(default_factory=list)
    _small: list[str] = field(default_factory=list)
    _other: list[str] = field(default_factory=list)
    _turned: list[str] = field(default_factory=list)

    def references_of(self, item: Item, size: tuple[int, int]) -> tuple[Reference, ...] | None:
        """The references of a picture of that (width, height), in order; None where it is left out for want of one.

        Raises:
            DataError: One cannot be read, or is a clip or that of a clip.
        """
        if not item.references:
            return ()
        name = printable(item.relative)
        there = [one for one in item.references if one is not None]
        if item.moving and there:
            raise DataError(
                f"{name}: it is a clip, and {there[0].label} would be its reference. References are taken of pictures "
                "only: load the clips from another folder, and join both with Merge Datasets."
            )
        if len(there) < len(item.references):
            folders = [text for text, one in zip(self._folders(), item.references, strict=True) if one is None]
            self._lacking[name] = ", ".join(folders)
            if self.settings.missing_reference == "skip image":
                return None
        else:
            self._paired.append(name)
        found = []
        for one in there:
            if one.moving:
                raise DataError(
                    f"{name}: its reference {one.label} is a clip. Save it as a still picture, or take it away."
                )
            label = f"{name} (reference {one.label})"
            with naming(one.path, label):
                header = read_header(one.path)
            reference = Reference(one.label, header.size, one.path, alpha=header.alpha, reading=header.reading)
            self._look(reference, name, item.image, size)
            found.append(reference)
        return tuple(found)

    def check(self) -> None:
        """Nothing unless pictures lack a reference and that is an error, which is raised: all are told at once."""
        if self._lacking and self.settings.missing_reference == "error":
            told = [f"{name} (in {folders})" for name, folders in self._lacking.items()]
            raise DataError(
                f"{of_kinds(len(told), 0)} without a reference: {shown(told)}. Put one of the same name there, or set "
                "missing_reference."
            )

    def reported(self, report: MatchReport) -> MatchReport:
        """`report` with what was found."""
        if not self._paired and not self._lacking:
            return report
        skips = self.settings.missing_reference == "skip image"
        return replace(
            report,
            paired=tuple(dict.fromkeys(self._paired)),
            unpaired=() if skips else tuple(self._lacking),
            left_unpaired=tuple(self._lacking) if skips else (),
            reference_same=tuple(dict.fromkeys(self._same)),
            reference_small=tuple(dict.fromkeys(self._small)),
            reference_other=tuple(dict.fromkeys(self._other)),
            reference_turned=tuple(dict.fromkeys(self._turned)),
        )

    def _folders(self) -> list[str]:
        return [Path(text).name for text in self.settings.reference_folders.splitlines()]

    def _look(self, reference: Reference, name: str, target: Path, size: tuple[int, int]) -> None:
        told = f"{reference.name} ({_sized(reference.size)} for {_sized(size)})"
        if reference.path is not None and _same_bytes(reference.path, target):
            self._same.append(reference.name)
        if is_turned(reference.size, size):
            self._turned.append(told)
        elif not same_aspect(reference.size, size):
            self._other.append(told)
        elif reference.size[0] < size[0] and reference.size != size:
            self._small.append(told)


def same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes, (width, height), have the same aspect within 1 %."""
    return abs((one[0] * other[1]) / (one[1] * other[0]) - 1) <= ASPECT_TOLERANCE


def is_turned(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one of two sizes, (width, height), is upright and the other lies on its side."""
    return (one[0] - one[1]) * (other[0] - other[1]) < 0


def aspect_faults(sample: Sample) -> list[str]:
    """What keeps the references of a sample from sharing its geometry, one sentence without its end for each."""
    return [
        f"{sample.name}: the reference {one.name} is {_sized(one.size)} but the picture is {_sized(sample.size)}"
        for one in sample.references
        if not same_aspect(one.size, sample.size)
    ]


def load_reference(reference: Reference) -> ImageData:
    """The decoded reference, by the same reader as pictures: upright RGB uint8 (H, W, 3), and its alpha.

    Raises:
        DataError: It cannot be read.
    """
    if reference.image is not None:
        image = reference.image
        rgb = np.rint(np.clip(image[..., :3], 0, 1) * 255).astype(np.uint8)
        alpha = image[..., 3].astype(np.float32) if image.shape[2] == 4 else None
        return ImageData(rgb, None if alpha is None or bool((alpha >= 1).all()) else np.clip(alpha, 0, 1))
    path = reference_path(reference)
    with naming(path, f"reference {reference.name}"):
        return read_image(path)


def reference_path(reference: Reference) -> Path:
    """The file of a reference that is not in memory; raises `DataError` for one that has neither."""
    if reference.path is None:
        raise DataError(f"{reference.name}: the reference has neither a file nor a picture in memory.")
    return reference.path


def _sized(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size and filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
