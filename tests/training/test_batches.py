"""Batches are a pure function of seed and number, true to repeats and buckets."""

from collections import Counter

import pytest

from harness.toy import ToyEntry, toy_entries, with_infills
from masklora.cache.captions import Caption
from masklora.errors import ConfigError
from masklora.training.batches import EMPTY_CAPTION, ORIGINAL, BatchPlan, split_validation


def epoch_of(plan, epoch):
    start = sum(plan.epoch_length(e) for e in range(epoch))
    return [plan.batch(n) for n in range(start, start + plan.epoch_length(epoch))]


def counts(batches):
    return Counter(index for batch in batches for index, _, _, _ in batch)


def test_a_batch_depends_on_seed_and_number_only():
    plan = BatchPlan(toy_entries(9), 2, 5)
    forward = [plan.batch(n) for n in range(40)]
    fresh = BatchPlan(toy_entries(9), 2, 5)
    assert [fresh.batch(n) for n in reversed(range(40))] == forward[::-1]
    assert [BatchPlan(toy_entries(9), 2, 6).batch(n) for n in range(40)] != forward


def test_every_batch_is_full_and_of_one_bucket():
    entries = toy_entries(11)
    plan = BatchPlan(entries, 4, 0)
    for number in range(50):
        batch = plan.batch(number)
        assert len(batch) == 4
        assert len({entries[index].bucket for index, _, _, _ in batch}) == 1


def test_an_epoch_without_short_buckets_shows_every_picture_as_often_as_its_repeats():
    entries = [ToyEntry(str(i), weight=repeats) for i, repeats in enumerate((1, 2, 3, 2))]
    plan = BatchPlan(entries, 2, 0)
    for epoch in range(5):
        assert counts(epoch_of(plan, epoch)) == {0: 1, 1: 2, 2: 3, 3: 2}
        assert plan.epoch_length(epoch) == 4


def test_fractional_repeats_are_met_over_several_epochs():
    entries = [ToyEntry("whole"), ToyEntry("often", weight=2.25), ToyEntry("seldom", weight=0.2)]
    plan = BatchPlan(entries, 1, 3)
    seen = sum((counts(epoch_of(plan, e)) for e in range(20)), Counter())
    assert seen == {0: 20, 1: 45, 2: 4}


