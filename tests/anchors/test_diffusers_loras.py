"""The LoRA files that we offer for diffusers, in its own loaders."""

import json

import pytest

from benchmarks.families import RESULTS
from harness.damage import ALL
from harness.diffusers_models import diffusers_models
from harness.diffusers_models.loading import SAME, apart_in_diffusers, formats_in_diffusers
from harness.small import small_models, tried
from masklora.errors import AdapterError
from masklora.host.families import families

THEIRS = diffusers_models()
MODELS = [name for name in THEIRS if name in tried()]
READ = {row["model"]: row["formats in diffusers"] for row in json.loads(RESULTS.read_text(encoding="utf-8"))}
FAMILIES = {family.name: family for family in families()}
PRESETS = ("attention", "all")
everything = pytest.mark.skipif(not ALL, reason="runs with --all")


def family_of(name):
    return FAMILIES[small_models()[name].family]


@pytest.mark.parametrize("name", [name for name in MODELS if READ[name]])
def test_diffusers_loads_our_file_whole_and_changes_the_same_weights_by_the_same(name, tmp_path):
    """Its own format where we write it, else kohya's."""
    file_format = READ[name][-1]
    assert file_format == "diffusers" or not family_of(name).diffusers
    assert apart_in_diffusers(name, THEIRS[name], targets="default", file_format=file_format, folder=tmp_path) <= SAME


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_format_is_offered_for_those_families_that_diffusers_has_and_loads(family):
    assert ("diffusers" in READ[family.name]) == bool(family.diffusers)


def test_a_file_that_diffusers_would_not_load_is_not_written(tmp_path):
    with pytest.raises(AdapterError, match=r"format: diffusers .*Choose comfyui"):
        apart_in_diffusers("pixart", THEIRS["pixart"], targets="default", file_format="diffusers", folder=tmp_path)


def test_nor_is_one_of_layers_that_it_would_not_take(tmp_path):
    with pytest.raises(AdapterError, match=r"format: diffusers takes no LoRA of .*\. Export in the comfyui format"):
        apart_in_diffusers("ltxv", THEIRS["ltxv"], targets="all", file_format="diffusers", folder=tmp_path)


@everything
@pytest.mark.parametrize("name", MODELS)
def test_the_table_names_the_formats_that_diffusers_loads(name, tmp_path):
    assert formats_in_diffusers(name, THEIRS[name], tmp_path) == READ[name]


@everything
@pytest.mark.parametrize("targets", PRESETS)
@pytest.mark.parametrize("name", [name for name in MODELS if family_of(name).diffusers])
def test_of_other_layers_it_loads_the_file_as_well_or_there_is_none(name, targets, tmp_path):
    try:
        apart = apart_in_diffusers(name, THEIRS[name], targets=targets, file_format="diffusers", folder=tmp_path)
    except AdapterError as error:
        assert targets == "all" and "diffusers takes no LoRA of" in str(error)
    else:
        assert apart <= SAME
