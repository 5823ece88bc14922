"""Token plans in a training: one plan for every pass, static counts, and runs that go on exactly."""

from dataclasses import replace

import pytest
import torch

from harness.toy import Recorder, ToyCache, ToyEntry, ToyNet, same, toy_job, train_toy
from masklora.errors import ConfigError
from masklora.loss.tokens import TokenModel, TokenPlan, token_cells
from masklora.settings import LossSettings
from masklora.training.microbatch import Feed, MicroBatch
from masklora.training.objective import Objective

MODEL = TokenModel(patch=1, blocks=12, title="the toy")
BARE = LossSettings(prior_weight=0.0)
ROUTED = replace(BARE, routes="0.75: 2..-3")
# Of 64 tokens the toy's masks keep 32 and a quarter of the others; of 72 they keep 36 and a quarter.
KEPT = {(8, 8): 48, (6, 12): 48}


class RoutedNet(ToyNet):
    """The toy whose skipped tokens are predicted at half; notes the plans that it is given."""

    def __init__(self):
        super().__init__()
        self.plans = []

    def forward(self, noisy, u, conditioning, *, tokens=None):
        self.plans.append((tokens, self.bare, torch.is_grad_enabled()))
        out = super().forward(noisy, u, conditioning)
        skipped = tokens and tokens.skipped()
        return out if skipped is None else out * (1 - 0.5 * token_cells(skipped, patch=1, shape=out[:, :1].shape))


def routed_job(loss=ROUTED, *, model=MODEL, **changes):
    job = toy_job(net=RoutedNet(), loss=loss, **changes)
    job.model.tokens = model
    return job


def plans_of(job):
    return [plan for plan, _, _ in job.model.plans]


def test_every_step_of_a_size_keeps_the_same_number_of_tokens(tmp_path):
    job = routed_job()
    train_toy(tmp_path, job)
    plans = plans_of(job)
    assert len(plans) == 10
    for plan in plans:
        grid = {64: (8, 8), 72: (6, 12)}[plan.tokens]
        (passage,) = plan.passages
        assert (passage.first, passage.last, passage.kept.shape) == (2, 9, (2, KEPT[grid]))
    assert {plan.tokens for plan in plans} == {64, 72}
    assert len({tuple(plan.passages[0].kept.flatten().tolist()) for plan in plans}) == 10


def test_a_line_is_told_once_for_each_size(tmp_path):
    hooks = Recorder()
    result = train_toy(tmp_path, routed_job(), hooks)
    told = [text for text in hooks.messages if "token routing" in text]
    assert sorted(told) == [
        "token routing: 67 % of 72 tokens kept in blocks 2 to 9.",
        "token routing: 75 % of 64 tokens kept in blocks 2 to 9.",
    ]
    assert result.summary["kept_tokens"] == {"8×8": [0.75], "6×12": [48 / 72]}
    assert "kept_tokens" not in train_toy(tmp_path / "plain", toy_job()).summary


@pytest.mark.parametrize("selection", ["mask kept", "mask-aware", "random"])
def test_ten_routed_steps_equal_five_and_five_more_bit_for_bit(selection, tmp_path):
    loss = replace(ROUTED, route_selection=selection, edge_jitter=0.05, attention_mask=True, prior_weight=0.5)
    straight = train_toy(tmp_path / "straight", routed_job(loss))
    assert train_toy(tmp_path / "halves", routed_job(loss), Recorder(stop_at=5)).steps == 5
    job = routed_job(loss)
    resumed = train_toy(tmp_path / "halves", job)
    assert resumed.resumed_from == 5
    assert same(straight.adapter, resumed.adapter) and straight.losses == resumed.losses
    assert all(plan.passages for plan in plans_of(job))


def test_settings_that_keep_every_token_leave_a_run_bit_for_bit_as_it_was(tmp_path):
    plain = train_toy(tmp_path / "plain", toy_job(loss=BARE))
    for number, loss in enumerate([BARE, replace(BARE, routes="0: 2..-3"), replace(ROUTED, route_until=0.0)]):
        job = routed_job(loss)
        again = train_toy(tmp_path / str(number), job)
        assert same(plain.adapter, again.adapter) and plain.losses == again.losses
        assert plans_of(job) == [None] * 10
    assert train_toy(tmp_path / "routed", routed_job()).losses != plain.losses


def test_the_last_part_of_a_run_is_not_routed(tmp_path):
    job = routed_job(replace(ROUTED, route_until=0.7))
    train_toy(tmp_path, job)
    assert [plan is not None for plan in plans_of(job)] == [True] * 7 + [False] * 3


def test_validation_is_not_routed_but_hides_the_same_keys(tmp_path):
    job = routed_job(replace(ROUTED, attention_mask=True), validate_every=5, validation_share=0.2)
    train_toy(tmp_path, job)
    held_out = [plan for plan, _, graph in job.model.plans if not graph]
    trained = [plan for plan, _, graph in job.model.plans if graph]
    assert held_out and all(plan.passages == () and plan.visible is not None for plan in held_out)
    assert len(trained) == 10 and all(plan.passages for plan in trained)


def a_batch(*, seed=1):
    g = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, :, :4, :4], masks[1, :, 2:8, 2:6] = 1.0, 1.0
    latents = torch.randn(2, 4, 8, 8, generator=g)
    conditioning = torch.randn(2, 5, generator=g)
    return MicroBatch(latents, masks, (8, 8), conditioning, torch.ones(2), ("a", "b"))


