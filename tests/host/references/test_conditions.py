"""Reference pictures reach a network as ComfyUI's own nodes and samplers give them; they are seen, never learned."""

import dataclasses

import pytest
import torch

from benchmarks.against_core import LEVELS, SQUARE, AtLevel
from benchmarks.gradients import MODES, Problem, measure
from harness.damage import many
from harness.small import ALL, small_models
from masklora.host.families import families
from masklora.host.references.conditions import flattened, gathered, reference_tokens, with_references
from masklora.loss.losses import masked_objective
from masklora.loss.tokens import Passage, TokenPlan
from masklora.settings import OFFLOADED

TAKING = {family.name: family.references for family in families() if family.references}
NAMES = [name for name, small in small_models().items() if small.family in TAKING and name != "flux_fill"]
# Of one shape with the target, and of others, as those of their own size are.
ALIKE, UNLIKE = [(8, 8)], [(4, 6), (10, 8)]
# One of each way that networks are built and are told of references.
WIDELY = many(["flux", "krea2", "z_image", "omnigen2", "qwen_image"], NAMES)
# References behind the image at a noise level of their own, and before it.
PLACED = many(["krea2", "omnigen2"], NAMES)


def taken(name, shapes):
    return shapes[: TAKING[small_models()[name].family].most]


@pytest.mark.parametrize("shapes", [ALIKE, UNLIKE] if ALL else [UNLIKE], ids=str)
@pytest.mark.parametrize("level", LEVELS if ALL else LEVELS[2:3])
@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_beside_references_is_the_one_that_core_samples_with(name, level, shapes):
    assert AtLevel(name, level, references=taken(name, shapes)).prediction_apart() <= 1e-6


@pytest.mark.parametrize("name", WIDELY)
def test_another_reference_is_another_prediction(name):
    at = AtLevel(name, 0.5, references=taken(name, UNLIKE))
    conditioning = at.trainable.collate([at.text], [SQUARE], at.noisy.shape[1:])

    @torch.no_grad()
    def predicted(references):
        return at.trainable.denoise(at.noisy, at.u, with_references(at.trainable, conditioning, references))

    found, other = predicted(at.references), predicted([-latent for latent in at.references])
    assert float((found - other).norm()) > 1e-3 * float(found.norm())


@pytest.mark.parametrize("name", PLACED)
def test_gradients_beside_references_equal_finite_differences_in_every_checkpointing_mode(name):
    row = measure(name, dtype=torch.float64, prior=True, references=taken(name, UNLIKE))
    for mode in MODES:
        assert row[f"{mode}: against off"] <= 1e-12, row
    truths = {key: value for key, value in row.items() if key.endswith(("plain autograd", "finite differences"))}
    assert len(truths) == 2 * len(MODES)
    assert max(truths.values()) <= 1e-10, row


class Looked:
    """One noisy sample of a small model with references, in a session in which its tokens follow plans."""

    def __init__(self, name, *, method=""):
        self.at = AtLevel(name, 0.5, references=taken(name, UNLIKE))
        self.trainable = self.at.trainable
        # Blocks before those that are routed hide nothing here, so that a route and a mask can say the same.
        blocks = self.trainable.family.blocks
        alike = tuple(b if b.image else dataclasses.replace(b, order=()) for b in blocks)
        self.trainable.family = dataclasses.replace(self.trainable.family, blocks=alike)
        self.tokens = self.trainable.tokens_of(self.at.noisy.shape[2:])
        made = self.trainable.collate([self.at.text], [SQUARE], self.at.noisy.shape[1:])
        self.conditioning = with_references(self.trainable, made, self.at.references)
        if method:
            self.conditioning[0]["ref_latents_method"] = method

    @torch.no_grad()
    def predicted(self, **plan):
        tokens = TokenPlan(self.tokens, **plan) if plan else None
        return self.trainable.denoise(self.at.noisy, self.at.u, self.conditioning, tokens=tokens)

    def passages(self, kept):
        return (Passage(0, len(self.trainable.token_blocks) - 1, kept),)


