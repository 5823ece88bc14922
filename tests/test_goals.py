"""What the goal of a data set decides, and that a person's own values go before it."""

import dataclasses

import numpy as np
import pytest

from devtools.recipe import ROOT
from harness.caching import SETTINGS, Letters, Pooling, picture, save
from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import merge
from masklora.errors import ConfigError
from masklora.goals import FEATHER_BY_GOAL, common_goal, decide, goal, loss_by_goal, told
from masklora.host.families import families, with_defaults
from masklora.loss.check import check_loss
from masklora.settings import (
    BY_GOAL,
    GOALS,
    OWN_GOAL,
    AdapterSettings,
    CacheSettings,
    DatasetSettings,
    LossSettings,
    MaskTransform,
    OptimizerSettings,
    TrainSettings,
    check,
)

OPEN = {"crop": BY_GOAL, "infill": BY_GOAL, "feather": FEATHER_BY_GOAL}


@pytest.mark.parametrize("name", GOALS)
def test_what_a_goal_decides_is_a_value_that_its_setting_takes(name):
    values, decided = decide(name, {}, OPEN)
    assert values == decided and set(decided) == set(OPEN)
    check(CacheSettings(crop=values["crop"], infill=values["infill"]))
    check(MaskTransform(feather=values["feather"]))
    check_loss(loss_by_goal(name, LossSettings(preset=BY_GOAL)))


def test_without_a_goal_everything_is_as_usual():
    values, _ = decide(OWN_GOAL, OPEN, OPEN)
    assert CacheSettings(crop=values["crop"], infill=values["infill"]) == CacheSettings()
    assert MaskTransform(feather=values["feather"]) == MaskTransform()
    assert loss_by_goal(OWN_GOAL, LossSettings(preset=BY_GOAL)) == LossSettings()
    for family in families():
        assert resolved(family, OWN_GOAL) == resolved(family)


def resolved(family, name=None, *, adapter=None, train=None):
    groups = {"loss": LossSettings(), "adapter": adapter or AdapterSettings(), "optimizer": OptimizerSettings()}
    return with_defaults(family, **groups, train=train or TrainSettings(), **({"goal": goal(name)} if name else {}))


@pytest.mark.parametrize("name", GOALS)
def test_rank_alpha_and_steps_are_multiples_of_the_family_s(name):
    for family in families():
        found, usual = resolved(family, name), family.defaults
        assert found.adapter.rank == usual.rank * goal(name).rank
        assert found.adapter.alpha / found.adapter.rank == pytest.approx(usual.alpha / usual.rank)
        assert found.train.steps == round(usual.steps * goal(name).length)
        check(found.adapter), check(found.train)


@pytest.mark.parametrize("name", GOALS)
def test_what_a_person_sets_goes_before_the_goal(name):
    own = {"crop": "centre", "infill": "blur", "feather": 3.0}
    assert decide(name, own, own) == (own, {})
    family = families()[0]
    found = resolved(family, name, adapter=AdapterSettings(rank=7), train=TrainSettings(steps=11))
    assert (found.adapter.rank, found.adapter.alpha, found.train.steps) == (7, 7.0, 11)
    assert resolved(family, name, train=TrainSettings(epochs=2)).train.steps == 0
    assert resolved(family, name, adapter=AdapterSettings(alpha=3.0)).adapter.alpha == 3.0
    set_by_hand = LossSettings(preset=BY_GOAL, infill_probability=0.2, floor=0.1)
    assert loss_by_goal(name, set_by_hand) == dataclasses.replace(set_by_hand, preset="masked lora")
    for preset in ("masked lora", "OneTrainer", "custom"):
        assert loss_by_goal(name, LossSettings(preset=preset)) == LossSettings(preset=preset)


def test_a_style_learns_its_backgrounds_and_needs_more_of_everything():
    style, person = goal("style"), goal("person")
    assert loss_by_goal("style", LossSettings(preset=BY_GOAL)).infill_probability == 0
    assert style.rank > person.rank and style.length > person.length
    assert (style.crop, person.crop) == ("centre", "around mask")


def test_an_unknown_goal_is_refused_with_those_that_there_are():
    for ask in (lambda: goal("portrait"), lambda: decide("portrait", OPEN, OPEN)):
        with pytest.raises(ConfigError, match=r"goal: expected one of own, person, .*got 'portrait'"):
            ask()
    with pytest.raises(ConfigError, match="goal"):
        from_images([np.zeros((8, 8, 3), np.float32)], settings=DatasetSettings(goal="portrait"))


def test_what_was_decided_is_told_once_and_not_without_a_goal():
    assert told("person", {"crop": "around mask", "feather": 8.0}) == [
        "By the goal person: crop around mask, feather 8."
    ]
    assert told(OWN_GOAL, {"crop": "centre"}) == [] and told("person", {}) == []


def test_data_sets_of_two_goals_have_none_and_say_so_but_class_pictures_have_no_say():
    def of(name, **settings):
        return from_images([np.zeros((8, 8, 3), np.float32)], settings=DatasetSettings(goal=name, **settings))

    alike = merge([of("person"), of("person"), of("style", regularisation=True)])
    assert alike.goal == "person" and not [f for f in alike.report.findings() if "goal" in f.text]
    mixed = merge([of("person"), of("style")])
    (line,) = [f for f in mixed.report.findings() if "goal" in f.text]
    assert mixed.goal == OWN_GOAL and line.level == "warning" and "person, style" in line.text
    assert common_goal([]) == OWN_GOAL


def test_the_goal_reaches_training_with_the_cache_and_makes_no_latent_stale(tmp_path):
    (tmp_path / "set").mkdir()
    save(picture(1), tmp_path / "set" / "a.png")
    caches = {}
    for name in (OWN_GOAL, "person"):
        dataset = load_dataset(DatasetSettings(folder="set", goal=name), allowed=lambda path, **_: tmp_path / path)
        caches[name] = build_cache(dataset, SETTINGS, encoder=Pooling(), text=Letters(), folder=tmp_path / "cache")
    assert {name: cache.goal for name, cache in caches.items()} == {OWN_GOAL: OWN_GOAL, "person": "person"}
    assert caches["person"].fingerprint == caches[OWN_GOAL].fingerprint
    assert not any(caches["person"].built.values())


def test_the_help_page_tells_the_values_that_count():
    text = (ROOT / "web" / "docs" / "masks-that-work.md").read_text(encoding="utf-8")
    rows = {cells[0].strip("`"): cells[1:] for cells in table(text, "| `goal` |")}
    assert tuple(rows) == GOALS
    for name, (crop, infill, feather, rank, steps, loss) in rows.items():
        one = goal(name)
        assert (crop, infill, float(feather)) == (f"`{one.crop}`", f"`{one.infill}`", one.feather)
        assert rank == (f"× {one.rank}" if one.rank != 1 else "the family's")
        assert steps == (f"× {one.length:g}" if one.length != 1 else "the family's")
        assert loss == (", ".join(f"`{k}` {v:g}" for k, v in one.loss.items()) or "`masked lora`")


def table(text, head):
    """The cells of the rows of the table with that head."""
    lines = text[text.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
