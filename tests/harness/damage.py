"""Files damaged in every way that disks, transfers and people damage them, by a seed."""

import os

import numpy as np

# `python dev.py test --all` tries everything that a usual run tries a part of.
ALL = os.environ.get("MASKLORA_ALL") == "1"


def many(few, everything):
    """How many cases are tried: `few` in a usual run, `everything` with --all."""
    return everything if ALL else few


def damaged(content, seed, *, others=()):
    """The bytes damaged once, and in which way; the same seed gives the same damage.

    `others` are whole files of other kinds, one of which may stand under the name instead.
    """
    rng = np.random.default_rng(seed)
    kinds = ["cut", "flip", "zeros", "insert", "head", "swap", "grown", "empty", "noise"] + ["another"] * bool(others)
    kind = kinds[seed % len(kinds)]
    data = bytearray(content)
    place = int(rng.integers(max(1, len(data))))
    length = int(rng.integers(1, 64))
    if kind == "cut":
        del data[place:]
    elif kind == "flip":
        for where in rng.integers(max(1, len(data)), size=int(rng.integers(1, 9))):
            data[int(where)] ^= int(rng.integers(1, 256))
    elif kind == "zeros":
        data[place : place + length] = bytes(min(length, len(data) - place))
    elif kind == "insert":
        data[place:place] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    elif kind == "head":
        for where in rng.integers(min(len(data), 64), size=int(rng.integers(1, 6))):
            data[int(where)] = int(rng.integers(256))
    elif kind == "swap":
        other = int(rng.integers(max(1, len(data))))
        one, two = data[place : place + length], data[other : other + length]
        data[place : place + length], data[other : other + length] = two, one
    elif kind == "grown":
        data += rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    elif kind == "empty":
        data = bytearray()
    elif kind == "noise":
        data = bytearray(rng.integers(0, 256, max(1, len(data) // 4), dtype=np.uint8).tobytes())
    else:
        data = bytearray(others[int(rng.integers(len(others)))])
    return bytes(data), kind
