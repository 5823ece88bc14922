"""Every default, range and choice stands on its field, and one check reads them."""

import dataclasses
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from masklora.errors import ConfigError
from masklora.generators.apply import GenerateSettings
from masklora.generators.blobs import BlobSettings
from masklora.generators.colour import ColourSettings
from masklora.generators.florence2_sam2 import Florence2Sam2Settings
from masklora.generators.grabcut import GrabCutSettings
from masklora.generators.shapes import ShapeSettings
from masklora.runs.sample_pictures import SampleSettings
from masklora.saving.targets import SaveSettings
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    CaptionSettings,
    DatasetSettings,
    ExportSettings,
    LossSettings,
    MaskTransform,
    OptimizerSettings,
    TextEncoderSettings,
    TrainSettings,
    about,
    check,
    widgets_of,
)

ROOT = Path(__file__).resolve().parents[1]


KINDS = (
    AdapterSettings,
    BlobSettings,
    CacheSettings,
    CaptionSettings,
    ColourSettings,
    DatasetSettings,
    ExportSettings,
    Florence2Sam2Settings,
    GenerateSettings,
    GrabCutSettings,
    LossSettings,
    MaskTransform,
    OptimizerSettings,
    SampleSettings,
    SaveSettings,
    ShapeSettings,
    TextEncoderSettings,
    TrainSettings,
)
NUMBERS = [(kind, one) for kind in KINDS for one in dataclasses.fields(kind) if "range" in one.metadata]
CHOICES = [(kind, one) for kind in KINDS for one in dataclasses.fields(kind) if "choices" in one.metadata]


def name_of(case):
    return f"{case.__name__}" if isinstance(case, type) else case.name


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_defaults_are_taken_and_given_back(kind):
    settings = kind()
    assert check(settings) is settings


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_every_number_has_a_range(kind):
    def counts(value):
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    free = [
        one.name
        for one in dataclasses.fields(kind)
        if (counts(one.default) or (isinstance(one.default, tuple) and one.default)) and "range" not in one.metadata
    ]
    assert free == []


@pytest.mark.parametrize(("kind", "one"), NUMBERS, ids=name_of)
def test_a_number_is_taken_at_its_ends_and_refused_beyond_them_by_its_widgets(kind, one):
    low, high = one.metadata["range"]
    several = isinstance(one.default, tuple)
    for place, widget in enumerate(widgets_of(one)):

        def with_value(value, place=place):
            whole = tuple(value if i == place else v for i, v in enumerate(one.default)) if several else value
            return replace(kind(), **{one.name: whole})

        for good in (low, high):
            check(with_value(good))
        for bad in (low - 1, high + 1, math.nan, math.inf, -math.inf):
            with pytest.raises(ConfigError, match=f"^{widget}: expected "):
                check(with_value(bad))


@pytest.mark.parametrize(("kind", "one"), CHOICES, ids=name_of)
def test_a_choice_is_one_of_the_field_s(kind, one):
    (widget,) = widgets_of(one)
    for choice in one.metadata["choices"]:
        check(replace(kind(), **{one.name: choice}))
    for other in ("none of these", one.default.upper() or " "):
        with pytest.raises(ConfigError, match=f"^{widget}: expected one of "):
            check(replace(kind(), **{one.name: other}))


def test_settings_within_settings_are_checked():
    with pytest.raises(ConfigError, match=r"^caption_dropout: expected 0 to 1, got 2\.$"):
        check(DatasetSettings(caption=CaptionSettings(dropout=2.0)))


def test_a_field_is_known_by_its_widget():
    assert widgets_of(about(CaptionSettings, "keep_first")) == ("keep_first_tags",)
    assert widgets_of(about(CaptionSettings(), "lines")) == ("lines",)
    assert widgets_of(about(OptimizerSettings, "betas")) == ("beta1", "beta2")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if any(f.name == "seed" for f in dataclasses.fields(kind))])
def test_a_seed_that_a_link_brings_may_be_larger_than_its_widget_s(kind):
    for seed in (-1, 2**32, 2**64 - 1):
        check(kind(seed=seed))
    assert about(kind, "seed").metadata["shown"][0] == 0


def test_the_page_sends_every_mask_transform_that_there_is():
    """It tries transforms before they are queued; the server takes exactly these fields."""
    text = (ROOT / "web" / "dataset" / "upstream.mjs").read_text(encoding="utf-8")
    fields = json.loads(re.search(r"^const FIELDS = (\[.*\]);$", text, re.MULTILINE)[1])
    standing = re.search(r"^const OFF = \{(.*)\};$", text, re.MULTILINE)[1]
    off = {name: json.loads(value) for name, value in re.findall(r"(\w+): ([\w.]+)", standing)}
    assert fields == list(off) == [field.name for field in dataclasses.fields(MaskTransform)]
    assert off == dataclasses.asdict(MaskTransform())
