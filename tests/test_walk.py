"""The way of a sample in ARCHITECTURE.md: a real picture goes from its file to its gradient, its stops are watched."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.folders import anywhere
from harness.models import HashedText, small_model
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.host.model.encoders import VaeEncoder
from masklora.host.training import Request, train_lora
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    DatasetSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from masklora.training.job import Hooks

ROOT = Path(__file__).resolve().parents[1]
STOP = re.compile(r"^\| (\d+) \| `([\w/]+\.py)` `([\w.]+)` \|", re.M)
MOST_STOPS = 12


def stops():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return [(f"masklora/{file}", name) for _, file, name in STOP.findall(text)]


def test_the_page_names_few_stops_that_are_there():
    found = stops()
    assert 8 <= len(found) <= MOST_STOPS and len(set(found)) == len(found)
    for file, name in found:
        assert f"def {name.rpartition('.')[2]}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)


def take_one_picture_through(folder):
    """One step of a training on one picture with mask and caption, from the folder that holds them."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "cat.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 10:50] = 255
    Image.fromarray(mask).save(folder / "cat_mask.png")
    (folder / "cat.txt").write_text("a cat", encoding="utf-8")
    cache = build_cache(
        load_dataset(DatasetSettings(folder=str(folder)), allowed=anywhere),
        CacheSettings(resolution=64, bucket_step=16, storage="memory", infill_variants=0, variants=1),
        encoder=VaeEncoder(small_vae("sd3")),
        text=HashedText("sd3"),
    )
    request = Request(
        model=small_model("sd3"),
        cache=cache,
        loss=LossSettings(prior_weight=0.0),
        adapter=AdapterSettings(rank=4, alpha=2.0),
        optimizer=OptimizerSettings(learning_rate=1e-3),
        train=TrainSettings(steps=1, name="walk", leak_every=-1),
    )
    return train_lora(request, runs=folder / "runs", hooks=Hooks(), report=lambda finding: None)


@pytest.fixture
def entered(tmp_path):
    """The stops in the order in which they were entered; one that follows itself counts once."""
    wanted = {(str(ROOT / file), name): (file, name) for file, name in stops()}
    seen, counting = [], []

    def watch(frame, event, _):
        # The plan of the memory runs a step on tensors without data, which is no sample's.
        if frame.f_code.co_name == "count_step" and event in ("call", "return"):
            counting[:] = [frame] if event == "call" else []
        if event == "call" and not counting:
            stop = wanted.get((frame.f_code.co_filename, qualified(frame)))
            # A MODEL's sampling is tried with made-up numbers, which are no sample.
            tried = Path(frame.f_back.f_code.co_filename).stem == "sampling_schedule"
            if stop and not tried and seen[-1:] != [stop]:
                seen.append(stop)

    with torch.autograd.set_multithreading_enabled(False):
        sys.setprofile(watch)
        try:
            trained = take_one_picture_through(tmp_path)
        finally:
            sys.setprofile(None)
    assert trained.result.steps == 1
    return seen


def qualified(frame):
    """A function's name with its class's; `co_qualname` came with Python 3.11."""
    name = getattr(frame.f_code, "co_qualname", None)
    if name is not None:
        return name
    owner = frame.f_locals.get("self", frame.f_locals.get("ctx"))
    return f"{type(owner).__name__}.{frame.f_code.co_name}" if owner is not None else frame.f_code.co_name


def test_a_sample_enters_the_stops_of_the_page_in_their_order_and_none_again(entered):
    assert entered == stops()
