"""Nodes that make masks without any model: random blobs, drawn shapes, colours, GrabCut."""

from comfy_api.latest import io

from ..masklora.generators.blobs import BlobSettings, blob_maker
from ..masklora.generators.clips import EACH_FRAME, STILL, ClipWay
from ..masklora.generators.colour import ColourSettings, colour_maker
from ..masklora.generators.grabcut import GrabCutSettings, check_grabcut_combine, grabcut_maker, grabcut_way
from ..masklora.generators.shapes import (
    CIRCULAR_SHRINK,
    ShapeSettings,
    check_shape_combine,
    shape_maker,
)
from .generating import Request, generator_schema
from .types import choice, number, seed, switch, text

BLOBS, SHAPE, COLOUR, GRABCUT = BlobSettings(), ShapeSettings(), ColourSettings(), GrabCutSettings()
BOX = '"x, y, width, height" in pixels of the picture, or in shares of it, 0 to 1 (four numbers of at most 1)'


def coverage_inputs(settings):
    """The range from which each picture's coverage is drawn."""
    return [
        number(
            settings,
            "coverage_min",
            "Smallest share of the picture that a mask covers, 0.001 to 1. A set of pictures spans the range.",
        ),
        number(settings, "coverage_max", "Largest share of the picture, 0.001 to 1."),
    ]


def seed_input(settings):
    """The seed of a generator that draws."""
    return seed(settings, "Decides every mask, 0 to 4294967295. The same seed gives each picture the same mask.")


class RandomMasks(io.ComfyNode):
    """Random blobs."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return generator_schema(
            "MLT_RandomMasks",
            "Random Masks",
            "Masks of random blobs with an exact coverage; what the pictures show does not matter.",
            visible=[
                *coverage_inputs(BLOBS),
                number(
                    BLOBS,
                    "count",
                    "Blobs in each mask that do not touch, up to 64; 0 = as many as chance gives.",
                    step=1,
                ),
                number(
                    BLOBS,
                    "smoothness",
                    "Size of the waves of the outline as a share of the picture's shorter side, 0.02 to 1.",
                ),
                seed_input(BLOBS),
            ],
            search_aliases=["random blobs", "noise mask"],
        )

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list."""
        request = Request.read(lists)
        return request.run(cls, blob_maker(BlobSettings(**request.widgets)), label="Random masks", way=ClipWay(STILL))


class ShapeMasks(io.ComfyNode):
    """Drawn shapes, and discs of masks."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return generator_schema(
            "MLT_ShapeMasks",
            "Shape Masks",
            "Ellipses, rectangles, polygons or brush strokes, drawn at random or in a box; or a random disc of "
            "the mask that is there.",
            visible=[
                choice(
                    SHAPE,
                    "shape",
                    "What is drawn. circular shrink draws nothing: it keeps a disc about a random point of the "
                    "mask that is there, and needs combine set to replace.",
                ),
                *coverage_inputs(SHAPE),
                text(SHAPE, "box", f"{BOX}: the shape is inscribed in this box. Empty = size and place are drawn."),
                number(SHAPE, "angle", "Turns the shape clockwise, −180 to 180 degrees.", step=1.0),
                seed_input(SHAPE),
            ],
            hidden=cls._hidden(),
            search_aliases=["rectangle", "ellipse", "circle", "brush", "polygon", "circular shrink"],
        )

    @staticmethod
    def _hidden():
        return [
            number(
                SHAPE,
                "angle_jitter",
                "Each picture's angle differs by up to this many degrees either way, 0 to 180.",
                step=1.0,
            ),
            number(SHAPE, "aspect", "Width over height, 0.05 to 20; 0 = drawn from 1:2 to 2:1. Not with a box."),
            number(SHAPE, "corners", "Corners of the polygon, 3 to 32.", step=1),
            number(SHAPE, "strokes", "Strokes of the brush, 1 to 32.", step=1),
            number(
                SHAPE,
                "stroke_width",
                "About how wide a brush stroke is, as a share of the shorter side, 0.005 to 1.",
                step=0.005,
            ),
            number(
                SHAPE,
                "shrink_min",
                "Smallest radius of the circular shrink, as a share of the radius that keeps all, 0.01 to 1.",
            ),
            number(SHAPE, "shrink_max", "Largest radius of the circular shrink, 0.01 to 1."),
            number(SHAPE, "feather", "Softens the edge last of all: Gaussian σ in picture pixels, 0 to 256.", step=0.5),
            choice(
                SHAPE,
                "without_mask",
                "What circular shrink does with a picture that has no mask: stop with an error, or take the "
                "whole picture.",
            ),
        ]

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list."""
        request = Request.read(lists)
        settings = ShapeSettings(**request.widgets)
        check_shape_combine(settings, request.settings.combine)
        way = ClipWay(STILL, of_mask=settings.shape == CIRCULAR_SHRINK)
        return request.run(cls, shape_maker(settings), label="Shape masks", way=way)


