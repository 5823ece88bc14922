"""Why a graph is not executed: sentences that name the node, the widget and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

# So many names fit into a sentence.
_MOST_NAMES = 6


@dataclass(frozen=True)
class Problem:
    """One reason.

    Attributes:
        text: a whole sentence, with the remedy.
        node: id of the node that it concerns; empty where it concerns none.
        widget: name of the input that it concerns; empty where it concerns none.
    """

    text: str
    node: str = ""
    widget: str = ""


class RefusedError(Exception):
    """A command that is not carried out, before any time is spent."""

    def __init__(self, *problems: Problem | str) -> None:
        """Because of `problems`, at least one."""
        self.problems = [Problem(one) if isinstance(one, str) else one for one in problems]
        super().__init__("\n".join(one.text for one in self.problems))


def nearest(wrong: str, names: Iterable[object]) -> str:
    """The names that a person may have meant by `wrong`, as a sentence; without a likeness all, where they are few."""
    known = list(dict.fromkeys(str(name) for name in names))
    folded = {name.casefold(): name for name in reversed(known)}
    close = difflib.get_close_matches(wrong.casefold(), folded, n=_MOST_NAMES, cutoff=0.5)
    if close:
        return f"Nearest: {', '.join(folded[name] for name in close)}."
    if not known:
        return "There is none."
    return f"There are {len(known)}." if len(known) > _MOST_NAMES else f"There is: {', '.join(known)}."
