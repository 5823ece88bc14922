"""The next micro-batch is read while the device works on this one, and nothing else changes."""

import threading

import pytest

from harness.toy import Recorder, ToyCache, open_run, same, toy_entries, toy_job, train_toy
from masklora.errors import CacheError
from masklora.settings import LossSettings
from masklora.training.microbatch import Feed
from masklora.training.read_ahead import THREAD, ReadAhead
from masklora.training.trainer import train

PRESERVING = LossSettings(prior_weight=0.0, preservation_weight=1.0, preservation_probability=0.5)


class WatchedCache(ToyCache):
    """Notes which thread reads each latent, and cannot read those of `broken`."""

    def __init__(self, entries, *, broken=()):
        super().__init__(entries)
        self.broken, self.readers = broken, []

    def latent(self, entry, variant, infill=-1):
        self.readers.append(threading.current_thread().name)
        if entry.name in self.broken:
            raise CacheError(f"{entry.name}: the cache entry is damaged.")
        return super().latent(entry, variant, infill)


def watched_job(*, broken=(), **settings):
    job = toy_job(**settings)
    job.cache = WatchedCache(job.cache.entries, broken=broken)
    return job


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD)]


@pytest.mark.parametrize("loss", [LossSettings(prior_weight=0.0), PRESERVING], ids=["plain", "preservation"])
def test_a_run_is_bit_for_bit_the_one_that_reads_in_line(loss, tmp_path, monkeypatch):
    settings = {"loss": loss, "gradient_accumulation": 2, "validate_every": 3, "validation_share": 0.3}
    ahead = train_toy(tmp_path / "ahead", toy_job(**settings))
    monkeypatch.setattr(Feed, "read_ahead", lambda *args, **kwargs: None)
    in_line = train_toy(tmp_path / "in line", toy_job(**settings))
    assert same(ahead.adapter, in_line.adapter)
    assert ahead.losses == in_line.losses and ahead.summary == in_line.summary


def test_all_but_the_first_micro_batch_are_read_in_the_thread_and_none_beyond_the_last(tmp_path):
    job = watched_job()
    train_toy(tmp_path, job)
    names = job.cache.readers
    assert len(names) == 20 and [name.startswith(THREAD) for name in names] == [False] * 2 + [True] * 18
    assert not reading_threads()


def test_an_error_comes_when_its_batch_is_due_and_from_the_thread_that_trains(tmp_path):
    whole = Recorder()
    train_toy(tmp_path / "whole", toy_job(), whole)
    first = {}
    for report in whole.reports:
        for name in report.samples:
            first.setdefault(name, report.step)
    broken, step = max(first.items(), key=lambda item: item[1])
    assert step > 1
    job, recorder = watched_job(broken=(broken,)), Recorder()
    with pytest.raises(CacheError, match=broken):
        train_toy(tmp_path / "broken", job, recorder)
    assert recorder.last_step == step - 1
    # Tried ahead, then where it was needed.
    assert job.cache.readers[-1] == threading.current_thread().name
    assert not reading_threads()
    resumed = train_toy(tmp_path / "broken", toy_job())
    assert resumed.resumed_from == step - 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_cancel_leaves_no_thread_and_what_was_read_for_nothing_changes_nothing(error, tmp_path):
    straight = train_toy(tmp_path / "straight", toy_job())
    with pytest.raises(error):
        train_toy(tmp_path / "cut", toy_job(), Recorder(raise_at=4, error=error))
    assert not reading_threads()
    resumed = train_toy(tmp_path / "cut", toy_job())
    assert resumed.resumed_from == 4
    assert same(straight.adapter, resumed.adapter) and straight.losses == resumed.losses


def test_a_cancel_waits_for_what_is_being_read(tmp_path):
    """A file that is still open could not be removed on Windows."""
    job, going, ended = watched_job(), threading.Event(), []

    class SlowCache(WatchedCache):
        def latent(self, entry, variant, infill=-1):
            ahead = threading.current_thread().name.startswith(THREAD)
            if ahead:
                going.wait(5)
            found = super().latent(entry, variant, infill)
            ended.extend([1] * ahead)
            return found

    job.cache = SlowCache(toy_entries())
    recorder = Recorder(raise_at=1)
    plain = recorder.check_cancel

    def check_cancel():
        if recorder.last_step == 1:
            going.set()
        plain()

    recorder.check_cancel = check_cancel
    with open_run(tmp_path) as run, pytest.raises(KeyboardInterrupt):
        train(job, run=run, hooks=recorder)
    assert ended and not reading_threads()


def test_what_was_started_last_is_what_can_be_taken():
    ahead = ReadAhead()
    ahead.start("one", lambda: 1)
    assert ahead.take("two") is None and ahead.take("one") == 1 and ahead.take("one") is None
    ahead.start("one", lambda: 1)
    ahead.start("two", lambda: 2)
    assert ahead.take("one") is None and ahead.take("two") == 2
    ahead.start("bad", lambda: 1 / 0)
    assert ahead.take("bad") is None
    ahead.close()
    assert not reading_threads()
