"""Levels in which masks are stored: the quick way of eight bits gives what exact rounding gives."""

import numpy as np
import pytest

from masklora.errors import MaskError
from masklora.pictures.mask_files import in_eight_bits, quantise_mask
from masklora.pictures.packed_mask import pack_mask

RNG = np.random.default_rng(0)
SIZE = (60, 70)
EIGHT = RNG.integers(0, 256, SIZE)
MASKS = {
    "every level": (np.arange(256)[None].astype(np.float32) / np.float32(255), np.uint8),
    "8 bits": (EIGHT.astype(np.float32) / np.float32(255), np.uint8),
    "hard": (RNG.integers(0, 2, SIZE).astype(np.float32), np.uint8),
    "bool": (RNG.integers(0, 2, SIZE).astype(bool), np.uint8),
    "float64": (EIGHT / 255, np.uint8),
    "nearly 8 bits": (np.nextafter(EIGHT.astype(np.float32) / np.float32(255), np.float32(0.5)), np.uint8),
    "16 bits": (RNG.integers(0, 65536, SIZE).astype(np.float32) / np.float32(65535), np.uint16),
    "any": (RNG.random(SIZE, np.float32), np.uint16),
    "one of 16 bits": (np.where(EIGHT[0, 0] == EIGHT, 1 / 65535, 1).astype(np.float32), np.uint16),
    "beyond": (np.float32([[-1, 2, 300, -0.5]]), np.uint8),
}


def exactly(mask):
    """Whole steps of 1/65535, uint16, by rounding in float64."""
    return np.rint(np.clip(mask, 0.0, 1.0).astype(np.float64) * 65535).astype(np.uint16)


@pytest.mark.parametrize("name", MASKS)
def test_levels_and_packed_masks_are_those_of_exact_rounding(name):
    mask, kind = MASKS[name]
    levels, steps = quantise_mask(mask), exactly(mask)
    assert levels.dtype == kind
    assert np.array_equal(levels.astype(np.uint16) * (257 if kind == np.uint8 else 1), steps)
    packed = pack_mask(mask)
    assert packed.bits == 8 * levels.itemsize
    assert np.array_equal(packed.unpack(), levels.astype(np.float32) / np.float32(np.iinfo(kind).max))


def test_what_is_not_of_eight_bits_is_not_taken_for_it():
    assert in_eight_bits(MASKS["nearly 8 bits"][0]) is None and in_eight_bits(MASKS["beyond"][0]) is None
    assert np.array_equal(in_eight_bits(MASKS["8 bits"][0]), EIGHT)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value):
    with pytest.raises(MaskError, match="NaN or infinity"):
        quantise_mask(np.float32([[0, 1, value]]))
