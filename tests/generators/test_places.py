"""Boxes and points written as text."""

import pytest

from masklora.errors import ConfigError, MaskError
from masklora.generators.places import Box, box_in, point_in

SIZE = (100, 200)


def test_a_box_is_read_in_pixels_or_in_shares():
    assert box_in("20, 10, 50, 30", SIZE, name="cat.png") == Box(20, 10, 50, 30)
    assert box_in(" 20 10;50,30 ", SIZE, name="cat.png") == Box(20, 10, 50, 30)
    assert box_in("0.25, 0.5, 0.5, 0.25", SIZE, name="cat.png") == Box(50, 50, 100, 25)
    assert box_in("0, 0, 1, 1", SIZE, name="cat.png") == Box(0, 0, 200, 100)


def test_a_box_is_cut_to_the_picture():
    assert box_in("150, 90, 100, 100", SIZE, name="cat.png") == Box(150, 90, 50, 10)


def test_a_box_outside_the_picture_names_the_picture_and_its_size():
    with pytest.raises(MaskError, match=r"cat.png: box '200, 0, 5, 5' lies outside .* 200×100 px"):
        box_in("200, 0, 5, 5", SIZE, name="cat.png")


@pytest.mark.parametrize(
    "text", ["", "1, 2, 3", "1,2,3,4,5", "a, b, c, d", "-1, 0, 5, 5", "nan, 0, 5, 5", "1e999 1 1 1"]
)
def test_what_is_no_box_names_the_widget(text):
    with pytest.raises(ConfigError, match='box: expected "x, y, width, height" in pixels'):
        box_in(text, SIZE, name="cat.png")


def test_a_flat_box_is_refused():
    with pytest.raises(ConfigError, match=r"box: the box '.*' has no width or no height"):
        box_in("5, 5, 0, 9", SIZE, name="cat.png")


def test_a_point_is_read_as_row_and_column():
    assert point_in("30, 7", SIZE, name="cat.png") == (7, 30)
    assert point_in("0.5, 0.25", SIZE, name="cat.png") == (25, 100)
    assert point_in("0, 0", SIZE, name="cat.png") == (0, 0)
    assert point_in("1.0, 1.0", SIZE, name="cat.png") == (99, 199)
    assert point_in("199, 99", SIZE, name="cat.png") == (99, 199)


def test_a_point_outside_the_picture_names_the_picture():
    with pytest.raises(MaskError, match=r"cat.png: point '200, 5' lies outside the picture, which is 200×100"):
        point_in("200, 5", SIZE, name="cat.png")


@pytest.mark.parametrize("text", ["", "5", "5, 5, 5", "left, top", "-3, 5"])
def test_what_is_no_point_names_the_widget(text):
    with pytest.raises(ConfigError, match='point: expected "x, y" in pixels'):
        point_in(text, SIZE, name="cat.png")
