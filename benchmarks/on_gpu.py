"""What only a GPU can tell: `python dev.py run benchmarks/on_gpu.py`; with `--small` all of it is tried on any machine.

Gradients of small models on the device in float32 against the CPU in float64; then steps of full-size models with
random weights: seconds, the share of the card's nominal speed, and bytes at the peak against those that are counted
without a device; ComfyUI's own Train LoRA beside ours; a training that draws pictures, is cancelled and goes on. Under
twelve minutes on a fast card. Results go to on_gpu.json, losing rows too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.dry_run import RESULTS as COUNTED
from benchmarks.dry_run import cases
from benchmarks.full_size import Case, Counting
from benchmarks.sides import Stage, Variant
from harness.double import in_double, no_float32
from harness.models import small_model, small_side, small_text
from harness.small import tried
from harness.training import make_cache, make_request, make_samples
from masklora.autograd.compiled import Compiler
from masklora.dataset.geometry import Geometry
from masklora.host.memory.cards import nominal_tflops
from masklora.host.model.trainable import TrainableModel
from masklora.host.swap.copies import copies_for
from masklora.host.training import train_lora
from masklora.settings import AdapterSettings
from masklora.training.job import Hooks

RESULTS = Path(__file__).with_suffix(".json")
ROWS = ("sdxl, per block", "flux, per block", "flux, fp8", "flux, fp8 half swapped", "flux, fp8 inputs offloaded")
ROWS += ("z_image, per block",)
COMPILED = ("sdxl, per block", "flux, per block")
STEPS, WARM_UP = 100, 3
SIDES = {
    "ours, per block": Variant("ours"),
    "ours, off": Variant("ours", checkpointing="off"),
    "core, default": Variant("core", checkpointing="1"),
}
SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


def main() -> None:
    """Everything, one after another; what fails is written down and the rest goes on."""
    small = "--small" in sys.argv[1:]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "small": small}
    found |= {"gradients": {}, "steps": {}, "beside core": {}, "cancelled": {}}
    for family in tried()[:2] if small else tried():
        _note(found["gradients"], family, lambda family=family: gradient_error(family, device))
    counted = json.loads(COUNTED.read_text(encoding="utf-8"))
    known = cases(sorted({row.split(", ")[0] for row in ROWS}))
    # The small SDXL is a large one for a CPU.
    for row in ROWS[1:] if small else ROWS:
        for compiles in (False, True) if row in COMPILED else (False,):
            title = f"{row}, compiled" if compiles else row
            case = known[row]
            if small:
                case = dataclasses.replace(case, dtype=torch.float32, small=True, side=64, tokens=77)
            _note(found["steps"], title, lambda case=case, on=compiles: step_figures(case, device, compiles=on))
            if not small and row in counted and "peak" in found["steps"][title]:
                compare(found["steps"][title], counted[row], nominal_tflops(name))
    for network in ("Flux",) if small else ("U-Net", "Flux"):
        _note(found["beside core"], network, lambda network=network: beside_core(network, steps=2 if small else 20))
    for family in ("sd3",) if small else ("sd3", "flux", "sd15"):
        _note(found["cancelled"], family, lambda family=family: cancelled_training(family))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if not small:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def compare(found: dict[str, Any], counted: dict[str, Any], tflops: int) -> None:
    """Add the bytes that were counted, and the share of the card's nominal speed, 0 where that is not known."""
    found["counted"] = sum(counted["bytes"].values())
    found["share of nominal"] = counted["flops"] / found["median"] / (tflops * 1e12) if tflops else 0