def test_epochs_come_in_another_order():
    plan = BatchPlan([ToyEntry(str(i)) for i in range(12)], 1, 0)
    orders = [tuple(b[0][0] for b in epoch_of(plan, e)) for e in range(3)]
    assert len(set(orders)) == 3
    assert [plan.epoch_of(n) for n in (0, 11, 12, 23, 24)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("batch_size", [3, 8])
@pytest.mark.parametrize("repeats", [[1.0], [1, 3.5, 2.25, 0.1], [10, 1]], ids=["once", "fractions", "ten and one"])
def test_repeats_are_kept_over_a_thousand_epochs_at_any_batch_size(batch_size, repeats):
    # Twelve pictures, some of which have their bucket to themselves.
    entries = [
        ToyEntry(str(i), bucket=(512, 512) if i > 4 else (64 * i + 64, 512), weight=repeats[i % len(repeats)])
        for i in range(12)
    ]
    plan = BatchPlan(entries, batch_size, 7)
    epochs = 1000
    batches = sum(plan.epoch_length(e) for e in range(epochs))
    seen = counts(plan.batch(n) for n in range(batches))
    for i, entry in enumerate(entries):
        assert seen[i] / epochs == pytest.approx(entry.weight, rel=0.01, abs=batch_size / epochs)
    assert plan.steps_for(epochs) == pytest.approx(batches, abs=len(entries))


def test_small_buckets_are_spread_over_the_epochs():
    entries = [ToyEntry(str(i), bucket=(64 * i + 64, 512)) for i in range(40)]
    plan = BatchPlan(entries, 4, 0)
    lengths = [plan.epoch_length(e) for e in range(40)]
    assert sum(lengths) == 40 * 40 // 4
    assert max(lengths) < 20 and min(lengths) > 2


def test_a_bucket_that_fills_its_batches_is_never_left_over():
    plan = BatchPlan([ToyEntry(str(i)) for i in range(6)], 3, 0)
    for epoch in range(10):
        assert counts(epoch_of(plan, epoch)) == dict.fromkeys(range(6), 1)


def test_a_single_picture_fills_a_whole_batch_as_often_as_it_is_due():
    plan = BatchPlan([ToyEntry("one")], 4, 0)
    assert [index for index, _, _, _ in plan.batch(0)] == [0, 0, 0, 0]
    assert [sum(plan.epoch_length(e) for e in range(4 * k, 4 * k + 4)) for k in range(5)] == [1] * 5


def test_pictures_of_no_weight_never_appear():
    entries = [ToyEntry("shown"), ToyEntry("never", weight=0.0)]
    plan = BatchPlan(entries, 1, 0)
    assert {index for n in range(30) for index, _, _, _ in plan.batch(n)} == {0}
    with pytest.raises(ConfigError, match="0 repeats"):
        BatchPlan(entries[1:], 1, 0)


def test_only_the_chosen_entries_are_used():
    plan = BatchPlan(toy_entries(8), 2, 0, use=[1, 3, 4])
    assert {index for n in range(40) for index, _, _, _ in plan.batch(n)} == {1, 3, 4}


def test_variants_and_captions_are_drawn_evenly_and_dropout_gives_the_empty_caption():
    plan = BatchPlan([ToyEntry("a", caption_dropout=0.25)], 1, 0)
    draws = [plan.batch(n)[0] for n in range(4000)]
    variants, captions = Counter(d[1] for d in draws), Counter(d[2] for d in draws)
    assert abs(variants[0] - 2000) < 150
    assert abs(captions[EMPTY_CAPTION] - 1000) < 120
    assert abs(captions[0] - 1500) < 150


def test_a_cache_without_captions_draws_the_empty_one():
    entry = ToyEntry("a", captions=(Caption("x"), Caption("y")), caption_dropout=0.0)
    assert BatchPlan([entry], 1, 0).batch(0)[0].caption == EMPTY_CAPTION


def test_steps_for_epochs_count_accumulated_batches():
    plan = BatchPlan([ToyEntry(str(i)) for i in range(10)], 2, 0)
    assert plan.steps_for(3) == 15
    assert plan.steps_for(3, accumulation=4) == 4


def test_held_out_pictures_are_disjoint_and_do_not_move_when_one_is_added():
    names = [f"{i}.png" for i in range(40)]
    training, held = split_validation(names, share=0.1, seed=1)
    assert len(held) == 4
    assert sorted(training + held) == list(range(40))
    _, more = split_validation([*names, "new.png"], share=0.1, seed=1)
    assert len(set(held) & set(more)) >= 3
    assert split_validation(names, share=0.1, seed=2)[1] != held


@pytest.mark.parametrize(("count", "share", "expected"), [(1, 0.5, 0), (2, 0.9, 1), (5, 0.01, 1), (5, 0.0, 0)])
def test_both_sides_of_the_split_keep_a_picture(count, share, expected):
    training, held = split_validation([str(i) for i in range(count)], share=share, seed=0)
    assert len(held) == expected
    assert len(training) == count - expected


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ConfigError, match="validation_share"):
        split_validation(["a", "b"], share=share, seed=0)


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="batch_size"):
        BatchPlan(toy_entries(), 0, 0)


INFILLS = ("i", "j", "k")


def test_backgrounds_are_replaced_with_the_asked_probability_and_all_of_them_are_used():
    entries = [with_infills(ToyEntry("a"), *INFILLS), ToyEntry("b")]
    plan = BatchPlan(entries, 2, 0, infill_probability=0.4)
    draws = [draw for n in range(1500) for draw in plan.batch(n)]
    replaced = [draw.infill for draw in draws if draw.entry == 0]
    share = sum(infill != ORIGINAL for infill in replaced) / len(replaced)
    assert abs(share - 0.4) < 0.04
    assert set(replaced) == {ORIGINAL, 0, 1, 2}
    assert {draw.infill for draw in draws if draw.entry == 1} == {ORIGINAL}


def test_without_infill_the_batches_are_those_of_before():
    entries = toy_entries(9)
    filled = [with_infills(entry, *INFILLS) for entry in entries]
    plain = [BatchPlan(entries, 2, 5).batch(n) for n in range(40)]
    assert [BatchPlan(filled, 2, 5).batch(n) for n in range(40)] == plain
    drawn = [BatchPlan(filled, 2, 5, infill_probability=1.0).batch(n) for n in range(40)]
    # What is drawn for the infill comes last: with one picture a batch, nothing else changes.
    assert [[d[:3] for d in batch][:1] for batch in drawn] == [[d[:3] for d in batch][:1] for batch in plain]
    assert all(draw.infill != ORIGINAL for batch in drawn for draw in batch)