METHODS = [*((name, "") for name in WIDELY), ("flux2", "index_timestep_zero"), ("qwen_image", "index_timestep_zero")]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_a_route_that_all_image_tokens_pass_changes_no_bit_beside_references(name, method):
    looked = Looked(name, method=method)
    every = looked.passages(torch.arange(looked.tokens)[None])
    assert torch.equal(looked.predicted(passages=every), looked.predicted())


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_what_passes_a_route_sees_every_reference_and_the_places_stay_right(name, method):
    looked = Looked(name, method=method)
    kept = torch.randperm(looked.tokens, generator=torch.Generator().manual_seed(3))[: looked.tokens // 2].sort().values
    visible = torch.zeros(1, looked.tokens, dtype=torch.bool).index_fill(1, kept, True)
    # Tokens that others do not see are to them as tokens that are not there.
    routed, hidden = looked.predicted(passages=looked.passages(kept[None])), looked.predicted(visible=visible)
    patch = looked.trainable.family.patch[1]
    cells = visible.view(1, 1, *[looked.at.noisy.shape[-1] // patch] * 2)
    cells = cells.repeat_interleave(patch, -2).repeat_interleave(patch, -1).expand_as(routed)
    assert torch.allclose(routed[cells], hidden[cells], rtol=1e-4, atol=1e-5)
    assert float((routed[~cells] - hidden[~cells]).abs().max()) > 1e-3
    # And the references are seen by both.
    looked.conditioning[0]["ref_latents"] = [-latent for latent in looked.conditioning[0]["ref_latents"]]
    other = looked.predicted(visible=visible)
    assert float((other - hidden)[cells].abs().max()) > 1e-3


@pytest.mark.parametrize("name", many(["flux"], ["flux", "krea2"]))
def test_gradients_with_routed_and_hidden_tokens_beside_references_are_exact(name):
    row = measure(name, dtype=torch.float64, planned=name == "flux", references=taken(name, UNLIKE))
    for mode in MODES:
        assert row[f"{mode}: against off"] <= 1e-12
        assert row[f"{mode}: against finite differences"] <= 1e-10, row


@pytest.mark.parametrize("name", PLACED)
def test_nothing_is_learned_outside_the_mask_of_the_target_nor_of_a_reference(name):
    problem = Problem(name, dtype=torch.float32, references=taken(name, UNLIKE))
    with problem.trainable.session(problem.adapters), problem.trainable.autograd_scope():
        prediction = problem.predict()
        prediction.retain_grad()
        masked_objective(prediction, torch.zeros_like(prediction), problem.w, problem.settings)[0].backward()
    assert prediction.shape == problem.latent.shape
    outside = (problem.w == 0).expand_as(prediction)
    assert bool((prediction.grad[outside] == 0).all()) and bool((prediction.grad[~outside] != 0).all())


@pytest.mark.parametrize("name", PLACED)
def test_samples_with_references_of_unlike_shapes_run_one_by_one_and_alike_ones_together(name):
    problem = Problem(name, dtype=torch.float32, references=taken(name, ALIKE))
    t = problem.trainable
    made = t.collate(problem.texts, problem.geometries, problem.latent.shape[1:])
    alike = with_references(t, made, problem.references)
    other = with_references(t, made[1:], [latent[1:, :, :6] for latent in problem.references])
    with torch.no_grad():
        both, apart = (t.denoise(problem.latent, problem.u, conds) for conds in (alike, [alike[0], *other]))
        each = [t.denoise(problem.latent[i : i + 1], problem.u[i : i + 1], alike[i : i + 1]) for i in (0, 1)]
        second = t.denoise(problem.latent[1:], problem.u[1:], other)
    assert torch.allclose(both, torch.cat(each), rtol=1e-4, atol=1e-5)
    assert torch.allclose(apart, torch.cat([each[0], second]), rtol=1e-4, atol=1e-5)
    assert float((second - each[1]).abs().max()) > 1e-3


def test_offloading_the_inputs_of_blocks_changes_no_gradient_beside_references():
    problem = Problem("flux", dtype=torch.float64, references=UNLIKE)
    kept, offloaded = (problem.gradients(mode) for mode in ("per block", OFFLOADED))
    assert all(torch.equal(kept[name], offloaded[name]) for name in kept)


def test_the_tokens_of_references_are_counted_with_what_fills_them_up():
    looked = Looked("z_image")
    # 4 × 6 and 10 × 8 cells are 6 and 20 tokens, each filled up to 32.
    assert reference_tokens(looked.trainable, looked.conditioning[0]) == 64
    assert reference_tokens(looked.trainable, {}) == 0
    assert reference_tokens(Looked("flux").trainable, Looked("flux").conditioning[0]) == 26


def test_texts_of_references_survive_a_file_of_tensors():
    texts = [torch.full((1, 2, 3), float(number)) for number in range(12)]
    flat = flattened({"cond": 1, "reference_latents_text_embeds": texts})
    assert all(isinstance(value, (int, torch.Tensor)) for value in flat.values())
    back = gathered(dict(sorted(flat.items())))["reference_latents_text_embeds"]
    assert all(torch.equal(a, b) for a, b in zip(back, texts, strict=True))
    assert gathered({"cond": 1}) == {"cond": 1} == flattened({"cond": 1})
