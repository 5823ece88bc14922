"""The benchmark of moving masks: its world, the laws of its figures, and a tiny run of it from file to table."""

import itertools
import json

import numpy as np
import pytest
import torch

from benchmarks.leakage import scenes as still
from benchmarks.moving import base, codec, measure, run, scenes
from benchmarks.moving.world import ARMS, MOVING, NO_MASK, UNION, Recipe, World, training_clips
from masklora.loss.masks import mask_cells
from masklora.settings import LossSettings

GRID = (5, scenes.ROWS, scenes.COLUMNS)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world():
    return World(base.stored())


def rng(seed=0):
    return np.random.default_rng(seed)


def subjects(background, motion=scenes.OWN_MOTION, count=3):
    return np.stack([scenes.draw_subject(rng(i), background, motion=motion).frames for i in range(count)])


def empty(background, count=3):
    return np.stack([scenes.draw_empty(rng(i), background).frames for i in range(count)])


# ------------------------------------------------------------------ the world


def test_the_subject_crosses_from_edge_to_edge_and_its_mask_goes_with_it():
    clip = scenes.draw_subject(rng())
    columns = [np.flatnonzero(mask.any(0)) for mask in clip.masks]
    assert columns[0][0] == 0 and columns[-1][-1] == scenes.COLUMNS - 1
    assert all(0 <= b[0] - a[0] <= 1 for a, b in itertools.pairwise(columns))
    assert clip.union.sum() == scenes.SIZE * scenes.COLUMNS
    drawn = np.abs(clip.frames - scenes.draw_empty(rng(), still.BACKDROP).frames).max(-1) > 0
    assert np.array_equal(drawn, clip.masks > 0)


@pytest.mark.parametrize("background", scenes.BACKGROUNDS)
def test_a_latent_keeps_a_clip_exactly(background):
    clips = subjects(background)
    latents = codec.to_model_space(clips)
    assert latents.shape == (3, 16, *GRID)
    assert np.allclose(codec.from_model_space(latents), clips, atol=1e-6)


def test_a_latent_frame_is_of_its_own_four_frames():
    clips = subjects("snow", count=1)
    other = clips.copy()
    other[:, 5] = 0
    changed = (codec.to_model_space(clips) - codec.to_model_space(other)).abs().amax((0, 1, 3, 4)) > 0
    assert changed.tolist() == [False, False, True, False, False]


def test_files_come_back_as_the_network_s_latents_and_the_arm_s_masks(world):
    recipe = Recipe(clips=2)
    clip = training_clips(3, 2)[0]
    for arm in ARMS:
        cache = world.make_cache(arm, 3, recipe)
        entry = cache.entries[0]
        latent = world.model.model.process_latent_in(cache.latent(entry)[None])
        assert torch.allclose(latent, codec.to_model_space(clip.frames[None]), atol=0.02)
        cells = mask_cells(cache.mask(entry)[None], LossSettings(), grid=GRID, kind="area")[0, 0].numpy()
        groups = np.concatenate([clip.masks[:1], clip.masks[1:].reshape(4, 4, *GRID[1:]).mean(1)])
        expected = {NO_MASK: np.ones(GRID), UNION: np.broadcast_to(clip.union, GRID), MOVING: groups}[arm]
        assert np.allclose(cells, expected, atol=1e-6)


def test_the_base_is_small_and_of_comfyui_s_own_class(world):
    assert base.FILE.stat().st_size < 3e6
    assert type(world.model.model).__name__ == "WAN21"
    assert type(world.model.model.diffusion_model).__module__ == "comfy.ldm.wan.model"


# ------------------------------------------------------------------ the figures


@pytest.mark.parametrize("background", scenes.BACKGROUNDS)
def test_a_perfect_clip_leaks_nothing_and_moves_as_it_should(background):
    noisy = subjects(background) + rng(1).normal(0, 0.04, subjects(background).shape).astype(np.float32)
    clips = noisy.clip(0, 1)
    assert measure.leak(clips) == 0
    assert measure.subject(clips) == 1
    assert measure.motion(clips) == 0
    assert measure.background(clips, [background] * 3) == 1


def test_a_clip_of_the_training_background_alone_leaks_in_full_and_shows_no_subject():
    clips = empty(still.BACKDROP)
    assert measure.leak(clips) == 1
    assert measure.subject(clips) == 0
    assert measure.background(clips, ["snow"] * 3) == 0


def test_the_training_clip_itself_is_all_that_a_leak_can_be():
    clips = subjects(still.BACKDROP)
    assert (measure.leak(clips), measure.subject(clips), measure.motion(clips)) == (1, 1, 0)


def test_leak_is_the_share_of_the_picture_and_of_the_time():
    clips = empty("snow")
    clips[:, :, :, :3] = empty(still.BACKDROP)[:, :, :, :3]
    assert measure.leak(clips) == pytest.approx(3 / scenes.COLUMNS)
    clips[:, 4:] = empty("snow")[:, 4:]
    assert measure.leak(clips) == pytest.approx(3 / scenes.COLUMNS * 4 / scenes.FRAMES)


