"""Caption texts: reading, trigger word, prefix and suffix, shuffled tags, dropout."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import ConfigError, DataError
from ..settings import CaptionSettings, DatasetSettings, about, check, widgets_of

# Far more than any model reads, and far less than would keep a tokenizer busy for minutes.
LONGEST_CAPTION = 40_000
# Whatever a workflow says, no other files beside a picture are read as its caption.
TEXT_EXTENSIONS = (".txt", ".caption", ".captions", ".cap", ".tags", ".text", ".prompt")
# Kana, Han and Hangul, as a range of a regular expression.
_UNSPACED = "\u3005-\u30ff\u3400-\u9fff\uac00-\ud7af"
# Where a trigger word stood; no caption holds it.
_GONE = "\0"
# Where words are not parted by blanks, a sentence shows by these alone.
_FULL_STOPS = ("\u3002", "\uff01", "\uff1f")
_SENTENCE = re.compile(r"(?:an?|the|this|there|photo|picture|image)\s+\w", re.IGNORECASE)


def check_captions(settings: CaptionSettings) -> CaptionSettings:
    """`settings` if they can be used, so that a fault shows before anything is read.

    Raises:
        ConfigError: an unknown policy, a value out of range, an empty separator with shuffling, or the
            trigger word policy without a trigger word.
    """
    check(settings)
    for name in ("trigger", "prefix", "suffix", "separator"):
        fault = text_fault(getattr(settings, name))
        if fault:
            raise ConfigError(f"{widgets_of(about(settings, name))[0]}: {fault}")
    if settings.shuffle and not settings.separator:
        raise ConfigError("caption_separator: expected the text between two tags, got nothing. Write a comma.")
    if settings.missing == "use trigger word" and not settings.trigger.strip():
        raise ConfigError("trigger_word: missing_captions use the trigger word, but it is empty. Write one.")
    if any(mark in settings.extension for mark in "/\\") or not settings.extension.strip(". "):
        raise ConfigError(f"caption_extension: expected one like .txt, got {settings.extension!r}.")
    if caption_extension(settings).lower() not in TEXT_EXTENSIONS:
        raise ConfigError(
            f"caption_extension: captions are read from {', '.join(TEXT_EXTENSIONS)} files, got "
            f"{settings.extension!r}. Choose one of these, and rename the files."
        )
    return settings


def with_caption_policy(settings: DatasetSettings) -> DatasetSettings:
    """`settings` in which `auto` is what it stands for: the trigger word if there is one.

    Regularisation pictures show what does not answer to it, so theirs stay empty.
    """
    caption = settings.caption
    if caption.missing != "auto":
        return settings
    named = caption.trigger.strip() and not settings.regularisation
    missing = "use trigger word" if named else "empty caption"
    return replace(settings, caption=replace(caption, missing=missing))


def caption_extension(settings: CaptionSettings) -> str:
    """The caption files' extension with its dot."""
    extension = settings.extension.strip()
    return extension if extension.startswith(".") else f".{extension}"


def text_fault(text: str) -> str:
    """What keeps a text from being trained on, as the rest of a sentence; empty if nothing does."""
    if len(text) > LONGEST_CAPTION:
        return f"expected at most {LONGEST_CAPTION} letters, got {len(text)}. Shorten the text."
    broken = next((at for at, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)
    if broken is not None:
        return f"holds half a character at position {broken}, which no text can. Write it again."
    return "expected text, got a zero byte. Write it again." if "\0" in text else ""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without byte order mark, as it was written.

    Raises:
        DataError: the file is not UTF-8 (names the byte), holds more than `LONGEST_CAPTION` letters, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(4 * LONGEST_CAPTION + 4)
    except OSError as error:
        raise DataError(f"{path.name}: the caption cannot be read ({error.strerror}).") from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path.name}: expected UTF-8, got UTF-16 at byte 0. Save the caption as UTF-8.")
    if len(data) > 4 * LONGEST_CAPTION + 3:
        raise DataError(_too_long(path.name, "more"))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: expected UTF-8, got the byte 0x{data[error.start]:02x} at byte {error.start}. "
            "Save the caption as UTF-8."
        ) from error
    if "\0" in text:
        at = data.index(b"\0")
        raise DataError(f"{path.name}: expected text, got a zero byte at byte {at}. Save the caption as UTF-8.")
    if len(text) > LONGEST_CAPTION:
        raise DataError(_too_long(path.name, str(len(text))))
    return text


