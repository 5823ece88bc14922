"""The training loop: `train` takes a model, a cache and settings, and leaves a trained adapter.

It knows no ComfyUI: whatever is special about a model or a host comes in as a method of `Trainable` or of `Hooks`.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, NonFiniteLossError, RunError
from ..findings import counted, warning
from ..loss.prior import preservation_runs
from ..runs.run import Checkpoint, Run
from ..runs.sample_pictures import Sampling
from ..showings.record import Showings
from .batches import BatchPlan, split_entries
from .job import Hooks, TrainJob, TrainResult, check_job
from .metrics import MetricBuffer, StepFacts, StepReport, showing_rows, step_row, summarise
from .microbatch import Feed
from .objective import Objective
from .seeds import mix, own_global_random, seed_global_random
from .validation import held_out_loss
from .weights import Weights

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
    with torch.inference_mode(False), torch.enable_grad(), own_global_random(job.model.device):
        return _Session(job, run, hooks or Hooks()).result()


def planned_steps(job: TrainJob) -> int:
    """How many optimizer steps `job` takes.

    Raises:
        ConfigError: there is nothing to train on, or no length.
    """
    settings = job.train
    if settings.epochs > 0:
        return _batch_plan(job)[0].steps_for(settings.epochs, accumulation=settings.gradient_accumulation)
    if settings.steps == 0:
        raise ConfigError("steps, epochs: expected one of them above 0. Set steps.")
    return settings.steps


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
        self.job, self.model, self.run, self.hooks = job, job.model, run, hooks
        check_job(job)
        hooks.on_job(job)
        settings = job.train
        self.plan, self.held_out = _batch_plan(job)
        self.accumulation = settings.gradient_accumulation
        self.total = planned_steps(job)
        self.weights = Weights(job.model, job.optim, seed=settings.seed)
        self.feed = Feed(job.cache, job.loss, model=job.model, regularisation_weight=settings.regularisation_weight)
        self.objective = Objective(job.model, seed=settings.seed, feed=self.feed, tell=hooks.on_message)
        self.sampling = Sampling(job.sampler, hooks=hooks, set_training=job.model.set_training)
        self.immediate = job.model.device.type == "cpu" if job.immediate is None else job.immediate
        self.buffer = MetricBuffer(self.total, immediate=self.immediate)
        self.showings = Showings(run.folder)
        self.saved_step, self.resumed_from = 0, 0
        self.skipped = 0
        self.validation: float | None = None

    @property
    def step(self) -> int:
        """Finished optimizer steps."""
        return self.weights.step

    def result(self) -> TrainResult:
        checkpoint = self.run.load_checkpoint()
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
        self.model.set_training(True)
        try:
            completed = self._loop()
        except BaseException as error:
            # A bad loss that is seen at once has not touched the weights, one that is seen late may have.
            if self.immediate or not isinstance(error, NonFiniteLossError):
                self._rescue()
            raise
        finally:
            self.feed.close()
            self.showings.close()
            self.weights.drop_gradients()
        records = self.run.read_metrics()
        self._tell_lost_numbers(records, self.step)
        summary = summarise(records)
        summary |= {"validation": self.validation, "validation_best": self.weights.best}
        summary["best_step"] = self.run.best_step()
        if self.objective.planner.kept:
            summary["kept_tokens"] = self.objective.planner.kept
        self.run.write_result({"steps": self.step, "completed": completed, "summary": summary})
        adapter = {name: tensor.cpu() for name, tensor in self.weights.result().items()}
        return self._outcome(adapter, summary, self.step, completed=completed)

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
                break
            self._take_step()
            if self.buffer.due:
                self._flush()
            better = False
            last = self.step == self.total
            if settings.validate_every > 0 and (self.step % settings.validate_every == 0 or last):
                better = self._validate()
            asked = self.hooks.should_save()
            due = any(every > 0 and self.step % every == 0 for every in (settings.save_every, settings.keep_every))
            if asked or better or last or due:
                self._save(best=better)
            self._sample()
            self.hooks.after_step(self.step)
        if self.step > self.saved_step:
            self._save()
        self._sample(ended=True)
        return self.step >= self.total

    def _take_step(self) -> None:
        self.weights.begin()
        losses, parts, names = [], [], []
        settings, loss = self.job.train, self.job.loss
        for micro in range(self.accumulation):
            if micro:
                self.hooks.check_cancel()
            number = self.step * self.accumulation + micro
            seed_global_random(self.model.device, mix(settings.seed, number))
            plain = preservation_runs(loss, seed=settings.seed, number=number)
            batch = self.feed.make(self.plan.batch(number), plain=plain)
            self._read_ahead(number + 1)
            values, part = [], {}
            for term in self.objective.terms(
                batch, loss, self.weights.generator, number=number, progress=self.step / self.total
            ):
                with self.model.autograd_scope():
                    value, seen = term()
                    self.weights.backward(value / self.accumulation)
                values.append(value.detach())
                part |= seen
            losses.append(torch.stack(values).sum())
            parts.append(part)
            names += batch.names
            if micro == 0 and self.objective.seen is not None:
                self.hooks.on_seen(self.objective.seen)
        norm = self.weights.clip()
        row = step_row(losses, parts, norm)
        self.weights.observe(row[0], norm)
        epoch = self.plan.epoch_of(self.step * self.accumulation)
        if self.immediate:
            self._refuse_non_finite(row[0].item(), norm.item(), self.step + 1, tuple(names))
        rate = self.weights.update(self.total)
        self.buffer.add(row, StepFacts(self.step, epoch, rate, tuple(names)), showing_rows(parts))
        self.weights.settle()

    def _read_ahead(self, number: int) -> None:
        """Have the micro-batch of this number read, if the run gets there."""
        if number < self.total * self.accumulation:
            plain = preservation_runs(self.job.loss, seed=self.job.train.seed, number=number)
            self.feed.read_ahead(self.plan.batch(number), plain=plain)

    def _wait_while_paused(self) -> None:
        if not self.hooks.should_pause():
            return
        self._flush()
        while self.hooks.should_pause() and not self.hooks.should_stop():
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
        bad_norm = self.weights.scaler is None and not _finite(norm)
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

    def _validate(self) -> bool:
        if not self.held_out:
            return False
        self._flush()
        with self.weights.wearing_result():
            value = held_out_loss(
                self.objective,
                self.feed,
                self.held_out,
                batch_size=self.job.train.batch_size,
                check_cancel=self.hooks.check_cancel,
            )
        self.validation = value
        self.run.append_metrics([{"step": self.step, "validation": value}])
        self.hooks.on_validation(self.step, value)
        self.buffer.restart_clock()
        better = _finite(value) and (self.weights.best is None or value < self.weights.best)
        if better:
            self.weights.best = value
        return better

    def _sample(self, *, ended: bool = False) -> None:
        if self.sampling.due(self.step, ended=ended):
            self._draw_samples()

    def _draw_samples(self) -> None:
        self._flush()
        with self.weights.wearing_result():
            self.sampling.draw(self.step)
        self.buffer.restart_clock()

    def _save(self, *, best: bool = False, quiet: bool = False) -> None:
        self._flush(quiet=quiet)
        adapter = self.weights.result()
        state, settings = self.weights.state(adapter), self.job.train
        kept = {"keep_last": settings.keep_last, "keep_every": settings.keep_every}
        folder = self.run.save_checkpoint(self.step, adapter=adapter, state=state, best=best, **kept)
        self.saved_step = self.step
        if not quiet:
            self.hooks.on_checkpoint(self.step, folder)

    def _restore(self, checkpoint: Checkpoint) -> None:
        kept = self.weights.restore(checkpoint)
        if not kept and self.step < self.total:
            self.hooks.on_message(warning(FRESH_STATE))
        self.saved_step = self.resumed_from = self.step
        self.hooks.on_message(f"Going on from the checkpoint of step {self.step}.")

    def _rescue(self) -> None:
        if self.weights.updating or self.step == self.saved_step:
            return
        try:
            self._save(quiet=True)
        except (RunError, OSError, RuntimeError) as error:
            self.run.messages.append(f"No checkpoint could be written after the interruption: {error}")


def _finite(value: float | None) -> bool:
    return value is not None and abs(value) != float("inf") and value == value
