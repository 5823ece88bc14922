"""What a save did and how to load it back, in lines for a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..dataset.sample import told_kinds
from ..findings import counted, worded
from ..settings import MaskTransform
from .targets import CLIP_MASKS, FOLDER_LAYOUTS, SaveSettings, Target

NAMES_SHOWN = 8
_LEFT_OUT = (
    "[sample|samples] of all subjects together [has|have] no file, mask or caption; loading makes [it|them] from "
    "[its|their]"
)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one target.

    Attributes:
        target: Sample and files.
        mask: "written", "same" (the file held it already), "edited" (the file holds what a person painted, which was
            kept) or "none" (no file). In the alpha layout the copy's.
        caption: The same of the caption.
        has_mask: Whether the sample now has a mask in its file.
        white: Whether that mask is white everywhere.
        replaced: How many of the files took the place of others.
    """

    target: Target
    mask: str
    caption: str
    has_mask: bool
    white: bool
    replaced: int = 0


def report_text(
    outcomes: list[Outcome], settings: SaveSettings, *, root: Path | None, only: bool, left_out: Sequence[str] = ()
) -> str:
    """Counts, what deserves attention, and last the settings that load the files back.

    Args:
        outcomes: of every target, at least one.
        settings: what was asked for.
        root: the destination of the folder layouts.
        only: whether a single picture of the data set was saved.
        left_out: names of samples that get no file, because they show all subjects of a picture.
    """
    lines = [*_counts(outcomes, settings, root), *_notes(outcomes, settings, root)]
    if left_out:
        more = f" and {len(left_out) - NAMES_SHOWN} more" if len(left_out) > NAMES_SHOWN else ""
        lines.append(f"{counted(len(left_out), _LEFT_OUT)} subjects': {', '.join(left_out[:NAMES_SHOWN])}{more}.")
    return "\n".join([*lines, *_loading(outcomes, settings, root, only)])


def _counts(outcomes: list[Outcome], settings: SaveSettings, root: Path | None) -> list[str]:
    alpha = settings.layout == "alpha png"
    thing = "[picture with its|pictures with their] mask as alpha" if alpha else "[mask|masks]"
    written = sum(outcome.mask == "written" for outcome in outcomes)
    same = sum(outcome.mask == "same" for outcome in outcomes)
    if settings.layout in FOLDER_LAYOUTS:
        lines = [f"{counted(written, thing)} written to {root}."]
    else:
        beside = _beside(outcomes)
        lines = [f"{counted(written, thing)} written {beside}, as {_names_of_files(outcomes, settings)}."]
    moving = sum(outcome.mask == "written" and outcome.target.sample.moves for outcome in outcomes)
    if moving:
        clips = counted(moving, "[mask moves and is a clip of grey frames|masks move and are clips of grey frames]")
        lines.append(f"{clips}, {CLIP_MASKS[settings.clip_masks]}.")
    if same:
        lines.append(counted(same, "[file|files] held the same already and [was|were] left alone."))
    edited = [outcome for outcome in outcomes if outcome.mask == "edited"]
    if edited:
        lines.append(
            f"{counted(len(edited), '[mask was|masks were] edited by hand and kept')}: {_names(edited)}. Switch "
            f"keep_edited off to replace {worded(len(edited), '[it|them]')}."
        )
    bare = [outcome for outcome in outcomes if not outcome.has_mask]
    if bare:
        which = told_kinds([one.target.sample for one in bare])
        without = "[has|have] no mask, nothing was written for [it|them]"
        without = worded(len(bare), "[has|have] no mask, copied without alpha" if alpha else without)
        lines.append(f"{which} {without}: {_names(bare)}.")
    texts = sum(outcome.caption == "written" for outcome in outcomes)
    kept = sum(outcome.caption == "same" for outcome in outcomes)
    if texts or kept:
        lines.append(f"{counted(texts, '[caption|captions]')} written, {counted(kept, '[was|were]')} there already.")
    return lines


def _beside(outcomes: list[Outcome]) -> str:
    clips = sum(outcome.target.sample.moving is not None for outcome in outcomes)
    if not clips:
        return "beside the pictures"
    return "beside the clips" if clips == len(outcomes) else "beside the pictures and clips"


def _names_of_files(outcomes: list[Outcome], settings: SaveSettings) -> str:
    """How the files are called that were written, as `<name>_mask.png`."""
    stem = settings.layout.removesuffix(".png")
    written = [outcome for outcome in outcomes if outcome.mask == "written"] or outcomes
    return ", ".join(dict.fromkeys(f"<name>{stem}{outcome.target.mask.suffix}" for outcome in written))


def _notes(outcomes: list[Outcome], settings: SaveSettings, root: Path | None) -> list[str]:
    lines = []
    white = [outcome for outcome in outcomes if outcome.white]
    if white and settings.layout == "alpha png":
        lines.append(
            f"Note: {counted(len(white), '[mask is|masks are]')} all white. Such a picture is opaque, which reads "
            f"back as a picture without a mask: {_names(white)}."
        )
    again = [o for o in outcomes if o.target.sample.transform != MaskTransform() and _is_own_source(o)]
    if again:
        lines.append(
            f"Note: the mask transforms are in the files now ({_names(again)}). Take Transform Masks out of the graph, "
            "or they are applied again."
        )
    bare = [o for o in outcomes if root is not None and _would_find(o, root)]
    if bare and settings.layout == "mask folder":
        lines.append(
            "Note: the masks lie inside a picture folder. Name them as mask_folder wherever it is loaded, or they are "
            "taken for pictures."
        )
    return lines


def _is_own_source(outcome: Outcome) -> bool:
    source = outcome.target.sample.mask_path
    return source is not None and outcome.mask != "none" and source.resolve() == outcome.target.mask


def _would_find(outcome: Outcome, root: Path) -> bool:
    """Whether the sample's own folder holds the masks and its settings do not name them."""
    sample = outcome.target.sample
    if sample.image_path is None or sample.settings.mask_folder.strip() or not sample.settings.subfolders:
        return False
    depth = sample.name.count("/")
    return root.is_relative_to(sample.image_path.parents[depth])


def _loading(outcomes: list[Outcome], settings: SaveSettings, root: Path | None, only: bool) -> list[str]:
    samples = [outcome.target.sample for outcome in outcomes]
    extensions = {sample.settings.caption.extension for sample in samples} - {".txt"}
    more = f", caption_extension {', '.join(sorted(extensions))}" if extensions else ""
    if settings.layout == "alpha png":
        return [f"Load Dataset: folder {root}, mask_source alpha{more}."]
    folders = list(dict.fromkeys(s.settings.folder or str(s.image_path.parent) for s in samples if s.image_path))
    if not folders:
        return ["The pictures are in memory: to get a set that Load Dataset reads, save as alpha png."]
    own = "folder" if settings.layout == "mask folder" else "sidecar"
    source = f"mask_source {'auto' if only else own}"
    if settings.layout == "mask folder":
        source += f", mask_folder {root}"
    lines = [f"Load Dataset: folder {folder}, {source}, mask_channel luminance{more}." for folder in folders]
    if only:
        lines.append(
            "Only this picture was saved. With auto, a mask folder comes before files beside the pictures, and these "
            "before alpha."
        )
    return lines


def _names(outcomes: list[Outcome]) -> str:
    names = [outcome.target.sample.name for outcome in outcomes]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"
