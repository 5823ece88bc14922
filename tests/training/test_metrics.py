"""The numbers of a step cross from the device together and mean what they say."""

import json
import math

import torch

from masklora.loss.terms import TERMS
from masklora.training.metrics import COLUMNS, MetricBuffer, StepFacts, micro_row, step_row, summarise


def part(inside, outside, coverage, zero=0, prior=math.nan, preservation=math.nan):
    return {
        "inside": torch.tensor(inside),
        "outside": torch.tensor(outside),
        "prior": torch.tensor(prior),
        "drift": torch.tensor(2 * prior),
        "preservation": torch.tensor(preservation),
        "coverage": torch.tensor(coverage),
        "zero": torch.tensor(zero),
    }


def of_step(losses, parts, norm):
    micros = [micro_row(torch.tensor(loss), one) for loss, one in zip(losses, parts, strict=True)]
    return step_row(torch.stack(micros), torch.tensor(norm))


def row(loss=1.0, norm=2.0):
    return of_step([loss], [part(0.5, 0.25, [0.1, 0.3])], norm)


def facts(step):
    return StepFacts(step, 0, 1e-4, tuple(f"{i}.png" for i in range(20)))


def test_micro_batches_without_inside_are_left_out_of_the_mean_inside():
    parts = [part(0.5, 0.25, [0.1, 0.3], prior=0.125), part(math.nan, 0.75, [0.0, 0.0], 2, preservation=0.5)]
    values = dict(zip(COLUMNS, of_step([1.0, 0.0], parts, 2.0).tolist(), strict=True))
    expected = [0.5, 0.5, 0.5, 0.125, 0.25, 0.5, 0.1, 2, 2.0]
    assert [round(v, 6) for v in values.values()] == expected


def test_terms_that_no_micro_batch_had_are_none_and_others_are_means_of_those_that_had_them():
    bare = {
        name: value for name, value in part(0.5, 0.25, [0.1, 0.3]).items() if name in ("inside", "coverage", "zero")
    }
    values = of_step([1.0] * 2, [bare, bare | {"prior": torch.tensor(0.125)}], 2.0)
    found = dict(zip(COLUMNS, values.tolist(), strict=True))
    assert (found["inside"], found["prior"]) == (0.5, 0.125)
    assert all(math.isnan(found[name]) for name in TERMS if name not in ("inside", "prior"))


def test_rows_wait_until_many_steps_or_a_quarter_of_a_second_have_passed():
    buffer = MetricBuffer(100, immediate=False)
    assert not buffer.due
    for step in range(1, 51):
        buffer.add(row(), facts(step))
    assert buffer.due
    assert [r.step for r in buffer.fetch()] == list(range(1, 51))
    assert buffer.fetch() == []
    buffer.add(row(), facts(51))
    assert not buffer.due
    buffer._last -= 0.25
    assert buffer.due


def test_immediate_rows_are_due_at_once():
    buffer = MetricBuffer(100, immediate=True)
    buffer.add(row(), facts(1))
    assert buffer.due


def test_reports_are_json_without_nan_and_with_few_names():
    buffer = MetricBuffer(2, immediate=True)
    buffer.add(of_step([math.inf], [part(math.nan, 1.0, [0.0], 1)], 1.0), facts(1))
    report = buffer.fetch()[0]
    text = json.dumps(report.as_json(), allow_nan=False)
    assert json.loads(text)["loss"] is None
    assert report.inside is None
    assert report.prior is None and report.drift is None
    assert len(report.samples) == 8
    assert report.zero_weight_samples == 1


def test_the_summary_is_of_the_last_hundred_steps_and_counts_all_weightless_samples():
    records = [{"step": i, "loss": 9.0, "coverage": 0.0, "zero_weight_samples": 1} for i in range(50)]
    records += [{"step": i, "loss": 1.0, "inside": 0.5, "outside": None, "coverage": 0.25} for i in range(50, 150)]
    records.insert(70, {"step": 60, "validation": 3.0})
    assert summarise(records) == {
        "loss": 1.0,
        "inside": 0.5,
        "outside": None,
        "prior": None,
        "drift": None,
        "preservation": None,
        "coverage": 0.25,
        "zero_weight_samples": 50,
        "over_steps": 100,
    }


def test_nothing_recorded_summarises_to_nothing():
    assert summarise([])["loss"] is None
