"""What torchrun tells each process that it starts. Standard library only: it is read before torch is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass

# All four, or nothing: some clusters set one or two of them for programs of their own.
_GIVEN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# Names the file by which the processes of one machine find each other, where that shall not be by a port.
MEETING = "MASKED_LORA_MEETING"


@dataclass(frozen=True)
class Place:
    """Of a process among several.

    Attributes:
        number: which one it is, from 0.
        count: how many there are, 2 or more.
        local: which one of this machine.
        there: how many this machine has.
    """

    number: int
    count: int
    local: int
    there: int


def place() -> Place | None:
    """This process's; None where it was started alone."""
    try:
        number, count = (int(os.environ[name]) for name in _GIVEN[:2])
        local = int(os.environ.get("LOCAL_RANK", number))
        there = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    except (KeyError, ValueError):
        return None
    return Place(number, count, local, there) if count > 1 and all(name in os.environ for name in _GIVEN) else None