def losses_of(job, batch, *, progress=0.0):
    terms = Objective(job.model, seed=0).terms(
        batch, job.loss, torch.Generator().manual_seed(2), number=0, progress=progress
    )
    return [term() for term in terms]


def test_the_base_model_is_asked_with_the_same_plan():
    job = routed_job(replace(ROUTED, attention_mask=True, prior_weight=1.0))
    losses_of(job, a_batch())
    (base, bare, graph), (prediction, worn, grad) = job.model.plans
    assert base is prediction and base.passages and base.visible is not None
    assert (bare, graph, worn, grad) == (True, False, False, True)


def test_the_prior_compares_tokens_that_pass_and_no_other():
    job = routed_job(replace(ROUTED, prior_weight=1.0))
    plain = job.model.denoise

    def drifting(noisy, u, conditioning, *, tokens=None):
        out = plain(noisy, u, conditioning, tokens=tokens)
        skipped = token_cells(tokens.skipped(), patch=1, shape=out[:, :1].shape)
        # Only what skips blocks has drifted, or only what passes and lies outside.
        where = skipped if drift == "skipped" else ~skipped & (batch.masks == 0)
        return out if job.model.bare else out + 100 * where

    job.model.denoise = drifting
    batch, found = a_batch(), {}
    for drift in ("skipped", "passing"):
        ((_, seen),) = losses_of(job, batch)
        found[drift] = float(seen["prior"])
    assert found["skipped"] == 0 < found["passing"]


def test_preservation_holds_the_whole_picture_through_all_blocks():
    job = routed_job(replace(ROUTED, attention_mask=True, text_padding_mask=True, preservation_weight=1.0))
    batch = replace(a_batch(), plain=torch.zeros(2, 5), triggered=torch.ones(2))
    losses_of(job, batch)
    masked, *preserved = plans_of(job)
    assert masked.passages and masked.visible is not None
    assert len(preserved) == 2 and preserved[0] is preserved[1]
    assert (preserved[0].passages, preserved[0].visible, preserved[0].text_padding) == ((), None, True)
    assert TokenPlan(64, visible=torch.ones(2, 64, dtype=torch.bool)).whole() is None


def make_feed(entries, cache=None, **loss):
    return Feed(cache or ToyCache(entries), LossSettings(**loss), model=ToyNet())


class UnlikeMasks(ToyCache):
    """Each variant of each picture has a mask of its own size."""

    def mask(self, entry, variant):
        self.mask_reads += 1
        mask = torch.zeros(1, entry.bucket[1], entry.bucket[0])
        mask[..., : 8 * (1 + len(entry.name)), : 8 * (1 + 3 * variant)] = 1.0
        return mask


def test_the_largest_mask_of_a_size_is_found_over_all_pictures_and_variants_and_remembered():
    cache = UnlikeMasks([ToyEntry("a"), ToyEntry("bcd"), ToyEntry("much longer", bucket=(96, 48))])
    feed = make_feed(cache.entries, cache)
    assert feed.most_mask_tokens((8, 8), patch=1) == 4 * 4
    assert cache.mask_reads == 4
    assert feed.most_mask_tokens((8, 8), patch=1) == 16 and cache.mask_reads == 4
    assert feed.most_mask_tokens((6, 12), patch=1) == 6 * 4
    assert feed.most_mask_tokens((3, 3), patch=1) == 0


def test_other_selections_read_no_masks_ahead(tmp_path):
    reads = []
    for selection in ("mask kept", "random"):
        job = routed_job(replace(ROUTED, route_selection=selection), steps=1)
        train_toy(tmp_path / selection, job)
        reads.append(job.cache.mask_reads)
    assert reads[0] == 6 and reads[1] <= 2


def test_routes_that_do_not_fit_the_model_are_refused_before_the_first_step(tmp_path):
    with pytest.raises(ConfigError, match="the toy has 12 blocks"):
        train_toy(tmp_path, routed_job(LossSettings(routes="0.5: 2..12")))


@pytest.mark.parametrize("other", [{"reduction": "nearest"}, {"reduction": "any"}, {"reduction_binarize": True}])
def test_tokens_belong_to_the_mask_by_the_share_that_it_covers_whatever_the_loss_s_reduction(other, tmp_path):
    """Of each cell of 8×8 pixels: three quarters without its first pixel, or the last pixel alone."""

    def mask(entry, variant):
        cells = torch.zeros(entry.bucket[1] // 8, 8, entry.bucket[0] // 8, 8)
        cells[:, :, :2, 2:] = 1.0
        cells[:, -1, 2:, -1] = 1.0
        return cells.reshape(1, entry.bucket[1], entry.bucket[0])

    job = routed_job(replace(ROUTED, **other), entries=[ToyEntry("a.png")], steps=1, batch_size=1)
    job.cache.mask = mask
    train_toy(tmp_path, job)
    (passage,) = plans_of(job)[0].passages
    # Two of the eight columns: 16 tokens, and a quarter of the other 48 with them.
    assert passage.kept.shape[1] == 32
    columns = (passage.kept % 8).tolist()[0]
    assert columns.count(0) == columns.count(1) == 8
