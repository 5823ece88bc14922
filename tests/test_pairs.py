"""The benchmark of pairs: its world, its base, the laws of its figures, and a tiny run of it from files to a table."""

import json

import numpy as np
import pytest
import torch

from benchmarks.leakage import words
from benchmarks.pairs import base, codec, measure, run, scenes
from benchmarks.pairs.world import Recipe, World, instruct, training_pairs
from harness.damage import ALL
from masklora.loss.masks import mask_cells
from masklora.settings import LossSettings
from masklora.training.job import Hooks

GRID = (scenes.SIDE, scenes.SIDE)
TINY = base.Schooling(steps=2, batch=2)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world():
    return World(base.made(TINY))


def rng(seed=0):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------ the world


@pytest.mark.parametrize("edit", [scenes.KEEP, *scenes.COLOURS, scenes.WORD])
def test_an_edit_changes_the_block_alone_and_the_dye_all_but_the_block(edit):
    pair = scenes.draw_pair(rng(), edit)
    changed = np.abs(pair.target - pair.reference).max(-1) > 0
    assert np.array_equal(changed, (pair.mask > 0) & (edit != scenes.KEEP))
    dyed = scenes.dyed(pair.target, pair.mask)
    assert np.array_equal(np.abs(dyed - pair.target).max(-1) > 0, pair.mask == 0)


def test_the_ground_can_be_told_from_the_reference_alone():
    pictures = [scenes.draw_reference(rng(i)) for i in range(200)]
    bright = np.stack([picture.max(-1) > 0.55 for picture, _ in pictures])
    assert np.array_equal(bright, np.stack([mask > 0 for _, mask in pictures]))
    # A square and its neighbour are alike as often as not.
    alike = [(p[:, 1:] == p[:, :-1]).all(-1)[(m[:, 1:] == 0) & (m[:, :-1] == 0)] for p, m in pictures]
    assert np.concatenate(alike).mean() == pytest.approx(0.5, abs=0.02)


def test_a_latent_keeps_a_picture_exactly_in_the_network_s_space_and_in_the_vae_s():
    pictures = np.stack([scenes.draw_reference(rng(i))[0] for i in range(3)])
    latents = codec.to_model_space(pictures)
    assert latents.shape == (3, codec.CHANNELS, *GRID)
    assert np.allclose(codec.from_model_space(latents), pictures, atol=1e-6)
    pixels = torch.as_tensor(np.stack([scenes.to_pixels(one) for one in pictures])) / 255
    assert torch.allclose(codec.SquareEncoder().encode(pixels), codec.to_vae_space(pictures), atol=0.03)


def test_pairs_come_back_from_files_as_the_network_s_latents_references_and_masks(world):
    recipe = Recipe(pairs=2)
    for number, pair in enumerate(training_pairs(3, 2)):
        for masked in (True, False):
            cache = world.make_cache(masked, 3, recipe)
            entry = cache.entries[number]
            (reference,) = cache.references(entry)
            seen = world.model.model.process_latent_in(torch.stack([cache.latent(entry), reference]))
            squares = np.stack([pair.target, pair.reference])
            assert torch.allclose(seen, codec.to_model_space(squares), atol=0.02)
            cells = mask_cells(cache.mask(entry)[None], LossSettings(), grid=GRID, kind="area")[0, 0].numpy()
            assert np.allclose(cells, pair.mask if masked else 1, atol=1e-6)


def test_the_text_encoder_tells_the_cache_what_the_base_was_taught_by(world):
    (told,) = world.text.encode([instruct("red")])
    texts, pooled = codec.instruction(words.word_ids(instruct("red")))
    assert torch.equal(told["cond"], texts) and torch.equal(told["pooled_output"], pooled)
    assert not torch.equal(pooled, codec.instruction(words.word_ids(instruct("blue")))[1])


# ------------------------------------------------------------------ what is learned