def test_other_things_are_neither_leak_nor_subject():
    for shape, colour, ground in scenes.combinations():
        clips = scenes.draw_clip(rng(), shape, colour, "left", ground).frames[None]
        assert measure.leak(clips) == 0 and measure.subject(clips) == 0
        assert measure.background(clips, [ground]) == 1


def test_motion_is_how_far_the_subject_is_from_where_it_was():
    away = {m: np.abs(scenes.path(m) - scenes.path(scenes.OWN_MOTION)).sum(1).mean() for m in scenes.MOTIONS}
    for motion in scenes.MOTIONS:
        assert measure.motion(subjects("stone", motion)) == pytest.approx(away[motion])
    late = np.roll(subjects("stone"), 2, axis=1)
    late[:, :2] = late[:, 2:3]
    assert measure.motion(late) == pytest.approx(1, abs=0.15)


def test_a_smeared_subject_is_none():
    clip = scenes.draw_subject(rng(), "snow")
    smeared = np.where(clip.masks[..., None] > 0, clip.frames, np.float32(still.SUBJECT_COLOURS["o"]))
    assert measure.subject(smeared[None]) == 0 < measure.subject(clip.frames[None])


def test_prompts_ask_for_every_background_alike_and_others_never_name_the_trigger():
    groups = measure.prompts_of(measure.Effort(asked=2, alone=3, others=4))
    assert [len(group) for group in groups.values()] == [8, 3, 4]
    assert [prompt.split()[-1] for prompt in groups["asked"][::2]] == list(scenes.BACKGROUNDS)
    assert all(still.TRIGGER not in prompt for prompt in groups["others"])


# ------------------------------------------------------------------ the runs


def made_runs(**changes):
    """Runs of two seeds, in which the mask per frame leaks 0.1 and 0.3 less than the still one."""
    runs = [{"loss": "", "arm": run.BASE, "seed": 0, "figures": dict.fromkeys(measure.FIGURES, 0.0)}]
    for arm, leaks in ((NO_MASK, (1, 1)), (UNION, (0.4, 0.5)), (MOVING, (0.3, 0.2))):
        for seed in (1, 0):
            figures = dict.fromkeys(measure.FIGURES, 0.5) | {"leak": leaks[seed]}
            runs.append({"loss": run.DEFAULT, "arm": arm, "seed": seed, "figures": figures})
    return runs


def test_differences_are_paired_by_seed():
    assert run.values(made_runs(), run.DEFAULT, UNION, "leak").tolist() == [0.4, 0.5]
    assert run.paired(made_runs(), run.DEFAULT, UNION, "leak") == pytest.approx((-0.2, 0.1))
    assert run.paired(made_runs(), run.DEFAULT, NO_MASK, "leak") == pytest.approx((-0.75, 0.05))
    assert f"| {UNION}, {run.DEFAULT} | -0.200 ± 0.100 | +0.000 ± 0.000 |" in run.tables(made_runs())


def test_a_tiny_run_goes_from_files_to_a_table_and_a_picture_and_goes_on_where_it_stopped(world, tmp_path):
    recipe, effort = Recipe(clips=2, steps=3, batch=2), measure.Effort(asked=1, alone=1, others=1, steps=2)
    options = {"seeds": (7,), "losses": (run.DEFAULT, run.BARE), "recipe": recipe, "effort": effort}
    path, shared, runs = tmp_path / "results.json", run.setting(recipe, effort), []
    painter = run.Painter(world, recipe, seed=7, steps=2)
    for one, model in run.run_all(world, runs, **options):
        run.save(path, shared, runs)
        painter.see(one, model)
    assert [(r["loss"], r["arm"]) for r in runs[1:]] == [
        *((run.DEFAULT, arm) for arm in ARMS),
        (run.BARE, UNION),
        (run.BARE, MOVING),
    ]
    assert all(set(r["figures"]) == set(measure.FIGURES) for r in runs)
    again = run.load(path, shared)
    assert list(run.run_all(world, again, **options)) == [] and again == runs
    assert run.load(path, shared | {"base": "another"}) == []
    assert set(painter.rows) == {run.BASE, *ARMS}
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(painter.rows.values(), 2))
    fresh = run.Painter(world, recipe, seed=7, steps=2)
    assert np.array_equal(np.asarray(painter.draw()), np.asarray(fresh.draw()))


def test_the_evidence_tells_the_stored_figures_and_nothing_else():
    stored = json.loads((run.HERE / "results.json").read_text(encoding="utf-8"))
    assert stored["setting"] | {"torch": ""} == run.setting(Recipe(), measure.Effort()) | {"torch": ""}
    seeds = {(r["loss"], r["arm"]): set() for r in stored["runs"]}
    for one in stored["runs"]:
        seeds[one["loss"], one["arm"]].add(one["seed"])
    assert seeds.pop(("", run.BASE)) == {0}
    assert all(found == set(run.SEEDS) for found in seeds.values()) and {arm for _, arm in seeds} == set(ARMS)
    evidence = (run.HERE.parents[1] / "docs" / "evidence.md").read_text(encoding="utf-8")
    for table in run.tables(stored["runs"]).split("\n\n"):
        assert table in evidence
