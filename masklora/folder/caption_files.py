"""Where the captions of pictures come from: text files beside them, lists of metadata, the names of folders.

And which files of a folder are none of these.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError
from ..findings import Finding, counted, note, printable, warning
from ..settings import CaptionSettings
from .captions import (
    TEXT_EXTENSIONS,
    as_loaded,
    caption_extension,
    caption_of_text,
    line_reading,
    read_text,
    text_fault,
)
from .leftovers import CAPTION, OTHER_CAPTION, ROW, Leftover, kind_of, shown
from .mask_names import MASK_EXTENSION
from .matching import Match, PictureIndex
from .subjects import split_stem
from .tree import File, Tree, join, nfc

METADATA = "metadata.jsonl"
MOST_METADATA = 64_000_000
# Files without an extension whose first bytes are looked at.
MOST_STARTS = 1000
DEFAULT_EXTENSION = CaptionSettings().extension
_FILE_KEYS = ("file_name", "filename", "file", "image", "image_path", "path", "file_path")
_TEXT_KEYS = ("text", "caption", "captions", "prompt", "prompts", "description", "tags")

Cancel = Callable[[], None]
# Whether a file fits several pictures, the place of its extension, and how it fits: the least is taken.
_Rank = tuple[bool, int, int]


class Listed(NamedTuple):
    """An entry of a list: the picture's folder and name, its caption, and where it stands.

    `text` is None where the entry names no picture or holds no text.
    """

    place: str
    name: str
    text: str | None
    label: str


@dataclass
class Captions:
    """Caption files by what they belong to, and how they were read.

    Attributes:
        own: The caption file of each picture, by its relative name.
        subjects: Those of its subjects, by relative name and subject.
        metadata: Texts from lists of metadata, by relative name.
        left: Files that look like captions and are not read.
        asked: Subjects whose captions were asked for, by relative name and subject.
    """

    settings: CaptionSettings
    own: dict[str, File] = field(default_factory=dict)
    subjects: dict[tuple[str, str], File] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    left: list[Leftover] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[str]] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)

    def text(self, file: File) -> str:
        """The caption in a file, its lines read as the settings say; what was chosen for them is noted."""
        text, lines = read_text(file.path), self.settings.lines
        if lines == "auto":
            lines = line_reading(text)
            if lines:
                self.lines.setdefault(lines, []).append(file.label)
        return caption_of_text(text, lines=lines, separator=self.settings.separator)

    def of_picture(self, relative: str) -> str | None:
        """A picture's caption from its file, else from a list; None without either."""
        file = self.own.get(relative)
        if file is not None:
            self.read[file.extension] += 1
            return self.text(file)
        if relative in self.metadata:
            self.read[METADATA] += 1
        return self.metadata.get(relative)

    def of_subject(self, relative: str, subject: str) -> str | None:
        """The caption of one subject of a picture from a file of its own; None without one."""
        file = self.subjects.get((relative, subject))
        self.asked.add((relative, subject))
        return None if file is None else self.text(file)

    def file(self, relative: str, subject: str = "") -> Path | None:
        """The file that holds the caption of a picture, or of one subject of it; None without one of its own."""
        found = self.subjects.get((relative, subject)) if subject else self.own.get(relative)
        return None if found is None else found.path

    def leave_unasked(self) -> None:
        """Captions of subjects that no picture has become files that are not used."""
        self.left += [Leftover(CAPTION, file.label) for key, file in self.subjects.items() if key not in self.asked]

    def findings(self) -> list[Finding]:
        """Where captions were taken from, where that is not the usual place, and how their lines were read."""
        found = []
        if set(self.read) - {caption_extension(self.settings).lower()}:
            told = ", ".join(f"{count} read from {source}" for source, count in self.read.most_common())
            found.append(note(f"captions: {told}."))
        for chosen, names in self.lines.items():
            meaning = {
                "captions": "captions of which each step draws one",
                "tags": f"tags, joined by {self.settings.separator.strip() or 'blanks'}",
                "text": "one text, joined by blanks",
            }[chosen]
            found.append(
                warning(
                    f"{counted(len(names), 'caption [file has|files have] several lines, which are read as')} "
                    f"{meaning}: {shown(names)}. Set lines if that is wrong."
                )
            )
        return found


def read_lists(
    others: Iterable[File], settings: CaptionSettings, *, check_cancel: Cancel | None = None
) -> list[Listed]:
    """Every entry of the `metadata.jsonl` files of a folder.

    Raises:
        DataError: a list is damaged, or a text in it cannot be trained on; names file and line.
    """
    found = []
    for file in others:
        if file.name.casefold() != METADATA:
            continue
        for number, row in _rows(file):
            if check_cancel is not None and number % 100 == 0:
                check_cancel()
            name = next((row[key] for key in _FILE_KEYS if isinstance(row.get(key), str)), "")
            text = _row_text(row, settings)
            if not name or text is None:
                found.append(Listed(file.place, "", None, f"{file.label}, line {number}"))
                continue
            fault = text_fault(text)
            if fault:
                raise DataError(f"{file.label}, line {number}: {fault}")
            folder, _, last = nfc(name).replace("\\", "/").removeprefix("./").rpartition("/")
            label = f"{file.label}, line {number} ({printable(name)})"
            found.append(Listed(join(file.place, folder) if folder else file.place, last, text, label))
    return found


