"""The table of families in the documents holds every family, as it is now."""

import json

import pytest

from benchmarks.families import BEHIND_THE_SWITCH, RESULTS, TABLE, defaults, measured, without_a_family
from harness.small import small_models
from harness.small_unknown import REFUSED, UNKNOWN
from masklora.host.families import families

ROWS = {row["model"]: row for row in json.loads(RESULTS.read_text(encoding="utf-8"))}
LINES = TABLE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", list(small_models()))
def test_every_small_model_was_measured_and_is_well(name):
    row = ROWS[name]
    assert measured(row) in LINES
    assert max(row["prediction apart"], row["target apart"]) <= 1e-6
    assert max(row["gradients, default"], row["gradients, all"]) <= 1e-10
    assert row["together apart"] <= 1e-5 and "comfyui" in row["formats"]
    assert row["diffusers apart"] is None or row["diffusers apart"] <= 1e-5


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_the_defaults_are_those_of_the_family(family):
    assert defaults(family) in LINES


def test_the_models_without_a_family_are_those_that_are_tried():
    assert set(BEHIND_THE_SWITCH) == set(UNKNOWN) - set(REFUSED)
    assert set("\n".join(without_a_family()).splitlines()) <= set(LINES)
