"""What the pack says while tests run, and whether the catalogue of its sentences knows it."""

import json
import re
import sys
from functools import cache, wraps
from pathlib import Path

from devtools.locales import ENGLISH, LOCALES
from devtools.server_messages import FILE, PLACEHOLDER

ROOT = Path(__file__).resolve().parents[2]
OURS = (str(ROOT / "masklora"), str(ROOT / "nodes"))
# Where errors and findings are made, or read back, but not worded.
MAKERS = ("errors.py", "findings.py", "runs/told.py")
# As in the page: with fewer letters of its own a template says nothing about a text.
FEW_LETTERS = 8
SENTENCES = re.compile(r"(?<=[.!?…)]) (?=\S)")
# Of one line of code; a few show whether it is known.
MOST_OF_ONE = 5


class Said:
    """Hears every error and finding of the pack that is made in this process."""

    def __init__(self):
        self.new, self._heard = [], {}

    def listen(self, kind):
        """From now on hears of each object of the class `kind` with its first argument."""
        make = kind.__init__

        @wraps(make)
        def made(this, *given, **named):
            make(this, *given, **named)
            self._hear(str(given[0] if given else named.get("text", named.get("message", ""))), sys._getframe(1))

        kind.__init__ = made

    def _hear(self, text, frame):
        while frame is not None and (
            frame.f_code.co_filename == "<string>" or frame.f_code.co_filename.endswith(MAKERS)
        ):
            frame = frame.f_back
        if frame is None or not frame.f_code.co_filename.startswith(OURS):
            return
        place = (frame.f_code.co_filename, frame.f_lineno)
        texts = self._heard.setdefault(place, set())
        if text not in texts and len(texts) < MOST_OF_ONE:
            texts.add(text)
            self.new.append((f"{Path(place[0]).name}:{place[1]}", text))

    def unknown(self):
        """What was said since the last call and the catalogue lacks: [(place, text)]."""
        new, self.new = self.new, []
        return [(place, text) for place, text in new if not is_known(text)]


@cache
def patterns():
    """The catalogue's templates as (longest literal, pattern, whether any text may match it by chance)."""
    groups = json.loads((LOCALES / ENGLISH / FILE).read_text(encoding="utf-8"))
    found = []
    for template in (one for group in groups.values() for one in group):
        literals = PLACEHOLDER.split(template)[::2]
        letters = sum(map(str.isalpha, "".join(literals)))
        says = letters and any(": " in one for one in literals)
        chance = letters < FEW_LETTERS and not says and len(literals) > 1
        # What puts texts together may do so at the last place, too.
        for hole in ("(.*?)",) if letters else ("(.*?)", "(.*)"):
            pattern = re.compile(hole.join(map(re.escape, literals)), re.DOTALL)
            found.append((max(literals, key=len), pattern, chance))
    return found


@cache
def is_known(text):
    """Whether a text is a sentence of the catalogue, several behind each other, or has one in what is filled in."""
    text = text.strip()
    if not any(map(str.isalpha, text)) or _is_entry(text):
        return True
    if "\n" in text:
        return all(map(is_known, text.split("\n")))
    parts = SENTENCES.split(text)
    return any(_is_entry(" ".join(parts[:i])) and is_known(" ".join(parts[i:])) for i in range(1, len(parts)))


@cache
def _is_entry(text):
    fits = [(found.groups(), chance) for at, one, chance in patterns() if at in text and (found := one.fullmatch(text))]
    return any(not chance for _, chance in fits) or any(_says(value) for values, _ in fits for value in values)


def _says(value):
    return any(map(str.isalpha, value)) and is_known(value)
