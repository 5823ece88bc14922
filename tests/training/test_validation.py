"""What is measured between steps: how much of the backgrounds was learned, on toys whose answers are known."""

import json
from dataclasses import replace

import pytest
import torch

from harness.toy import TRIGGERED, Recorder, ToyCache, ToyNet, open_run, same, toy_entries, toy_job, train_toy
from masklora.cache.plan import Variant
from masklora.loss.leak import MEASURES, blurred_outside
from masklora.loss.masks import mask_cells
from masklora.loss.noise import Schedule, add_noise, target
from masklora.runs.marks import read_favoured
from masklora.settings import LossSettings, OptimizerSettings
from masklora.showings.leaks import read_leaks
from masklora.training.metrics import favoured_step
from masklora.training.microbatch import Feed
from masklora.training.validation import LEAK_LEVELS, LEAK_PICTURES, background_leak, leak_draws, leak_levels

ALPHAS = torch.linspace(0.999, 0.01, 1000)
SCHEDULES = [Schedule("flow"), Schedule("epsilon", alphas_cumprod=ALPHAS), Schedule("v", alphas_cumprod=ALPHAS)]
FRAMES = 3


class Clips(ToyCache):
    """The same pictures; those with frames as clips, each frame brighter."""

    def latent(self, entry, variant, infill=-1):
        picture = super().latent(entry, variant, infill)
        return picture[:, None] * torch.linspace(1, 2, FRAMES)[:, None, None] if entry.latent_frames else picture


class Knowing(ToyNet):
    """Knows each picture: paints what it is shown, with its LoRA a part of the way back to what was blurred."""

    def __init__(self, cache, *, way, schedule, given=0):
        super().__init__(schedule)
        self.cache, self.way, self.given = cache, way, given

    def collate(self, texts, geometries, shape, *, keys):
        return list(zip(geometries, keys, strict=True))

    def denoise(self, noisy, u, conditioning, **planned):
        return torch.stack([self.answer(*one) for one in zip(noisy, u, conditioning, strict=True)])

    def answer(self, noisy, u, asked):
        entry = next(one for one in self.cache.entries if one.variants[0].geometry == asked[0])
        own, plain = self.cache.latent(entry, 0)[None], "plain" in asked[1]
        mask = mask_cells(self.cache.mask(entry, 0)[None], LossSettings(), grid=tuple(own.shape[2:]), kind="area")
        painted = shown = own if plain else blurred_outside(own, 1 - mask)
        if not self.bare:
            painted = shown + (0.5 if plain else self.way[entry.name] * (own - shown))
            # What is given is painted as anything, which must not count.
            painted[:, :, : self.given] += 9
        none, u = torch.zeros_like(own), u[None]
        signal, amount = (add_noise(none + a, none + b, u, schedule=self.schedule) for a, b in ((1, 0), (0, 1)))
        return target(painted, (noisy - signal * painted) / amount, u, schedule=self.schedule)[0]


def known_entries(count=4, **fields):
    """Entries by whose geometry a network can tell them."""
    entries = [replace(e, captions=(TRIGGERED,), **fields) for e in toy_entries(count)]
    return [replace(e, variants=(Variant(e.name, None, "a", "a"),)) for e in entries]


def measured(entries, way, *, schedule=SCHEDULES[0], given=0, batch_size=2):
    cache = Clips(entries)
    net = Knowing(cache, way=way, schedule=schedule, given=given)
    feed = Feed(cache, LossSettings(), model=net, first_frames="clip" if given else "")
    draws = leak_draws(entries, range(len(entries)), seed=1)
    return background_leak(net, feed, draws, batch_size=batch_size, seed=1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: one.prediction)
@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("frames", [0, FRAMES])
def test_a_network_that_goes_a_part_of_the_way_back_is_measured_so(schedule, given, frames):
    entries = known_entries(latent_frames=frames)
    ways = {e.name: 0.1 * i for i, e in enumerate(entries)}
    # A picture is not continued, so that none of it is given.
    found = measured(entries, ways, schedule=schedule, given=given if frames else 0, batch_size=3)
    assert found.pictures == pytest.approx(ways, abs=1e-3)
    assert found.mean == pytest.approx(0.15, abs=1e-3) and found.leak == pytest.approx(0.25, abs=1e-3)
    assert found.straight == pytest.approx(0.75, abs=1e-3)
    assert found.drift is not None and found.drift > 0


