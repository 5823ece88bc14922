"""What somebody's modules hold, exchanged for a while and put back: the same objects, also after an error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Place:
    """Where something is held: a namespace, such as a module's parameters, and a name in it."""

    store: dict[str, Any]
    name: str

    @property
    def held(self) -> Any:
        """What is there now."""
        return self.store[self.name]


@contextlib.contextmanager
def exchanged(pairs: Iterable[tuple[Place, Any]]) -> Iterator[None]:
    """Each place holds what is given for it while the context lasts, then what it held before."""
    before = []
    try:
        for place, other in pairs:
            before.append((place, place.held))
            place.store[place.name] = other
        yield
    finally:
        for place, held in reversed(before):
            place.store[place.name] = held