class Watching(Hooks):
    """Keeps the weight that the loss gave each cell, and what the network and its blocks were called with."""

    def __init__(self, network):
        self.weights, self.references, self.tokens, self.network = [], [], [], network

    def on_seen(self, seen):
        self.weights.append(seen.weights.numpy())

    def __enter__(self):
        def given(_, args, said):
            shown = torch.cat(list(said["ref_latents"]))
            # The memory plan counts a pass on tensors without data.
            self.references += [] if shown.is_meta else [shown]

        def passed(_, args, said):
            self.tokens.append((args[0] if args else torch.cat([said["txt"], said["img"]], 1)).shape[1])

        blocks = [*self.network.double_blocks, *self.network.single_blocks]
        self.hooks = [block.register_forward_pre_hook(passed, with_kwargs=True) for block in blocks]
        self.hooks.append(self.network.register_forward_pre_hook(given, with_kwargs=True))
        return self

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()


@pytest.mark.parametrize("arm", [run.MASK, run.BARE])
def test_the_mask_weighs_the_target_s_cells_and_every_pass_has_the_whole_reference(world, arm):
    recipe = Recipe(pairs=1, steps=2, batch=1)
    (pair,) = training_pairs(5, 1)
    with Watching(world.model.model.diffusion_model) as watched:
        world.train(world.make_cache(True, 5, recipe), run.ARMS[arm], recipe, seed=5, hooks=watched)
    assert len(watched.weights) == 2 and all(np.array_equal(one, pair.mask) for one in watched.weights)
    # A pass of the base model for the prior beside each of the training.
    assert len(watched.references) == (4 if arm == run.MASK else 2)
    reference = codec.to_model_space(pair.reference[None])
    assert all(torch.allclose(one, reference, atol=0.02) for one in watched.references)
    assert set(watched.tokens) == {words.PLACES + 2 * (scenes.SIDE // 2) ** 2}


def test_lessons_teach_to_keep_at_words_never_seen_and_colours_by_name():
    kept = base.draw_lesson(rng(), 3, base.UNKNOWN)
    assert torch.equal(kept.references, kept.targets) and len(torch.unique(kept.pooled, dim=0)) == 3
    red = base.draw_lesson(rng(), 3, "red")
    changed = (red.references != red.targets).any(1).float()
    assert torch.equal(changed, red.masks)
    assert torch.equal(red.texts[0], codec.instruction(words.word_ids(instruct("red")))[0][0])


def test_the_base_is_of_comfyui_s_own_class_and_taught_alike_every_time(world, tmp_path):
    assert type(world.model.model).__name__ == "Flux"
    assert type(world.model.model.diffusion_model).__module__ == "comfy.ldm.flux.model"
    again = base.made(TINY, tmp_path / "base.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in world.state.items())
    kept = base.made(base.Schooling(steps=0), tmp_path / "base.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in again.items())


# ------------------------------------------------------------------ the figures


def test_a_mean_square_is_of_the_weighed_squares_alone():
    some = np.zeros((2, *GRID, 3))
    other, weight = some.copy(), np.zeros((2, *GRID))
    weight[0, :2], other[0, :2] = 1, 0.3
    other[0, 2:] = other[1] = 5
    assert measure.mean_square(some, other, weight) == pytest.approx(0.09)
    other[0, 0] = 0
    assert measure.mean_square(some, other, weight) == pytest.approx(0.045)


def test_tokens_are_whole_where_a_mask_holds_any_of_their_squares():
    masks = np.zeros((2, *GRID))
    masks[0, 1, 2], masks[1, 3:5, 7] = 1, 1
    found = measure.whole_tokens(masks)
    assert (found[0, :2, 2:4] == 1).all() and (found[1, 2:6, 6:] == 1).all() and found.sum() == 4 + 8


def test_what_is_asked_was_never_trained_on_and_wants_the_block_changed_alone():
    asked, others = measure.asked_of(measure.Effort(asked=4, others=2))
    assert set(asked.edits) == {scenes.WORD} and set(others.edits) == {scenes.KEEP, *scenes.COLOURS}
    assert len(asked.references) == 4 and len(others.references) == 10
    for group in (asked, others):
        assert measure.mean_square(group.wanted, group.references, 1 - group.masks) == 0
    assert measure.mean_square(asked.wanted, asked.references, asked.masks) > 0.09
    trained = np.stack([pair.reference for seed in run.SEEDS for pair in training_pairs(seed, Recipe.pairs)])
    assert all(not np.array_equal(one, other) for one in asked.references for other in trained)


def made_runs():
    """Runs of two seeds, in which the mask halves the error and leaves 0.05 and 0.1 of the drift."""
    values = {
        (run.BASE, 0): (0.4, 0.0),
        (run.NO_MASK, 8): (0.1, 0.2),
        (run.NO_MASK, 7): (0.1, 0.4),
        (run.MASK, 8): (0.2, 0.02),
        (run.MASK, 7): (0.1, 0.02),
    }
    found = []
    for (arm, seed), (error, drift) in values.items():
        figures = dict.fromkeys(measure.FIGURES, 0.5) | {"error inside": error, "drift outside": drift}
        found.append({"arm": arm, "seed": seed, "figures": figures})
    return found


def test_shares_are_of_the_base_s_error_and_of_the_same_seed_s_unmasked_drift():
    found = run.shares(made_runs(), run.MASK)
    assert found == {7: pytest.approx((0.25, 0.05)), 8: pytest.approx((0.5, 0.1))}
    table = run.tables(made_runs())
    assert "| seed 7 | 0.250, 0.050 |" in table and "| mask, our preset | 0.1500 ± 0.0707 | 0.0200 ± 0.0000 |" in table


# ------------------------------------------------------------------ the runs


def test_a_tiny_run_goes_from_files_to_a_table(world):
    recipe, effort = Recipe(pairs=2, steps=2, batch=2), measure.Effort(asked=2, others=1, steps=2)
    runs = list(run.run_all(world, seeds=(7,), recipe=recipe, effort=effort))
    assert [(one["arm"], one["seed"]) for one in runs] == [(run.BASE, 0), *((arm, 7) for arm in run.ARMS)]
    assert all(set(one["figures"]) == set(measure.FIGURES) for one in runs)
    assert runs[0]["figures"]["drift outside"] == 0 < min(one["figures"]["drift outside"] for one in runs[1:])
    assert len({one["figures"]["drift outside"] for one in runs}) == len(runs)
    assert run.tables(runs).count("\n") == 9


def test_the_evidence_tells_the_stored_figures_and_nothing_else():
    stored = json.loads((run.HERE / "results.json").read_text(encoding="utf-8"))
    usual = run.setting(base.Schooling(), Recipe(), measure.Effort())
    assert stored["setting"] | {"torch": ""} == usual | {"torch": ""}
    assert run.seeds_of(stored["runs"]) == list(run.SEEDS)
    assert {one["arm"] for one in stored["runs"]} == {run.BASE, *run.ARMS}
    evidence = (run.HERE.parents[1] / "docs" / "evidence.md").read_text(encoding="utf-8")
    for table in run.tables(stored["runs"]).split("\n\n"):
        assert table in evidence
    check_limits(stored["runs"])


def check_limits(runs):
    for error, drift in run.shares(runs, run.MASK).values():
        assert error <= run.ERROR_SHARE and drift <= run.DRIFT_SHARE


@pytest.mark.skipif(not ALL, reason="with --all: two minutes of a thread")
def test_the_whole_base_copies_and_a_mask_keeps_the_limits():
    state, net = base.made(base.Schooling()), base.network()
    net.load_state_dict(state)
    # Of pure noise, whose mean square is 1.
    assert max(base.errors(net, scenes.KEEP)) < 0.05
    assert max(base.errors(net, "red")) < 0.1
    effort, arms = measure.Effort(asked=16, others=1), (run.NO_MASK, run.MASK)
    check_limits(list(run.run_all(World(state), seeds=(303,), recipe=Recipe(), effort=effort, arms=arms)))
