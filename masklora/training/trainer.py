"""The training loop: `train` takes a model, a cache and settings, and leaves a trained adapter.

It knows no ComfyUI: whatever is special about a model or a host comes in as a method of `Trainable` or of `Hooks`.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, NonFiniteLossError, RunError
from ..experts import check_turns, joined, joined_states, steps_for_both, steps_of, steps_until, turn_of
from ..findings import counted, warning
from ..loss.leak import Leak, mean_leak
from ..peers import STOP, WAIT, LostPeerError, StopAskedError, exchanged
from ..runs.marks import keep_favoured
from ..runs.run import Checkpoint, Run
from ..runs.sample_pictures import Sampling
from ..showings.leaks import keep_leaks
from ..showings.record import Showings
from .batches import BatchPlan, split_entries
from .job import Hooks, TrainJob, TrainResult, check_job
from .metrics import (
    COLUMNS,
    MetricBuffer,
    StepFacts,
    StepReport,
    favoured_step,
    step_row,
    summarise,
)
from .seeds import own_global_random
from .track import Track
from .validation import background_leak, held_out_loss, leak_draws

# About as many halvings as a gradient scaler can need.
SKIPPED_LIMIT = 20
NOTHING_HELD_OUT = "There is no held-out loss: it takes two pictures and a validation_share above 0."
FRESH_STATE = (
    "The optimizer starts with fresh state: the one of this checkpoint made room (keep_finished_runs, keep_every). "
    "The first steps are a little rougher than they would have been."
)
PAUSE_SECONDS = 0.1


def train(job: TrainJob, *, run: Run, hooks: Hooks | None = None) -> TrainResult:
    """The trained adapter of `job`, from the run folder if it is finished, else trained or resumed.

    Args:
        job: what to train. Its model's `params` hold the trained live weights afterwards; whoever made them puts
            the model back.
        run: an open run folder, whose fingerprint stands for this very job.
        hooks: the host's.

    Returns:
        See `TrainResult`. A run that was stopped is not complete: training it again goes on.

    Raises:
        NonFiniteLossError: the loss or its gradient became NaN or infinite; the weights of before are in
            the last checkpoint.
        ConfigError: settings that contradict each other or the data.
        RunError: the run folder cannot be written.
        BaseException: whatever a hook or the model raised, after a resumable checkpoint was written.
    """
    random = own_global_random(job.model.device)
    with torch.inference_mode(False), torch.enable_grad(), random, job.peers.watched():
        # What people are told, and ask for, goes through the first process.
        return _Session(job, run, hooks if hooks and job.peers.first else Hooks()).result()


def planned_steps(job: TrainJob) -> int:
    """How many optimizer steps `job` takes.

    Raises:
        ConfigError: there is nothing to train on, or no length, or none for the second of two models.
    """
    settings, total = job.train, job.train.steps
    if settings.epochs > 0:
        each = _batch_plan(job)[0].steps_for(settings.epochs, accumulation=job.micros)
        total = steps_for_both(each, job.pair.every) if job.pair else each
    if total == 0:
        raise ConfigError("steps, epochs: expected one of them above 0. Set steps.")
    if job.pair:
        check_turns(total, job.pair.every)
    return total


def _batch_plan(job: TrainJob) -> tuple[BatchPlan, list[int]]:
    """The run's batches, and the entries that are held out."""
    settings, entries = job.train, job.cache.entries
    share = settings.validation_share if settings.validate_every > 0 else 0.0
    training, held_out = split_entries(entries, share=share, seed=settings.seed)
    infill = job.loss.infill_probability
    plan = BatchPlan(entries, settings.batch_size, settings.seed, use=training, infill_probability=infill)
    return plan, held_out