def _note(into: dict[str, Any], name: str, measure: Callable[[], Any]) -> None:
    start = time.perf_counter()
    try:
        into[name] = measure()
    except Exception as error:
        traceback.print_exc()
        into[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    sys.stderr.write(f"{name}: {time.perf_counter() - start:.0f} s\n")


def gradient_error(family: str, device: torch.device) -> float:
    """How far the adapters' gradient on `device` in float32 is from the CPU's in float64, relative to that."""
    found, truth = (gradient(family, *way) for way in ((device, torch.float32), (torch.device("cpu"), torch.float64)))
    return float((found - truth).norm() / truth.norm())


def gradient(family: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Of one sample's mean square, for all adapters, in float64 on the CPU."""
    patcher = small_model(family)
    patcher.load_device = device
    trainable = TrainableModel(patcher, dtype=dtype, guidance=1.0)
    double = dtype == torch.float64
    if double:
        in_double(trainable.network)
    trainable.load(activation_bytes=0)
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)
    generator, parameters = torch.Generator().manual_seed(1), list(adapters.parameters().values())
    for parameter in parameters:
        drawn = torch.empty(parameter.shape).normal_(std=0.02, generator=generator)
        parameter.data = drawn.to(device, dtype if double else torch.float32)
    side = small_side(trainable.family)
    noisy = torch.randn(1, trainable.channels, side, side, generator=generator).to(device, dtype)
    with trainable.session(adapters), no_float32() if double else contextlib.nullcontext():
        text = trainable.collate([small_text(family, tokens=77)], [SQUARE], noisy.shape[1:])
        with trainable.autograd_scope():
            answer = trainable.denoise(noisy, torch.tensor([0.5], device=device), text)
            grads = torch.autograd.grad(answer.square().mean(), parameters, materialize_grads=True)
    return torch.cat([grad.detach().double().cpu().flatten() for grad in grads])


class Timed(Counting):
    """A training on a device whose tensors have values; nothing is counted."""

    def __init__(self, case: Case, device: torch.device, *, compiles: bool) -> None:
        super().__init__(case, device)
        self._context = lambda counted: contextlib.nullcontext()
        self.compiles, self.told = compiles, []

    def _give_values(self, network: nn.Module) -> None:
        for part in (*network.parameters(), *network.buffers()):
            if part.is_floating_point():
                part.data.copy_(torch.empty(part.shape, device=part.device).normal_(std=0.02))

    def _copies(self) -> Any:
        found = copies_for(self.device)
        return super()._copies() if found is None else found

    def _compiler(self) -> Compiler | None:
        return Compiler(tell=self.told.append) if self.compiles else None


def step_figures(case: Case, device: torch.device, *, compiles: bool) -> dict[str, Any]:
    """Seconds of the steps and of the first one, and bytes at the peak."""
    on_card, seconds = device.type == "cuda", []
    training = Timed(case, device, compiles=compiles)
    with training.running():
        for number in range(WARM_UP + (3 if case.small else STEPS)):
            if on_card and number == WARM_UP:
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            training.step()
            if on_card:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() if on_card else 0
    steady = sorted(seconds[WARM_UP:])
    p10, p90 = (steady[int(share * (len(steady) - 1))] for share in (0.1, 0.9))
    median = statistics.median(steady)
    return {"median": median, "p10": p10, "p90": p90, "first": seconds[0], "peak": peak, "told": training.told}


def beside_core(network: str, *, steps: int) -> dict[str, float]:
    """Median seconds of a step of each side on a small network, in which each side's own work weighs most."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(network, Path(folder), clock=_on_the_device)
        for title, variant in SIDES.items():
            found[title] = statistics.median(stage.train(variant, steps=steps).seconds)
    return found


def _on_the_device() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class _Cancelling(Hooks):
    """Cancels before the step after `at`; knows how often pictures were drawn."""

    def __init__(self, at: int = -1) -> None:
        self._at, self._step, self.drawn = at, 0, 0

    def check_cancel(self) -> None:
        if self._step == self._at:
            raise KeyboardInterrupt

    def after_step(self, step: int) -> None:
        self._step = step

    def on_drawing(self, step: int, *, done: int, count: int) -> None:
        self.drawn += done == count


def cancelled_training(family: str) -> dict[str, Any]:
    """How far a training that was cancelled and went on ends from one that was not, relative to its factors."""
    request = make_request(family, make_cache(family), steps=6)
    request = dataclasses.replace(request, samples=make_samples(family))
    whole, first, second = _Cancelling(), _Cancelling(3), _Cancelling()
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other, torch.inference_mode():
        truth = train_lora(request, runs=Path(one), hooks=whole, report=lambda _: None).tensors
        with contextlib.suppress(KeyboardInterrupt):
            train_lora(request, runs=Path(other), hooks=first, report=lambda _: None)
        found = train_lora(request, runs=Path(other), hooks=second, report=lambda _: None).tensors
    apart = max(float((found[name] - truth[name]).abs().max() / truth[name].abs().max()) for name in truth)
    return {"apart": apart, "pictures": [whole.drawn, first.drawn, second.drawn]}


if __name__ == "__main__":
    main()
