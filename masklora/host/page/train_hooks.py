"""Progress of a training as ComfyUI shows it: bar, status line, interrupt, and the pack's own panel."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
from server import PromptServer

from ...findings import Finding, note
from ...loss.leak import Leak
from ...peers import here
from ...runs.graph import keep_graph
from ...runs.history import curve_row
from ...runs.told import Told, read_told
from ...training.job import Hooks, TrainJob
from ...training.metrics import StepReport
from ...viewing.training_sample import Seen
from .live import LiveRun, listed
from .signals import OrderlyEnd

_STATUS_SECONDS = 0.5
_LOG_SECONDS = 10.0
# Marks lines of the log that only tell how far the training is.
PROGRESS = "masked_lora_progress"

logger = logging.getLogger(__name__)


class NodeHooks(Hooks):
    """Tells ComfyUI's queue and page how a training node is doing; a context, at whose end the run has ended."""

    def __init__(self, total: int, *, node_id: str | None, graph: dict[str, Any] | None = None) -> None:
        """Report for node `node_id`, `total` steps long; `graph` is kept with the run."""
        self._bar = comfy.utils.ProgressBar(max(1, total), node_id=node_id)
        self._node_id, self._graph = node_id, graph or {}
        self._job: TrainJob | None = None
        self._said = self._logged = 0.0
        self._live: LiveRun | None = None
        self._listing = contextlib.ExitStack()
        self._end = OrderlyEnd()
        self.messages: list[Finding] = []

    def __enter__(self) -> NodeHooks:
        """The hooks themselves."""
        self._listing.enter_context(self._end.awaited())
        return self

    def __exit__(self, *exc: Any) -> None:
        """Take no more wishes, and tell the page how the run ended."""
        self._listing.__exit__(*exc)

    def on_job(self, job: TrainJob) -> None:
        """Remember where it computes and how its latents look."""
        self._job = job

    def on_run(self, folder: Path, *, step: int, total: int) -> None:
        """List the run, so that a person can stop, save or pause it, and keep its graph."""
        assert self._job is not None
        keep_graph(folder, self._graph)
        run = LiveRun(folder, self._job, node_id=self._node_id, step=step, total=total, told=read_told(folder))
        # What was told before there was a run.
        run.message = self.messages[-1].text if self.messages else ""
        self._live = self._listing.enter_context(listed(run))
        run.tell()

    def should_stop(self) -> bool:
        """Whether a person wished to stop and save."""
        return self._live is not None and self._live.should_stop()

    def should_pause(self) -> bool:
        """Whether a person wished to wait."""
        if self._live is None:
            return False
        self._live.tell()
        return self._live.should_pause()

    def should_save(self) -> bool:
        """Whether a person wished a checkpoint."""
        return self._live is not None and self._live.should_save()

    def should_sample(self) -> bool:
        """Whether a person wished sample pictures."""
        return self._live is not None and self._live.should_sample()

    def on_seen(self, seen: Seen) -> None:
        """Keep it for a page that looks."""
        if self._live is not None:
            self._live.seen = seen

    def on_drawing(self, step: int, *, done: int, count: int) -> None:
        """Tell the page, and show it on the node."""
        if self._live is not None:
            self._live.draw(step, done=done, count=count)
        news = f"drawing sample picture {done + 1} of {count}" if done < count else "done with the sample pictures"
        self.say(f"step {step} · {news}")

    def check_cancel(self) -> None:
        """Raise ComfyUI's interrupt if a person pressed cancel, or if ComfyUI ends; and see `pulse`."""
        here().move()
        if self._end.wished:
            raise comfy.model_management.InterruptProcessingException
        comfy.model_management.throw_exception_if_processing_interrupted()

    def on_step(self, report: StepReport) -> None:
        """Move the bar; every so often the status line and the log too."""
        if self._live is not None:
            self._live.names = report.samples
            self._live.add(curve_row(report.as_json()), rate=report.steps_per_second)
        now, last = time.monotonic(), report.step >= report.total
        self._bar.update_absolute(report.step, report.total)
        if last or now - self._said >= _STATUS_SECONDS:
            self._said = now
            self.say(status_line(report))
        if last or now - self._logged >= _LOG_SECONDS:
            self._logged = now
            logger.info("masked lora: %s", status_line(report), extra={PROGRESS: True})

    def on_validation(self, step: int, loss: float) -> None:
        """Log the held-out loss and show it in the chart."""
        if self._live is not None and math.isfinite(loss):
            self._live.add({"step": step, "validation": loss})
        logger.info("masked lora: step %d, held-out loss %.4f", step, loss)

    def on_measuring(self, step: int) -> None:
        """Show it on the node."""
        self.say(f"step {step} · measuring how much of the backgrounds was learned")

    def on_leak(self, step: int, leak: Leak, favoured: int | None) -> None:
        """Log it and show it in the chart."""
        if self._live is not None:
            self._live.favoured = favoured
            self._live.add(curve_row({"step": step, **leak.row}))
        if leak.leak is not None:
            logger.info("masked lora: step %d, leak %.4f ± %.4f", step, leak.leak, leak.spread)

    def on_likeness(self, step: int, figures: Mapping[str, float]) -> None:
        """Log it and show it in the chart."""
        if self._live is not None:
            self._live.add(curve_row({"step": step, **figures}))
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
        logger.info("masked lora: step %d, %s", step, told)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Log where the checkpoint lies."""
        logger.info("masked lora: checkpoint of step %d in %s", step, folder)

    def on_message(self, told: str | Finding) -> None:
        """Log and show a message; each is kept once in `messages`, for the end."""
        finding = note(told) if isinstance(told, str) else told
        logger.warning("masked lora: %s", finding.text)
        if finding not in self.messages:
            self.messages.append(finding)
        if self._live is not None:
            self._live.note(finding.text)
        self.say(finding.text)

    def on_written(self, told: Told) -> None:
        """Show which LoRA file is this run's."""
        if self._live is not None:
            self._live.told = told
            self._live.tell()

    def on_plan(self, text: str) -> None:
        """Log and show the memory plan."""
        logger.info("masked lora: %s", text)
        self.say(text)

    def say(self, text: str) -> None:
        """Show a line of text on the node."""
        client = PromptServer.instance.client_id
        if self._node_id is not None and client is not None:
            PromptServer.instance.send_progress_text(text, self._node_id, client)


def status_line(report: StepReport) -> str:
    """Step, losses inside and outside the mask, speed and time left, in one line."""
    losses = (report.loss, report.inside, report.outside)
    whose = report.expert.replace("_", " ")
    return progress_line(report.step, report.total, losses=losses, rate=report.steps_per_second, whose=whose)


def progress_line(step: int, total: int, *, losses: Sequence[float | None], rate: float, whose: str = "") -> str:
    """How far a training is, in one line.

    Args:
        step: that was finished last.
        total: of the whole run.
        losses: the objective, inside and outside the mask; None where there is none.
        rate: steps a second; 0 where it is not known.
        whose: the model whose step it was, where two take turns.
    """
    loss, inside, outside = map(_number, losses)
    minutes, seconds = divmod(round((total - step) / rate if rate else 0.0), 60)
    turn = f" · {whose}" if whose else ""
    return (
        f"step {step}/{total}{turn} · loss {loss} · inside {inside} · outside {outside} · "
        f"{rate:.2f} steps/s · {minutes}:{seconds:02d} left"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