def test_what_does_not_go_back_has_no_leak_and_captions_without_triggers_no_drift():
    entries = [replace(e, captions=()) for e in known_entries()]
    found = measured(entries, dict.fromkeys((e.name for e in entries), 0.0))
    assert found.leak == pytest.approx(0, abs=1e-5) and found.drift is None


def test_pictures_with_a_mask_are_measured_always_the_same_of_many_and_none_that_is_held_out():
    entries = known_entries(40)
    entries[3] = replace(entries[3], has_mask=False)
    entries[4] = replace(entries[4], regularisation=True)
    entries[5] = replace(entries[5], weight=0.0)
    use = list(range(1, 40))
    chosen = [draw.entry for draw in leak_draws(entries, use, seed=1)]
    assert len(set(chosen)) == len(chosen) == LEAK_PICTURES and not {0, 3, 4, 5} & set(chosen)
    assert chosen == [draw.entry for draw in leak_draws(entries, use[::-1], seed=1)]
    fewer = [draw.entry for draw in leak_draws(entries, [i for i in use if i != chosen[0]], seed=1)]
    assert len(set(fewer) - set(chosen)) == 1
    few = [draw.entry for draw in leak_draws(entries, range(6), seed=1)]
    assert few == [0, 1, 2]


def test_a_model_is_measured_at_levels_that_it_learns():
    assert leak_levels(LossSettings()) == list(LEAK_LEVELS)
    assert leak_levels(LossSettings(timestep_min=0.9)) == [0.95]
    assert leak_levels(LossSettings(timestep_max=0.2)) == [0.1]


# ------------------------------------------------------------------ in a run


def numbers(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line for line in lines if "leak" in line}


def trained(folder, hooks=None, **settings):
    result = train_toy(folder, toy_job(**{"leak_every": 0, **settings}), hooks)
    return result, numbers(result.folder)


def test_every_run_with_masks_ends_with_a_leak_and_measuring_changes_nothing(tmp_path):
    once, at_end = trained(tmp_path / "once")
    often, rows = trained(tmp_path / "often", leak_every=3)
    assert list(at_end) == [10] and list(rows) == [3, 6, 9, 10]
    assert same(once.adapter, often.adapter) and once.losses == often.losses
    assert rows[10] == at_end[10]
    for name in MEASURES:
        assert once.summary[name] == at_end[10][name]
    assert rows[10]["drift_plain"] > rows[3]["drift_plain"] > 0
    leaks = read_leaks(once.folder)
    assert set(leaks) == {e.name for e in toy_entries()}
    assert sum(leaks.values()) / len(leaks) == pytest.approx(once.summary["leak_mean"])


def test_what_is_measured_are_the_weights_that_a_person_gets(tmp_path):
    rate = OptimizerSettings(learning_rate=1e-2)
    live, averaged = (
        trained(tmp_path / f"{decay}", optim=replace(rate, ema_decay=decay))[0].summary["drift_plain"]
        for decay in (0.0, 0.9)
    )
    # What is in training is the same; the mean of its steps has moved less.
    assert averaged < 0.9 * live


def test_a_run_without_masks_has_no_leak(tmp_path):
    entries = [replace(e, has_mask=False) for e in toy_entries()]
    result, rows = trained(tmp_path, entries=entries, leak_every=2)
    assert rows == {} and "leak" not in result.summary and read_leaks(result.folder) == {}
    result, rows = trained(tmp_path / "never", leak_every=-1)
    assert rows == {} and "leak" not in result.summary