class ColorMasks(io.ComfyNode):
    """Colour keys."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return generator_schema(
            "MLT_ColorMasks",
            "Color Masks",
            "Masks of what has a colour or a lightness, or hangs together with a point; or of all the rest, as "
            "before a green screen.",
            visible=[
                text(
                    COLOUR,
                    "colours",
                    'Key colours as hexadecimal numbers separated by commas, "#00ff00, #fff"; up to 16. '
                    "Empty = every colour within the luminance range.",
                ),
                number(
                    COLOUR,
                    "tolerance",
                    "How far from a key colour a pixel may be, ΔE of 1976 (distance in CIE Lab), 0 to 200. 2 is "
                    "just visible, 100 is from black to white.",
                    step=0.5,
                ),
                number(
                    COLOUR,
                    "softness",
                    "ΔE beyond the tolerance over which the weight falls from 1 to 0; 0 = a hard edge, up to 200.",
                    step=0.5,
                ),
                text(
                    COLOUR,
                    "point",
                    '"x, y" in pixels of the picture, or in shares of it, 0 to 1 (two numbers of at most '
                    "1): only what hangs together with this point counts. Empty = everywhere.",
                ),
                switch(
                    COLOUR,
                    "colour_from_point",
                    "Take the key colour from the point (the most typical of 3×3 pixels) instead of colours.",
                ),
                switch(
                    COLOUR,
                    "invert",
                    "Learn everything but what was found: for subjects before a screen of one colour.",
                ),
            ],
            hidden=[
                number(COLOUR, "luminance_min", "Lowest lightness L* that counts, 0 (black) to 100 (white).", step=0.5),
                number(COLOUR, "luminance_max", "Highest lightness L* that counts, 0 to 100.", step=0.5),
            ],
            search_aliases=["colour key", "chroma key", "green screen", "luminance", "magic wand", "flood fill"],
        )

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list."""
        request = Request.read(lists)
        make = colour_maker(ColourSettings(**request.widgets))
        return request.run(cls, make, label="Colour masks", way=ClipWay(EACH_FRAME))


class GrabCutMasks(io.ComfyNode):
    """GrabCut."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return generator_schema(
            "MLT_GrabCutMasks",
            "GrabCut Masks",
            "Cuts the subject out by its colours, from a margin, a box, or a rough mask. Needs no model.",
            visible=[
                choice(
                    GRABCUT,
                    "start",
                    "What is known of the subject: that it keeps off the margin, that it lies in the box, or about "
                    "where it is: the mask that is there, which needs combine set to replace.",
                ),
                number(
                    GRABCUT,
                    "margin",
                    "Share of width and height on each side that is background, 0 to 0.45. Used by start margin.",
                ),
                text(GRABCUT, "box", f"{BOX}. Used by start box; drawn tightly, it is safest."),
                number(
                    GRABCUT,
                    "rough_band",
                    "How far off the rough mask's edge may be, as a share of the mask's shorter side, 0.01 to 1. "
                    "Used by start rough mask.",
                ),
            ],
            hidden=[
                number(GRABCUT, "iterations", "Rounds of cutting and learning colours, 1 to 20.", step=1),
                number(
                    GRABCUT,
                    "working_side",
                    "The cut runs on a copy with at most this number squared of pixels, 64 to 2048, and is then "
                    "fitted to the edges at full size. Larger is much slower and seldom better.",
                    step=1,
                ),
                text(
                    GRABCUT,
                    "key_frames",
                    'Frames of a clip that are cut, counted from 0, such as "0, 40"; the cuts are carried over the '
                    "other frames as the picture moves. Those that a clip does not have are passed over. Where a rough "
                    "mask moves, each frame is cut instead.",
                ),
            ],
            search_aliases=["grabcut", "cut out", "foreground", "opencv"],
        )

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list."""
        request = Request.read(lists)
        settings = GrabCutSettings(**request.widgets)
        check_grabcut_combine(settings, request.settings.combine)
        make = grabcut_maker(settings)
        return request.run(cls, make, label="GrabCut masks", way=grabcut_way(settings))