class _Session:
    def __init__(self, job: TrainJob, run: Run, hooks: Hooks) -> None:
        self.job, self.run, self.hooks, self.peers = job, run, hooks, job.peers
        check_job(job)
        hooks.on_job(job)
        settings = job.train
        self.plan, self.held_out = _batch_plan(job)
        self.total = planned_steps(job)
        self.tracks = [
            Track(job, course, self.plan, total=self._own(number, self.total), tell=hooks.on_message)
            for number, course in enumerate(job.courses())
        ]
        self.track = self.tracks[0]
        sampler = job.sampler if self.peers.first else None
        self.sampling = Sampling(sampler, hooks=hooks, set_training=self._set_training)
        self.immediate = job.model.device.type == "cpu" if job.immediate is None else job.immediate
        self.buffer = MetricBuffer(self.total, immediate=self.immediate)
        self.showings = Showings(run.folder)
        self.saved_step, self.resumed_from = 0, 0
        self.skipped = 0
        self.validation: float | None = None
        self.validated_step = 0
        # The weights are those of the lowest held-out loss, and no checkpoint has them yet.
        self.better = False
        entries, held = job.cache.entries, set(self.held_out)
        use = (
            [] if settings.leak_every < 0 or not self.peers.first else [i for i in range(len(entries)) if i not in held]
        )
        self.leak_draws = leak_draws(entries, use, seed=settings.seed)
        self.leak, self.measured_step = Leak(), 0

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return sum(track.weights.step for track in self.tracks)

    def _own(self, number: int, steps: int) -> int:
        """How many of the run's first steps are those of a track."""
        return steps_of(number, steps, self.job.pair.every) if self.job.pair else steps

    def _show(self, number: int) -> None:
        """The track of this number is used from here on."""
        if self.job.pair and self.track is not self.tracks[number]:
            self.job.pair.show(number)
            self.track = self.tracks[number]

    def _set_training(self, on: bool) -> None:
        for track in self.tracks:
            track.model.set_training(on)

    def result(self) -> TrainResult:
        checkpoint = self._checkpoint()
        for text in self.run.messages:
            self.hooks.on_message(text)
        if checkpoint and (ended := self.run.finished_at(checkpoint.step)):
            self.hooks.on_run(self.run.folder, step=checkpoint.step, total=checkpoint.step)
            self._tell_lost_numbers(self.run.read_metrics(), checkpoint.step)
            return self._outcome(checkpoint.adapter, ended.get("summary") or {}, checkpoint.step, loaded=True)
        if checkpoint:
            self._restore(checkpoint)
        if self.job.train.validate_every > 0 and not self.held_out:
            self.hooks.on_message(NOTHING_HELD_OUT)
        self.run.clear_result()
        self.run.start_metrics(self.step)
        self.showings.start(self.step)
        self.hooks.on_run(self.run.folder, step=self.step, total=self.total)
        self.sampling.start(self.run.folder, step=self.step)
        self._set_training(True)
        try:
            completed = self._loop()
        except BaseException as error:
            self.peers.fail(error)
            # A bad loss that is seen at once has not touched the weights, one that is seen late may have.
            if self.immediate or not isinstance(error, NonFiniteLossError):
                self._rescue(error)
            raise
        finally:
            self.showings.close()
            for track in self.tracks:
                track.feed.close()
                track.weights.drop_gradients()
        records = self.run.read_metrics()
        self._tell_lost_numbers(records, self.step)
        summary = summarise(records)
        summary |= {"validation": self.validation, "validation_best": self.track.weights.best, **self.leak.row}
        summary["best_step"] = self.run.best_step()
        if kept := {size: shares for track in self.tracks for size, shares in track.objective.planner.kept.items()}:
            summary["kept_tokens"] = kept
        self.run.write_result({"steps": self.step, "completed": completed, "summary": summary})
        adapter = {name: tensor.cpu() for name, tensor in self._adapter().items()}
        return self._outcome(adapter, summary, self.step, completed=completed)

    def _checkpoint(self) -> Checkpoint | None:
        """Where the run stands, in all processes."""
        self.peers.agree("training", self.run.fingerprint)
        found = self.run.load_checkpoint() if self.peers.first else None
        self.peers.mirror(self.run.folder, self.run.files_of(found) if found else [])
        if self.peers.first:
            return found
        # By its number: one that cannot be read here is an error, for the first one goes on from it.
        return next((self.run.load_checkpoint(step) for step in self.run.checkpoints()), None)

    def _tell_lost_numbers(self, records: list[dict[str, Any]], steps: int) -> None:
        lost = steps - len({r["step"] for r in records if "loss" in r})
        if lost > 0:
            self.hooks.on_message(
                warning(
                    f"{self.run.folder / 'metrics.jsonl'} lacks the numbers of {lost} of "
                    f"{counted(steps, '[step|steps]')}: it was "
                    "removed or damaged. The curves have a gap there; the LoRA is whole."
                )
            )

    def _outcome(
        self,
        adapter: dict[str, Tensor],
        summary: dict[str, Any],
        steps: int,
        *,
        completed: bool = True,
        loaded: bool = False,
    ) -> TrainResult:
        losses = [r["loss"] for r in self.run.read_metrics() if "loss" in r and r["step"] <= steps]
        return TrainResult(
            adapter=adapter,
            steps=steps,
            completed=completed,
            loaded=loaded,
            resumed_from=self.resumed_from,
            losses=losses,
            summary=summary,
            folder=self.run.folder,
        )

    def _loop(self) -> bool:
        settings, stopped = self.job.train, False
        if self.sampling.owed(self.step):
            self._draw_samples()
        while self.step < self.total and not stopped:
            self.hooks.check_cancel()
            self._wait_while_paused()
            stopped = self.hooks.should_stop()
            if stopped:
                self.peers.meet(STOP)
                break
            try:
                self._take_step()
            except StopAskedError:
                break
            if not self.peers.first:
                continue
            if self.buffer.due:
                self._flush()
            last = self.step == self.total
            measured = self.leak_draws and (last or _due(self.step, settings.leak_every))
            if settings.validate_every > 0 and (measured or last or _due(self.step, settings.validate_every)):
                self._validate()
            if measured:
                self._measure()
            asked = self.hooks.should_save()
            due = _due(self.step, settings.save_every) or _due(self.step, settings.keep_every)
            if asked or self.better or measured or last or due:
                self._save()
            self._sample()
            self.hooks.after_step(self.step)
        if not self.peers.first:
            return self.step >= self.total
        if self.leak_draws and self.step > self.measured_step:
            if settings.validate_every > 0 and self.step > self.validated_step:
                self._validate()
            self._measure()
        if self.step > self.saved_step or self.better:
            self._save()
        self._sample(ended=True)
        return self.step >= self.total

    def _take_step(self) -> None:
        if self.job.pair:
            self._show(turn_of(self.step, self.job.pair.every))
        track = self.track
        weights = track.weights
        for part in weights.begin():
            steps = counted(part.stop, "[step|steps]")
            self.hooks.on_message(f"{part.title}: trained for {steps}; from here on it stays as it is.")
        learned = []
        for number in track.own_numbers:
            self.peers.move()
            if learned:
                self.hooks.check_cancel()
            learned.append(track.learn(number))
            if number == weights.taken and track.objective.seen is not None:
                self.hooks.on_seen(track.objective.seen)
        micros = exchanged(weights.params, torch.stack(learned), self.peers)
        names = track.names()
        norm = weights.clip()
        row = step_row(micros[:, : len(COLUMNS) - 1], norm)
        weights.observe(row[0], norm)
        epoch = self.plan.epoch_of(weights.taken)
        if self.immediate:
            self._refuse_non_finite(row[0].item(), norm.item(), self.step + 1, names)
        rate = weights.update(track.total)
        if self.peers.first:
            shown = micros[:, len(COLUMNS) - 1 :].reshape(-1, 3)
            self.buffer.add(row, StepFacts(self.step, epoch, rate, names, track.expert), shown)
        weights.settle()

    def _wait_while_paused(self) -> None:
        if not self.hooks.should_pause():
            return
        self._flush()
        while self.hooks.should_pause() and not self.hooks.should_stop():
            self.peers.meet(WAIT)
            time.sleep(PAUSE_SECONDS)
            self.hooks.check_cancel()
            if self.hooks.should_save() and self.step > self.saved_step:
                self._save()
            self._sample()
        self.buffer.restart_clock()

    def _flush(self, *, quiet: bool = False) -> None:
        reports = self.buffer.fetch()
        good: list[StepReport] = []
        try:
            for report in reports:
                self._refuse_non_finite(report.loss, report.grad_norm, report.step, report.samples)
                self.skipped = 0 if _finite(report.grad_norm) else self.skipped + 1
                good.append(report)
                if self.skipped >= SKIPPED_LIMIT:
                    raise NonFiniteLossError(
                        f"Step {report.step}: the last {self.skipped} steps were skipped because float16 gradients "
                        "overflowed; nothing is being learned. Let the model compute in bfloat16 or float32."
                    )
        finally:
            self.run.append_metrics(report.as_json() for report in good)
            self.showings.append((report.step, report.shown) for report in good)
        for report in () if quiet else good:
            self.hooks.on_step(report)

    def _refuse_non_finite(self, loss: float, norm: float, step: int, names: tuple[str, ...]) -> None:
        bad_norm = self.track.weights.scaler is None and not _finite(norm)
        if _finite(loss) and not bad_norm:
            return
        what = "loss" if not _finite(loss) else "gradient"
        kept = self.run.checkpoints()
        where = f"The checkpoint of step {kept[-1]} is kept." if kept else "No checkpoint was written yet."
        raise NonFiniteLossError(
            f"Step {step}: the {what} is not a finite number, with the pictures {', '.join(names[:8])}. "
            f"{where} Lower the learning rate, let the model compute in bfloat16 or float32, or look at "
            "these pictures; then queue again."
        )

    def _validate(self) -> None:
        if not self.held_out:
            return
        self._flush()
        values = []
        for number, track in enumerate(self.tracks):
            self._show(number)
            with track.weights.wearing_result():
                values.append(
                    held_out_loss(
                        track.objective,
                        track.feed,
                        self.held_out,
                        batch_size=self.job.train.batch_size,
                        check_cancel=self.hooks.check_cancel,
                    )
                )
        value = self.validation = sum(values) / len(values)
        self.validated_step = self.step
        self.run.append_metrics([{"step": self.step, "validation": value}])
        self.hooks.on_validation(self.step, value)
        self.buffer.restart_clock()
        best = self.track.weights.best
        self.better = _finite(value) and (best is None or value < best)
        for track in self.tracks if self.better else ():
            track.weights.best = value

    def _measure(self) -> None:
        """How much of the pictures' backgrounds was learned, and which checkpoint its measures favour now."""
        self._flush()
        self.hooks.on_measuring(self.step)
        found = []
        for number, track in enumerate(self.tracks):
            # One whose turn never came has learned nothing, which would halve what the other one has.
            if not track.weights.step:
                continue
            self._show(number)
            with track.weights.wearing_result():
                found.append(
                    background_leak(
                        track.model,
                        track.feed,
                        self.leak_draws,
                        batch_size=self.job.train.batch_size,
                        seed=self.job.train.seed,
                        check_cancel=self.hooks.check_cancel,
                    )
                )
        self.leak, self.measured_step = mean_leak(found), self.step
        self.run.append_metrics([{"step": self.step, **self.leak.row}])
        keep_leaks(self.run.folder, self.step, self.leak.pictures or {})
        favoured = favoured_step(self.run.read_metrics(), {*self.run.checkpoints(), self.step})
        keep_favoured(self.run.folder, favoured)
        self.hooks.on_leak(self.step, self.leak, favoured)
        self.buffer.restart_clock()

    def _sample(self, *, ended: bool = False) -> None:
        if self.sampling.due(self.step, ended=ended):
            self._draw_samples()

    def _draw_samples(self) -> None:
        self._flush()
        with contextlib.ExitStack() as stack:
            for track in self.tracks:
                stack.enter_context(track.weights.wearing_result())
            figures = self.sampling.draw(self.step)
        if figures:
            self.run.append_metrics([{"step": self.step, **figures}])
            self.hooks.on_likeness(self.step, figures)
        self.buffer.restart_clock()

    def _adapter(self) -> dict[str, Tensor]:
        """What a person would use now, of two models both."""
        results = [track.weights.result() for track in self.tracks]
        return joined(results) if self.job.pair else results[0]

    def _save(self, *, quiet: bool = False) -> None:
        self._flush(quiet=quiet)
        results, settings = [track.weights.result() for track in self.tracks], self.job.train
        states = [track.weights.state(result) for track, result in zip(self.tracks, results, strict=True)]
        adapter, state = (joined(results), joined_states(states)) if self.job.pair else (results[0], states[0])
        kept = {"keep_last": settings.keep_last, "keep_every": settings.keep_every}
        folder = self.run.save_checkpoint(self.step, adapter=adapter, state=state, best=self.better, **kept)
        self.saved_step, self.better = self.step, False
        if not quiet:
            self.hooks.on_checkpoint(self.step, folder)

    def _restore(self, checkpoint: Checkpoint) -> None:
        kept = all([track.restore(checkpoint) for track in self.tracks])
        if not kept and self.step < self.total:
            self.hooks.on_message(warning(FRESH_STATE))
        self.saved_step = self.resumed_from = self.step
        if self.job.train.epochs > 0:
            self._plan_rest()
        self.hooks.on_message(f"Going on from the checkpoint of step {self.step}.")
        weights = self.track.weights
        if self.peers.first and weights.taken != weights.step * weights.micros:
            self.hooks.on_message(
                f"A step learned {weights.taken / weights.step:g} batches so far; with "
                f"{counted(self.peers.count, '[process|processes]')} it learns {weights.micros} from here on."
            )

    def _plan_rest(self) -> None:
        """What is left of the epochs takes other many steps where more or fewer processes were at work before."""
        due, pair = [track.due for track in self.tracks], self.job.pair
        self.total = max(steps_until(i, own, pair.every) for i, own in enumerate(due)) if pair else due[0]
        self.buffer.total = self.total
        for number, track in enumerate(self.tracks):
            track.total = self._own(number, self.total)

    def _rescue(self, error: BaseException) -> None:
        # Who has lost another process may have lost the first one, and then be the only one that has the weights.
        owes = self.peers.first or isinstance(error, LostPeerError)
        if self.track.weights.updating or self.step == self.saved_step or not owes:
            return
        try:
            self._save(quiet=True)
        except (RunError, OSError, RuntimeError) as error:
            self.run.messages.append(f"No checkpoint could be written after the interruption: {error}")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _finite(value: float | None) -> bool:
    return value is not None and abs(value) != float("inf") and value == value