def caption_names(others: Iterable[File], lists: Iterable[Listed]) -> set[tuple[str, str]]:
    """Folder and stem (case folded) of every picture that a text file beside it, or a list, is named after."""
    found = {(entry.place, entry.name.casefold().rpartition(".")[0]) for entry in lists if entry.text is not None}
    for file in others:
        if file.extension in TEXT_EXTENSIONS:
            stem = file.stem.casefold()
            found |= {(file.place, stem), (file.place, stem.rpartition(".")[0])}
    return found


def find_captions(
    others: Sequence[File],
    near: Iterable[File],
    lists: Iterable[Listed],
    index: PictureIndex,
    settings: CaptionSettings,
) -> Captions:
    """The caption files of the pictures, each picture's first by this order, and what is left over.

    `cat.txt` comes before `cat.jpg.txt`, and that before a name in another case; where the extension is the usual one,
    others follow for pictures that have none, and `metadata.jsonl` for those that lack every file. A `cat.txt` that
    fits several, such as `cat.png` and `cat.mp4`, comes behind all that fit one of them alone.

    Args:
        others: files in the folder of the pictures that are no pictures.
        near: files in folders of masks, as if they lay beside the pictures; they hold captions of subjects only, and
            come first for those.
        lists: from `read_lists`.
        index: the pictures.
        settings: the extension, and how lines are read.
    """
    extension = caption_extension(settings).lower()
    order = [extension, *(TEXT_EXTENSIONS if extension == DEFAULT_EXTENSION else ())]
    captions = Captions(settings)
    ranks: dict[str, _Rank] = {}
    offered: list[File] = []
    used = {file.path for file in near if file.extension == extension and _subject_caption(file, index, captions)}
    for file in others:
        if file.path in used:
            continue
        if file.extension not in TEXT_EXTENSIONS:
            continue
        match = index.find(file.place, file.stem)
        if file.extension not in order:
            captions.left.append(Leftover(OTHER_CAPTION if match.pictures else CAPTION, file.label))
        elif match.pictures:
            _offer(file, match, (len(match.pictures) > 1, order.index(file.extension), match.how), captions, ranks)
            offered.append(file)
        elif file.extension != extension or not _subject_caption(file, index, captions):
            captions.left.append(Leftover(CAPTION, file.label))
    taken = {file.path for file in captions.own.values()}
    captions.left += [Leftover(OTHER_CAPTION, file.label) for file in offered if file.path not in taken]
    for entry in lists:
        if entry.text is None:
            captions.left.append(Leftover(ROW, entry.label))
            continue
        pictures = index.find(entry.place, entry.name).pictures
        if not pictures:
            captions.left.append(Leftover(CAPTION, entry.label))
        captions.metadata |= dict.fromkeys((picture.relative for picture in pictures), entry.text)
    return captions


def check_found(captions: Captions, first: str) -> None:
    """Nothing if the extension that was asked for is that of some caption.

    Raises:
        ConfigError: it was set by hand, and no picture has a caption file of it; shows the `first` picture and a file
            that is there instead.
    """
    extension = caption_extension(captions.settings).lower()
    if extension == DEFAULT_EXTENSION or captions.own or captions.subjects:
        return
    there = next((left.name for left in captions.left), "")
    instead = f"There is {there}." if there else "No text file lies there."
    raise ConfigError(
        f"caption_extension: no picture has a caption file {extension}; the first picture is {printable(first)}. "
        f"{instead} Set caption_extension to the one that your files have."
    )


def _offer(file: File, match: Match, rank: _Rank, captions: Captions, ranks: dict[str, _Rank]) -> None:
    """A file as the caption of the pictures that it fits, unless they have a better one."""
    for picture in match.pictures:
        if picture.relative not in ranks or rank < ranks[picture.relative]:
            captions.own[picture.relative], ranks[picture.relative] = file, rank


def _subject_caption(file: File, index: PictureIndex, captions: Captions) -> bool:
    split = split_stem(file.stem, lambda stem: bool(index.find(file.place, stem).pictures))
    if split is None:
        return False
    for picture in index.find(file.place, split[0]).pictures:
        captions.subjects.setdefault((picture.relative, printable(split[1])), file)
    return True


def _rows(file: File) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        if file.path.stat().st_size > MOST_METADATA:
            raise DataError(f"{file.label}: expected at most {MOST_METADATA // 1_000_000} MB. Split it by folders.")
        lines = file.path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{file.label}: the captions cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file.label}: expected UTF-8 ({error.reason} at byte {error.start}). Save it anew."
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{file.label}, line {number}: expected one object of JSON ({error}). Correct it."
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"{file.label}, line {number}: expected an object with file_name and text. Correct it.")
        yield number, row


def _row_text(row: dict[str, Any], settings: CaptionSettings) -> str | None:
    """The caption in one entry: a text, or several as a list; a list of tags is one caption."""
    for key in _TEXT_KEYS:
        value = row.get(key)
        if isinstance(value, str):
            return as_loaded(value, settings)
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            lines = "tags" if key == "tags" else "captions"
            texts = [" ".join(one.split()) for one in value]
            return caption_of_text("\n".join(texts), lines=lines, separator=settings.separator)
    return None


def passed_over(tree: Tree) -> list[Leftover]:
    """The files that are neither pictures, masks nor captions, by what they look like."""
    left, looked = [], 0
    for file in tree.others:
        if file.extension == MASK_EXTENSION or file.extension in TEXT_EXTENSIONS or file.name.casefold() == METADATA:
            continue
        starts = b""
        if not file.extension and looked < MOST_STARTS:
            looked += 1
            try:
                with file.path.open("rb") as opened:
                    starts = opened.read(16)
            except OSError:
                starts = b""
        left.append(Leftover(kind_of(file.stem, file.extension, starts=starts), file.label))
    return left
