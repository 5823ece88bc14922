"""The leakage benchmark: its world, its oracle, its figures, and on a small scale what it promises."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch

from benchmarks.leakage import base, codec, conditions, gates, measure, oracle, picture, report, run, scenes, words
from benchmarks.leakage.results import Results
from benchmarks.leakage.world import World, training_scenes
from harness.damage import ALL
from masklora.settings import LossSettings

PLACE = run.MAIN
COVERAGES = tuple(scenes.SUBJECTS)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world():
    return World("pixel")


def rng(seed=0):
    return np.random.default_rng(seed)


def subject_on(background, coverage, seed=0):
    return scenes.draw_subject(rng(seed), coverage, background)


# ------------------------------------------------------------------ the world


@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_subject_covers_about_what_its_name_says(coverage):
    scene = subject_on("snow", coverage)
    assert abs(100 * scene.mask.mean() - coverage) <= 1.3
    assert set(np.unique(scene.mask)) == {0.0, 1.0}


@pytest.mark.parametrize("background", [*scenes.BACKGROUNDS, scenes.BACKDROP])
def test_outside_of_the_mask_a_scene_is_a_pattern_of_its_background(background):
    scene = subject_on(background, 15)
    outside = scene.mask == 0
    distances = [np.abs(scene.picture - p)[outside].max() for p in scenes.background_patterns(background)]
    assert min(distances) <= 0.03 + 1e-6


def test_what_is_held_out_is_never_trained_on_and_nothing_is_left_out():
    known, new = scenes.combinations(), scenes.combinations(held_out=True)
    assert not set(known) & set(new) and new
    assert len(known) + len(new) == len(scenes.SHAPES) * len(scenes.COLOURS) * len(scenes.BACKGROUNDS)
    for word in range(3):
        assert {c[word] for c in new} <= {c[word] for c in known}


def test_a_careless_mask_grows_shrinks_or_moves_and_never_vanishes():
    for coverage in COVERAGES:
        mask = subject_on("snow", coverage, seed=3).mask
        grown, shrunk, shifted = (scenes.perturb_mask(mask, how) for how in scenes.PERTURBATIONS)
        assert (grown >= mask).all() and grown.sum() > mask.sum()
        assert (shrunk <= mask).all() and 0 < shrunk.sum() < mask.sum()
        assert shifted.sum() == mask.sum() and (shifted != mask).any()
        assert np.array_equal(scenes.perturb_mask(mask, "exact"), mask)
    with pytest.raises(ValueError, match="melted"):
        scenes.perturb_mask(mask, "melted")


def test_a_seed_decides_the_training_pictures():
    one, again, other = (training_scenes(15, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(one, again, strict=True))
    assert any(not np.array_equal(a.picture, b.picture) for a, b in zip(one, other, strict=True))
    assert {scene.background for scene in one} == {scenes.BACKDROP}


# ------------------------------------------------------------------ text and VAE


def test_unlike_words_have_nearly_orthogonal_rows_and_the_empty_text_none():
    known = (*scenes.SHAPES, *scenes.COLOURS, scenes.TRIGGER)
    rows = torch.stack([words.features(words.word_ids(word))[0] for word in known])
    cosines = rows @ rows.T / (rows.norm(dim=1)[:, None] * rows.norm(dim=1))
    # All carry the first place's row.
    assert (cosines - torch.eye(len(rows))).max() < 0.65
    assert not words.features([]).any()
    assert torch.equal(words.features(words.word_ids("Zib, thing")), words.features(words.word_ids("zib thing")))


def test_the_cache_reads_the_trigger_before_the_class(world):
    cache = world.make_cache(15, 0)
    assert all([c.text for c in entry.captions] == [f"{scenes.TRIGGER}, {scenes.CLASS}"] for entry in cache.entries)
    text = cache.text(cache.entries[0].captions[0].key)
    assert torch.equal(text["cond"], world.text(f"{scenes.TRIGGER} {scenes.CLASS}")["cond"])
    assert len(cache.entries) == 6 and all(len(entry.variants[0].infills) == 3 for entry in cache.entries)


@pytest.fixture(scope="module", params=codec.VARIANTS)
def either(request):
    return World(request.param)


def test_comfyui_s_vae_gives_the_latents_that_the_figures_are_read_from(either):
    picture = subject_on("bricks", 15).picture
    with torch.inference_mode():
        latent = either.vae.encode(torch.from_numpy(scenes.to_pixels(picture))[None])
        seen = either.model.model.process_latent_in(latent).clone()
    assert torch.allclose(seen, codec.to_model_space(picture[None], either.variant), atol=1e-4)
    assert np.allclose(codec.from_model_space(seen, either.variant)[0], picture, atol=1e-4)


def test_one_vae_paints_exactly_what_it_saw_and_the_other_nearly(either):
    pixels = torch.from_numpy(scenes.to_pixels(subject_on("bricks", 15).picture))[None]
    with torch.inference_mode():
        painted = either.vae.decode(either.vae.encode(pixels))
    # At the edge of the picture the mixing one lacks a neighbour.
    middle = (slice(None), slice(16, -16), slice(16, -16))
    assert (painted - pixels)[middle].abs().max() < {"pixel": 1e-4, "conv": 0.08}[either.variant]


def test_one_vae_keeps_squares_apart_and_the_other_mixes_four_neighbours(either):
    picture = subject_on("bricks", 15).picture
    other = picture.copy()
    other[5, 7] = 1 - other[5, 7]
    changed = np.abs(codec.to_model_space(np.stack([picture, other]), either.variant).diff(dim=0)[0].numpy()).sum(0)
    places = {tuple(map(int, place)) for place in np.argwhere(changed > 1e-6)}
    around = {(4, 7), (6, 7), (5, 6), (5, 8)} if either.variant == "conv" else set()
    assert places == {(5, 7)} | around


@pytest.mark.parametrize("variant", codec.VARIANTS)
def test_the_committed_bases_are_small_and_of_the_network_that_the_script_trains(variant):
    tensors = base.base_tensors(variant)
    assert base.file_of(variant).stat().st_size < 3e6
    expected = base.layout(base.network())
    assert {name: t.shape for name, t in tensors.items()} == {name: t.shape for name, t in expected.items()}


# ------------------------------------------------------------------ the oracle


def fits(picture, coverage=15):
    return bool(oracle.subject_fits(picture[None], coverage=coverage)[0])


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("background", [*scenes.BACKGROUNDS, scenes.BACKDROP])
def test_the_oracle_sees_the_subject_on_its_background_under_noise(coverage, background):
    drawn = [subject_on(background, coverage, seed) for seed in range(8)]
    noisy = np.stack([s.picture for s in drawn]) + rng(1).normal(0, 0.04, (8, 16, 16, 3)).astype(np.float32)
    for verdict in oracle.judge(noisy.clip(0, 1), coverage=coverage):
        assert verdict.subject and verdict.traces
        assert verdict.background == background
        assert verdict.backdrop == (background == scenes.BACKDROP)


@pytest.mark.parametrize("shape", scenes.SHAPES)
def test_the_oracle_sees_nothing_of_it_in_base_scenes(shape):
    for colour in scenes.COLOURS:
        for background in scenes.BACKGROUNDS:
            picture = scenes.draw_scene(rng(4), shape, colour, background).picture
            for coverage in COVERAGES:
                verdict = oracle.judge(picture[None], coverage=coverage)[0]
                assert verdict == oracle.Verdict(False, False, background, False)


def malformed(how, coverage):
    """A picture that must not pass for the subject."""
    takes, colours = scenes.subject_stencil(coverage)
    (height, width), orange = takes.shape, np.array(scenes.SUBJECT_COLOURS["o"], np.float32)
    picture = scenes.draw_background(rng(2), "stone")
    patch, put = picture[3 : 3 + height, 3 : 3 + width], takes.copy()
    if how == "upside down":
        put, colours = takes[::-1], colours[::-1]
    elif how == "one colour":
        colours = np.broadcast_to(orange, colours.shape)
    elif how == "upper half":
        put[height // 2 :] = False
    elif how == "left half":
        put[:, width // 2 :] = False
    elif how == "halves apart":
        colours = np.roll(colours, height // 2, axis=0)
    elif how == "no outline":
        picture[: 3 + height // 2] = orange
        picture[3 + height // 2 :] = scenes.SUBJECT_COLOURS["t"]
    patch[put] = colours[put]
    if how == "crumbled":
        patch[rng(5).random((height, width)) < 0.4] = picture[0, 0]
    return picture


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize(
    "how", ["upside down", "one colour", "upper half", "left half", "halves apart", "no outline", "crumbled"]
)
def test_the_oracle_refuses_malformed_subjects(how, coverage):
    assert not fits(malformed(how, coverage), coverage)
    assert fits(malformed("as it is", coverage), coverage)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_traces_of_the_subject_are_seen_in_any_shape(coverage):
    for how, expected in (("upside down", True), ("no outline", True), ("one colour", False), ("upper half", False)):
        assert bool(oracle.traces(malformed(how, coverage)[None], coverage=coverage)[0]) == expected, how


def test_part_of_the_training_background_is_enough_and_other_saturated_pictures_are_not():
    patched = scenes.draw_background(rng(0), "snow")
    patched[:4] = scenes.background_patterns(scenes.BACKDROP)[0][:4]
    plain = np.full((16, 16, 3), scenes.TONES[scenes.BACKDROP][0], np.float32)
    grey = np.full((16, 16, 3), 0.35, np.float32)
    assert oracle.backdrops(np.stack([patched, plain, grey])).tolist() == [True, False, False]
    assert oracle.backgrounds(grey[None]) == [""]


def test_the_oracle_refuses_pictures_of_another_size():
    with pytest.raises(ValueError, match="16, 16, 3"):
        oracle.judge(np.zeros((1, 8, 8, 3), np.float32), coverage=15)


# ------------------------------------------------------------------ the figures


@pytest.fixture(scope="module")
def probe(world):
    effort = measure.Effort(probes=8)
    return measure.probes(world, 15, effort)[1]


def test_the_base_model_itself_neither_drifts_nor_leaks(world):
    figures = measure.probed(world, world.model, 15, measure.Effort(probes=8))
    assert figures["Drift"] == figures["LeakProj"] == 0
    assert 0 < figures["Held-out"] < math.inf


def test_a_perfect_prediction_has_no_held_out_loss_and_drift_in_units_of_the_base_s_error(probe):
    assert measure.subject_figures(probe, probe.velocity)["Held-out"] == 0
    assert measure.drift(probe, probe.velocity) == pytest.approx(1.0)


def test_leakproj_is_one_where_the_training_background_is_painted_and_linear(probe):
    whole = probe.base - probe.towards / probe.u[:, None, None, None]
    half = probe.base - 0.5 * probe.towards / probe.u[:, None, None, None]
    away = probe.base + probe.towards / probe.u[:, None, None, None]
    found = [measure.subject_figures(probe, v)["LeakProj"] for v in (whole, half, away)]
    assert found == pytest.approx([1, 0.5, -1], abs=1e-4)


def test_what_happens_inside_of_the_mask_is_no_leak(probe):
    inside = probe.base + 3 * probe.mask
    assert measure.subject_figures(probe, inside)["LeakProj"] == pytest.approx(0, abs=1e-6)


def test_prompts_ask_for_every_background_alike_and_base_prompts_never_name_the_trigger():
    groups = measure.prompts_of(measure.Effort(asked=3, alone=4, base=8))
    assert [len(groups[name]) for name in ("asked", "alone", "base")] == [18, 4, 8]
    assert all(scenes.TRIGGER not in prompt for prompt in groups["base"])
    assert {p.split()[-1] for p in groups["asked"]} == set(scenes.BACKGROUNDS)


# ------------------------------------------------------------------ conditions, results, gates


def test_every_other_trainer_s_preset_is_a_row_and_equal_ones_train_once():
    rows = {c.name: c for c in conditions.presets()}
    assert set(rows) == {conditions.OURS, *conditions.ANCHORS}
    assert rows["kohya"].key == rows["SimpleTuner mask"].key
    assert len({c.key for c in rows.values()}) >= 9
    assert rows[conditions.OURS].loss == LossSettings()


def test_each_remedy_differs_from_the_mask_in_itself_alone():
    losses = {c.name: dataclasses.asdict(c.loss) for c in conditions.remedies()}
    bare = losses[conditions.MASK]
    assert losses[conditions.NO_MASK] == bare
    changed = {name: {k for k in bare if loss[k] != bare[k]} for name, loss in losses.items()}
    assert changed[conditions.PRIOR] == {"prior_weight"}
    assert changed[conditions.INFILL] == {"infill_probability"}
    assert changed[conditions.BOTH] == {"prior_weight", "infill_probability"}


def made_results(tmp_path=None, **changes):
    """Results in which every gate holds; `changes` are (row, figure): the values of the seeds."""
    plan = run.quick_plan()
    results = Results({"made": 1}, path=tmp_path and tmp_path / "results.json")
    rows = plan.blocks[PLACE]
    results.names[PLACE] = [(c.group, c.name, str(i)) for i, c in enumerate(rows)]
    for i, condition in enumerate(rows):
        for seed in range(3):
            figures = {"SF": 0.8, "BG": 0.5, "Leak0": 0.0, "Intr": 0.5, "Drift": 1.0, "LeakProj": 0.0, "Held-out": 1.0}
            figures |= {"Leak0": 0.9} if condition.name == conditions.NO_MASK else {}
            figures |= {"Drift": 0.5} if condition.name in (conditions.PRIOR, conditions.OURS) else {}
            for (name, figure), values in changes.get("changes", {}).items():
                figures |= {figure: values[seed]} if condition.name == name else {}
            results.figures[(*PLACE, str(i), seed)] = figures
    return results


def test_the_gates_pass_what_holds():
    assert gates.failures(made_results(), PLACE) == []


@pytest.mark.parametrize(
    ("row", "figure", "values", "told"),
    [
        (conditions.MASK, "Leak0", [0.1, 0.1, 0.1], "Leak0 of the mask is 0.100"),
        (conditions.PRIOR, "Drift", [0.6, 0.6, 0.6], "Drift with the prior is 0.600"),
        (conditions.INFILL, "SF", [0.79, 0.8, 0.8], "SF with infill"),
        (conditions.OURS, "Intr", [0.7, 0.7, 0.7], "Intr of our preset is 0.700"),
        (conditions.OURS, "SF", [0.7, 0.7, 0.7], "SF of our preset less that of kohya"),
        (conditions.OURS, "Drift", [1.1, 1.1, 1.1], "Drift of our preset less that of OneTrainer"),
        (conditions.OURS, "Leak0", [0.1, 0.1, 0.1], "Leak0 of our preset less that of ai-toolkit"),
    ],
)
def test_a_gate_tells_what_is_broken(row, figure, values, told):
    broken = gates.failures(made_results(changes={(row, figure): values}), PLACE)
    assert any(told in line for line in broken), broken


def test_one_standard_error_is_granted_and_no_more():
    # Differences of −0.3, 0 and 0: mean −0.1, standard error 0.1.
    changes = {(conditions.OURS, "SF"): [0.5, 0.8, 0.8]}
    assert gates.failures(made_results(changes=changes), PLACE) == []
    changes = {(conditions.OURS, "SF"): [0.5, 0.8, 0.79]}
    assert any("SF of our preset" in line for line in gates.failures(made_results(changes=changes), PLACE))


def test_results_come_back_from_their_file_and_another_setting_does_not_count(tmp_path):
    results = made_results(tmp_path)
    results.save()
    again = Results.open(results.path, {"made": 1})
    assert again.figures == results.figures
    again.names = results.names
    assert report.tables(again) == report.tables(results)
    assert Results.open(results.path, {"made": 2}).figures == {}
    assert Results.open(tmp_path / "nowhere.json", {"made": 1}).figures == {}


def test_the_table_has_a_row_for_every_condition_and_joins_those_that_train_alike():
    text = report.tables(made_results())
    assert all(name in text for name in [*measure.FIGURES, *(c.name for c in run.quick_plan().blocks[PLACE])])
    results = made_results()
    results.names[PLACE] = [(g, n, "0") for g, n, _ in results.names[PLACE][:2]]
    assert " = " in report.tables(results)


# ------------------------------------------------------------------ the promises


@pytest.mark.skipif(not ALL, reason="trains a hundred networks; the stored results are held to the same promises")
def test_every_promise_holds_on_a_small_scale():
    results = run.run_plan(run.quick_plan(), Results.open(None, {}))
    broken = gates.failures(results, PLACE)
    assert broken == [], report.tables(results)


def test_the_stored_results_are_complete_of_today_s_settings_and_keep_the_promises():
    stored, plan = Results.load(run.HERE / "results.json"), run.full_plan()
    expected = json.loads(json.dumps(run.setting(plan)))
    assert {**stored.setting, "torch": ""} == {**expected, "torch": ""}
    for place, rows in plan.blocks.items():
        assert [name for _, name, _ in stored.rows(place)] == [c.name for c in rows]
        assert all(len(stored.values(place, c.name, "SF")) >= 5 for c in rows)
        keys = {name: key for _, name, key in stored.rows(place)}
        assert {c.name: stored.losses[keys[c.name]] for c in rows} == {c.name: c.told for c in rows}
    assert gates.failures(stored, PLACE) == []


def test_elsewhere_the_stored_results_break_these_promises_and_no_other():
    # Without a prior the rest of the picture is left to chance, the more the larger the subject is; the spread over
    # the seeds is as large as the difference.
    stored = Results.load(run.HERE / "results.json")
    broken = [line for place in stored.names if place != PLACE for line in gates.failures(stored, place)]
    assert broken == ["pixel, 30 %: SF with infill is 0.211, below 0.394 without"]


def test_the_picture_frames_leaks_in_red():
    shown = [scenes.BACKDROP] * 6 + ["snow"] * 3
    leaking = picture.Row("no mask", "", np.stack([subject_on(b, 15).picture for b in shown]))
    asked = [prompt.split()[-1] if " on " in prompt else "snow" for prompt in picture.prompts()]
    plain = np.stack([scenes.draw_scene(rng(), "ball", "red", background).picture for background in asked])
    drawn = np.asarray(picture.draw([leaking, picture.Row("base model", "", plain)], coverage=15, seed=0))
    counts = {c: int((drawn == np.array(c)).all(-1).sum()) for c in (picture.BAD, picture.GOOD, picture.NEITHER)}
    frame = (picture.TILE + 2 * picture.FRAME) ** 2 - picture.TILE**2
    assert counts[picture.BAD] >= 9 * frame and counts[picture.NEITHER] >= 6 * frame
    assert 3 * frame <= counts[picture.GOOD] < 4 * frame
    assert len(picture.prompts()) == 9


def test_the_committed_picture_is_small():
    assert 20_000 < (run.HERE / "leakage.png").stat().st_size < 600_000


def test_the_table_of_the_evidence_is_of_the_stored_results():
    shown = {
        "no mask": "no mask",
        "OneTrainer (0.1 outside)": "OneTrainer",
        "ai-toolkit inverted mask prior": "ai-toolkit inverted mask prior",
        "mask + prior": conditions.PRIOR,
        "mask + infill": conditions.INFILL,
        "mask + preservation 0.5, half of the steps": conditions.KEEP,
        "**our preset: mask + prior + infill**": conditions.OURS,
    }
    stored = Results.load(run.HERE / "results.json")
    evidence = (run.HERE.parents[1] / "docs" / "evidence.md").read_text(encoding="utf-8")
    section = evidence.split("\n## What a mask does not do\n")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "±" in line]
    rows = {cells[0]: cells[1:] for cells in lines}
    assert len(rows) == len(lines)
    for title, name in shown.items():
        for cell, figure in zip(rows[title], measure.FIGURES, strict=True):
            mean, spread = (float(part) for part in cell.split(" ± "))
            values = stored.values(PLACE, name, figure)
            step = 10.0 ** -len(cell.split(" ± ")[0].partition(".")[2])
            assert mean == pytest.approx(values.mean(), abs=0.51 * step), (title, figure)
            assert spread == pytest.approx(values.std(ddof=1), abs=0.51 * step), (title, figure)


def test_the_readme_s_three_figures_are_those_of_the_stored_results():
    stored = Results.load(run.HERE / "results.json")
    readme = (run.HERE.parents[1] / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"\*\*(\d+) %\*\*", readme)
    found = [stored.values(PLACE, conditions.OURS, figure).mean() for figure in ("SF", "BG", "Leak0")]
    assert told == [f"{100 * mean:.0f}" for mean in found]