def test_the_end_of_a_stopped_run_is_measured_and_so_is_that_of_one_that_goes_on(tmp_path):
    straight, rows = trained(tmp_path / "straight", leak_every=5)
    stopped, first = trained(tmp_path / "halves", Recorder(stop_at=4), leak_every=5)
    assert not stopped.completed and list(first) == [4] and stopped.summary["leak"] == first[4]["leak"]
    resumed, after = trained(tmp_path / "halves", leak_every=5)
    assert same(straight.adapter, resumed.adapter)
    assert after[10] == rows[10] and after[5] == rows[5]


def test_a_run_that_holds_pictures_out_measures_them_with_the_leak_and_keeps_the_favoured_checkpoint(tmp_path):
    result, _ = trained(tmp_path, leak_every=2, validate_every=5, validation_share=0.3, keep_last=1, steps=20)
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    favoured = read_favoured(result.folder)
    with open_run(tmp_path) as run:
        assert favoured in run.checkpoints() and run.checkpoints()[-1] == 20
    held = {e.name for e in toy_entries()} - set(read_leaks(result.folder))
    assert len(held) == 2


HELD_OUT = {"leak_every": 4, "validate_every": 4, "validation_share": 0.3, "keep_last": 1}


class Cancelling(Recorder):
    """Cancels while the leak after a step is measured."""

    def __init__(self, at):
        super().__init__()
        self.at, self.measuring = at, 0

    def on_measuring(self, step):
        self.measuring = step

    def check_cancel(self):
        if self.measuring == self.at:
            raise KeyboardInterrupt


def test_the_step_at_which_a_run_is_stopped_is_held_out_too_before_its_checkpoint_is_favoured(tmp_path):
    result, _ = trained(tmp_path, Recorder(stop_at=6), **HELD_OUT)
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [4, 6]
    # One that was measured there by itself is not measured again.
    result, _ = trained(tmp_path / "once", Recorder(stop_at=4), **HELD_OUT)
    lines = (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum("validation" in line for line in lines) == sum("leak" in json.loads(line) for line in lines) == 1


def test_what_is_cancelled_while_it_is_measured_keeps_its_best_checkpoint_and_goes_on_bit_for_bit(tmp_path):
    straight, _ = trained(tmp_path / "straight", Recorder(stop_at=4), **HELD_OUT)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", Cancelling(4), **HELD_OUT)
    with open_run(tmp_path / "parts") as run:
        assert run.checkpoints() == [4] and run.best_step() == 4
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", Cancelling(10), **HELD_OUT)
    resumed, rows = trained(tmp_path / "parts", **HELD_OUT)
    straight, wanted = trained(tmp_path / "straight", **HELD_OUT)
    assert resumed.resumed_from == 10 and same(straight.adapter, resumed.adapter)
    assert rows[10] == wanted[10] and resumed.summary["validation"] == straight.summary["validation"]


def row(step, leak, validation=None, drift=None):
    named = {"step": step, "leak": leak, "validation": validation, "drift_plain": drift}
    return {name: value for name, value in named.items() if value is not None}


def test_the_three_measures_favour_a_step_together():
    rows = [row(10, 0.0, 0.5, 0.1), row(20, 0.001, 0.3, 0.2), row(30, 0.08, 0.29, 0.6)]
    assert favoured_step(rows, [10, 20, 30]) == 20
    assert favoured_step(rows, [10, 30]) == 10
    assert favoured_step(rows[:1], [10]) is None and favoured_step(rows, []) is None
    # What is in rows of its own belongs to its step.
    apart = [*({**one} for one in rows), {"step": 20, "loss": 1.0}]
    assert favoured_step(apart, [10, 20, 30]) == 20


def test_a_measure_that_is_much_the_same_everywhere_or_lacks_somewhere_does_not_decide():
    alike = [row(10, 0.001, 0.300), row(20, 0.004, 0.301), row(30, -0.2, 0.302)]
    assert favoured_step(alike, [10, 20, 30]) == 30
    lacking = [row(10, 0.0, 0.1), row(20, 0.0)]
    assert favoured_step(lacking, [10, 20]) == 20
    only_leaks = [row(10, 0.05), row(20, 0.01), row(30, 0.09)]
    assert favoured_step(only_leaks, [10, 20, 30]) == 20