def caption_of_text(text: str, *, lines: str = "text", separator: str = ",") -> str:
    """A file's text as the caption that is trained.

    Args:
        text: as it was written; a byte order mark counts for nothing.
        lines: what several lines are: one `text`, joined by blanks; `tags`, joined by the separator; or `captions` to
            choose from, which stay lines. With `auto`, what `line_reading` says.
        separator: what stands between two tags.
    """
    text = text.removeprefix("\ufeff")
    rows = [row.strip() for row in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    filled = [row for row in rows if row]
    lines = line_reading(text) if lines == "auto" else lines
    if len(filled) > 1 and lines == "captions":
        return "\n".join(dict.fromkeys(filled))
    if len(filled) > 1 and lines == "tags":
        mark = separator.strip()
        return f"{separator.rstrip()} ".join(row.removesuffix(mark).rstrip() if mark else row for row in filled)
    return " ".join(text.split("\n")).replace("\r", "").strip()


def line_reading(text: str) -> str:
    """What the lines of a text are: `captions`, `tags` or one `text`; empty where it has one line only.

    Lines are captions where most of them are sentences, or lists of tags. Lines that run on from one to the next, and
    paragraphs of several sentences, are one text.
    """
    rows = [row.strip() for row in text.removeprefix("\ufeff").strip().splitlines()]
    filled = [row for row in rows if row]
    if len(filled) < 2:
        return ""
    sentences = [_is_sentence(row) for row in filled]
    if sum(sentences) * 2 < len(filled):
        return "tags"
    runs_on = any(row.endswith((",", "-", ";", ":")) and any(sentences[i : i + 1]) for i, row in enumerate(filled[:-1]))
    paragraphs = "" in rows and any(re.search(r"[.!?]\s+\S", row) for row in filled)
    return "text" if runs_on or paragraphs else "captions"


def reading_of(text: str, settings: CaptionSettings) -> str:
    """What the lines of a caption file are under `settings`, as `line_reading`; empty where it has one line only."""
    filled = [row for row in text.splitlines() if row.strip()]
    return "" if len(filled) < 2 else line_reading(text) if settings.lines == "auto" else settings.lines


def split_captions(text: str | None) -> list[str | None]:
    """The captions of one picture to choose from: at least one, None where there is none."""
    return [None] if text is None else list(text.split("\n"))


def tag_mark(settings: CaptionSettings) -> str:
    """What stands between two tags of a caption: the separator, a comma where it is empty."""
    return settings.separator.strip() or settings.separator or ","


def tags_of(text: str, settings: CaptionSettings) -> list[str]:
    """The tags of a caption as it was loaded, of all its lines, each once, in order."""
    mark = tag_mark(settings)
    parts = [part.strip() for line in text.split("\n") for part in line.split(mark)]
    return list(dict.fromkeys(part for part in parts if part))


def is_prose(text: str, settings: CaptionSettings) -> bool:
    """Whether one caption is sentences rather than tags: its parts are long, or end like one."""
    tags = tags_of(text, settings)
    words = sum(len(tag.split()) for tag in tags)
    if text.rstrip().endswith(_FULL_STOPS):
        return True
    return words > 4 * len(tags) or (text.rstrip().endswith((".", "!", "?")) and words > 2 * len(tags))


def as_loaded(text: str, settings: CaptionSettings) -> str:
    """A text as it comes back when it is written to a caption file and loaded with `settings`."""
    return caption_of_text(text, lines=settings.lines, separator=settings.separator)


def _is_sentence(row: str) -> bool:
    inner = row.rstrip(",;")
    return len(inner.split()) > 3 or "," in inner or inner.endswith((".", "!", "?")) or bool(_SENTENCE.match(inner))


def _too_long(name: str, count: str) -> str:
    return (
        f"{name}: expected a caption of at most {LONGEST_CAPTION} letters, got {count}. Shorten it, or remove the file "
        "if it is no caption."
    )


def compose_caption(text: str | None, settings: CaptionSettings) -> str:
    """The caption as trained without any chance: trigger word, prefix and suffix applied.

    Args:
        text: the file's caption; None where there is none, which `settings.missing` then decides; see
            `with_caption_policy` for `auto`.
        settings: what is added.

    Returns:
        The trigger word leads unless it occurs as a word already. With policy "empty caption" a missing
        caption stays empty: nothing is added to it.

    Raises:
        DataError: `text` is None and the policy is "error".
    """
    return _finish(_with_trigger(text, settings), settings) if not _stays_empty(text, settings) else ""


def shuffle_caption(text: str | None, settings: CaptionSettings, *, generator: torch.Generator) -> str:
    """The composed caption with its tags in random order, the first `keep_first` in place.

    Tags are what lies between separators, the trigger word among them; prefix and suffix stay where they are.
    """
    if not settings.shuffle or _stays_empty(text, settings):
        return compose_caption(text, settings)
    tags = [tag.strip() for tag in _with_trigger(text, settings).split(settings.separator)]
    tags = [tag for tag in tags if tag]
    fixed, loose = tags[: settings.keep_first], tags[settings.keep_first :]
    order = torch.randperm(len(loose), generator=generator).tolist()
    joined = f"{settings.separator.rstrip()} ".join([*fixed, *(loose[i] for i in order)])
    return _finish(joined, settings)


def caption_variants(
    text: str | None, settings: CaptionSettings, *, count: int, generator: torch.Generator
) -> list[str]:
    """Up to `count` different captions of one sample to encode once; never the dropped, empty one.

    Returns:
        At least one; the composed caption alone when tags are not shuffled. Fewer than `count` when the tags
        have fewer orders (or chance repeats one).
    """
    if not settings.shuffle:
        return [compose_caption(text, settings)]
    drawn = (shuffle_caption(text, settings, generator=generator) for _ in range(max(1, count)))
    return list(dict.fromkeys(drawn))


def without_trigger(caption: str, settings: CaptionSettings, *, others: Iterable[str] = ()) -> str | None:
    """A finished caption without its trigger word, for what the model shall paint as before.

    Args:
        caption: from `compose_caption` or `shuffle_caption`.
        settings: the trigger word.
        others: trigger words of the other data sets of a run, which are not to be unlearned either.

    Returns:
        The text without these words, wherever they stand, and without the separators that they leave behind;
        empty if there is nothing else; None if the caption has no trigger word of its own.
    """
    own = _trigger_word(settings.trigger)
    if own is None or not own.search(caption):
        return None
    # Longest first, because one may hold another; as a whole, because one may hold the separator.
    for trigger in sorted({settings.trigger.strip(), *others}, key=len, reverse=True):
        word = _trigger_word(trigger)
        caption = caption if word is None else word.sub(_GONE, caption)
    separator = settings.separator.strip() or ","
    kept = []
    for part in caption.split(separator):
        left = " ".join(part.replace(_GONE, " ").split())
        if left or not part.strip():
            kept.append(left)
    return f"{separator} ".join(kept).strip()


def _trigger_word(trigger: str, *, before: str = "") -> re.Pattern[str] | None:
    trigger = trigger.strip()
    return re.compile(rf"(?<!\w){before}{re.escape(trigger)}(?!\w)", re.IGNORECASE) if trigger else None


def asks_for(prompt: str, trigger: str) -> bool:
    """Whether a prompt has a trigger word as a word: `sks` is in "sks on a desk", but not in "two desks".

    Chinese, Japanese and Korean are written without blanks, so that their letters beside it do not hide one.
    """
    letter, trigger = rf"[^\W{_UNSPACED}]", re.escape(trigger.strip())
    return bool(trigger) and re.search(rf"(?<!{letter}){trigger}(?!{letter})", prompt, re.IGNORECASE) is not None


def with_word(caption: str, trigger: str, word: str) -> str:
    """The caption with `word` wherever the trigger word stands, set off by blanks; as it is without a trigger word.

    It may stand there as the name of an embedding, as prompts call one.
    """
    found = _trigger_word(trigger, before="(?:embedding:)?")
    if found is None:
        return caption
    # ComfyUI takes a name as one only where it stands between blanks.
    return " ".join(found.sub(lambda _: f" {word} ", caption).split()) if found.search(caption) else caption


def _stays_empty(text: str | None, settings: CaptionSettings) -> bool:
    if text is not None:
        return False
    if settings.missing == "error":
        raise DataError("a caption is missing and missing captions are an error. Write one, or change the policy.")
    return settings.missing == "empty caption"


def _with_trigger(text: str | None, settings: CaptionSettings) -> str:
    """The text with the trigger word in front where prefix, text and suffix lack it."""
    body = (text or "").strip()
    trigger, word = settings.trigger.strip(), _trigger_word(settings.trigger)
    around = " ".join((settings.prefix, body, settings.suffix))
    if word is None or word.search(around):
        return body
    if not body:
        return trigger
    separator = settings.separator.rstrip() or ","
    return f"{trigger}{separator} {body}"


def _finish(text: str, settings: CaptionSettings) -> str:
    prefix, suffix = settings.prefix.strip(), settings.suffix.strip()
    out = f"{prefix} {text}".strip()
    if not suffix:
        return out
    # A suffix that brings its own comma follows the text at once.
    glue = "" if not out or not suffix[0].isalnum() else " "
    return f"{out}{glue}{suffix}"
