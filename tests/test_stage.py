"""The larger stage: what is drawn, its judge, and a tiny run of it from pictures to tables."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from benchmarks.stage import judge, measure, picture, run
from benchmarks.stage.scenes import BACKDROPS, SUBJECTS, draw_backdrop, paint_subject, training_pictures
from benchmarks.stage.world import Recipe
from demo import judge as demo_judge
from demo import scenes

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures_of(subject, backdrop, *, count=6, seed=0):
    drawn = training_pictures(SUBJECTS[subject], BACKDROPS[backdrop], seed=seed, count=count)
    return np.stack([picture for picture, _ in drawn])


def others():
    rng = np.random.default_rng(3)
    return np.stack([scenes.draw_scene(rng, *one).image for one in scenes.combinations()[::9]])


@pytest.mark.parametrize(("subject", "backdrop"), run.CELLS)
def test_outside_of_its_mask_a_picture_is_its_backdrop(subject, backdrop):
    wall = draw_backdrop(np.random.default_rng(5), BACKDROPS[backdrop])
    picture, mask = paint_subject(wall, SUBJECTS[subject], scenes.Pose())
    changed = np.abs(picture - wall).max(-1) > 1
    assert mask.dtype == np.float32 and not (changed & (mask == 0)).any()
    assert 0.1 < mask.mean() < 0.4 and changed[mask == 1].mean() > 0.95


def test_a_seed_draws_the_same_pictures_and_another_one_others():
    assert np.array_equal(pictures_of("mushroom", "rings"), pictures_of("mushroom", "rings"))
    assert not np.array_equal(pictures_of("mushroom", "rings"), pictures_of("mushroom", "rings", seed=1))


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_is_told_from_everything_else_on_any_background(subject):
    own = np.concatenate([pictures_of(subject, backdrop) for backdrop in BACKDROPS])
    rest = np.concatenate([others(), *(pictures_of(other, "rings") for other in SUBJECTS if other != subject)])
    near, far = (judge.subject_distance(one, SUBJECTS[subject]) for one in (own, rest))
    assert near.max() < judge.SUBJECT_REACH < far.min()
    # Half of the way to either side.
    assert near.max() < 0.6 * judge.SUBJECT_REACH and far.min() > 1.3 * judge.SUBJECT_REACH


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_a_backdrop_is_told_from_everything_else(backdrop):
    own = np.concatenate([pictures_of(subject, backdrop) for subject in SUBJECTS])
    rest = [others(), *(pictures_of(s, b) for s in SUBJECTS for b in BACKDROPS if b != backdrop)]
    assert judge.shows_backdrop(own, BACKDROPS[backdrop]).all()
    assert not judge.shows_backdrop(np.concatenate(rest), BACKDROPS[backdrop]).any()


def test_the_demo_s_judge_sees_its_own_backdrop_likewise():
    zigzag = pictures_of("figure", "zigzag")
    assert [one.shows_backdrop for one in demo_judge.judge(zigzag)] == [True] * len(zigzag)


def test_no_caption_names_a_background_and_each_prompt_asks_for_what_it_is_judged_by():
    effort = measure.Effort()
    wanted = measure.prompts(SUBJECTS["mushroom"], effort)
    asked, unasked = wanted[: effort.asked], wanted[effort.asked : effort.asked + effort.unasked]
    assert {background for _, background in asked} == set(scenes.BACKGROUNDS)
    assert all(prompt == f"a fendle on {background}" for prompt, background in asked)
    assert set(unasked) == {("a fendle", "")}
    assert all("fendle" not in prompt for prompt, _ in wanted[effort.asked + effort.unasked :])


def test_a_tiny_run_goes_from_pictures_to_tables_and_goes_on_where_it_was(tmp_path):
    recipe, effort = Recipe(pictures=3, steps=2), measure.Effort(asked=2, unasked=1, others=1, steps=1)
    path, cells, heard = tmp_path / "results.json", run.CELLS[:1], []
    first, all_arms = (run.BASE, run.NO_MASK), (run.BASE, *run.ARMS)
    for arms in (first, all_arms):
        runs = run.run_all(path, (7,), arms, recipe, effort, cells=cells, tell=heard.append)
    assert len(heard) == len(runs) == len(all_arms) and runs == run.read(path)
    assert all(set(one["figures"]) == set(measure.FIGURES) for one in runs)
    assert len({one["figures"][measure.FAR] for one in runs}) == len(all_arms)
    told = run.table(runs)
    assert [line.split(" | ")[0].strip("| ") for line in told.splitlines()[2:]] == [*all_arms, "*infill: change*"]
    assert run.cells_table(runs).splitlines()[2].startswith("| figure on zigzag | ")


def test_the_sheet_has_a_row_for_each_arm_of_which_there_are_pictures(tmp_path):
    for subject, backdrop in picture.SHOWN:
        for arm, value in ((run.BASE, 50), (run.BOTH, 200)):
            row = np.full((scenes.SIZE, 2 * scenes.SIZE, 3), value, np.uint8)
            Image.fromarray(row).save(tmp_path / picture.shot_name(7, subject, backdrop, arm))
    sheet = picture.compose(tmp_path, 7, [run.BASE, run.NO_MASK, run.BOTH], columns=2)
    training = picture.compose(tmp_path, 8, [run.BASE], columns=2)
    assert sheet.height == pytest.approx(3 * training.height, abs=2) and sheet.width == training.width
    pixels = np.asarray(sheet)[:, sheet.width // 4].astype(int)
    third = sheet.height // 3
    assert abs(pixels[third + third // 2] - 50).max() <= 1 and abs(pixels[2 * third + third // 2] - 200).max() <= 1


def test_the_evidence_tells_the_stored_figures():
    stored = json.loads((run.HERE / "results.json").read_text(encoding="utf-8"))
    assert stored["setting"] == {"recipe": asdict(Recipe()), "effort": asdict(measure.Effort())}
    assert sorted({one["seed"] for one in stored["runs"]}) == list(run.SEEDS)
    evidence = (run.HERE.parents[1] / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert run.table(stored["runs"]) in evidence and run.cells_table(stored["runs"]) in evidence
    subjects = measure.Effort().asked + measure.Effort().unasked
    painted = {arm: sum(one["arm"] == arm for one in stored["runs"]) * subjects for arm in run.ARMS}
    shown = {arm: sum(with_backdrop(one) for one in stored["runs"] if one["arm"] == arm) for arm in run.ARMS}
    assert shown[run.PRIOR] == shown[run.BOTH] == 0 and painted[run.PRIOR] == 720
    assert round(shown[run.NO_MASK] / painted[run.NO_MASK], 2) == 0.97
    readme = " ".join((run.HERE.parents[1] / "README.md").read_text(encoding="utf-8").split())
    assert "came back in none of 720 pictures, and without masks in 97 %" in readme
    assert "of 720 pictures none has it, where without masks 97 % do" in evidence


def with_backdrop(one):
    """How many of a run's pictures of the subject have the training background."""
    effort, figures = measure.Effort(), one["figures"]
    return round(figures[measure.LEAK0] * effort.unasked + figures[measure.LEAK] * effort.asked)


def test_a_change_is_paired_by_seed_and_averaged_over_subjects_and_backdrops():
    def one(seed, arm, value):
        return {
            "seed": seed,
            "subject": "figure",
            "backdrop": "rings",
            "arm": arm,
            "figures": dict.fromkeys(measure.FIGURES, value),
        }

    runs = [one(seed, arm, seed / 10 + up) for seed in (1, 3) for arm, up in ((run.PRIOR, 0), (run.BOTH, 0.2))]
    prior, both, change = run.table(runs).splitlines()[2:]
    assert prior.endswith("| 0.20 ± 0.14 |") and both.endswith("| 0.40 ± 0.14 |")
    assert change.endswith("| +0.20 ± 0.00 |")
