"""Whole trainings with routed and hidden tokens on ComfyUI's classes, and what is refused before they begin."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from harness.models import HashedText, small_model, with_padding
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images
from masklora.errors import ConfigError
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.model.encoders import VaeEncoder
from masklora.host.training import Request, train_lora
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    DatasetSettings,
    ExportSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from masklora.training.job import Hooks

ALL = LossSettings(attention_mask=True, text_padding_mask=True, routes="0.75: 1..-2", prior_weight=0.5)


class PaddedText(HashedText):
    """Captions whose second half is padding."""

    def encode(self, texts):
        return [with_padding(values, real=20) for values in super().encode(texts)]


def make_cache(family, text):
    """Pictures of 64 tokens, at most 16 of them in a mask: with a quarter of the others 28, rounded up to 32."""
    rng = np.random.default_rng(0)
    images = [rng.random((128, 128, 3), dtype=np.float32) for _ in range(3)]
    masks = [np.zeros((128, 128), np.float32) for _ in images]
    for i, mask in enumerate(masks):
        mask[16 : 32 + 24 * i, 32:96] = 1.0
    return build_cache(
        from_images(images, masks, [f"a thing {i}" for i in range(3)], DatasetSettings()),
        CacheSettings(resolution=128, bucket_step=16, storage="memory", infill_variants=0),
        encoder=VaeEncoder(small_vae(family)),
        text=text(family),
    )


def request(family, loss, *, text=PaddedText, **train):
    sizes = {"sd3": {"depth": 4}}.get(family, {})
    return Request(
        model=small_model(family, **sizes),
        cache=make_cache(family, text),
        loss=loss,
        adapter=AdapterSettings(rank=4, alpha=2.0),
        optimizer=OptimizerSettings(learning_rate=1e-3),
        train=TrainSettings(**{"steps": 6, "batch_size": 2, "name": "probe", **train}),
    )


class Told(Hooks):
    def __init__(self, stop_at=None):
        self.stop_at, self.steps, self.messages = stop_at, 0, []

    def after_step(self, step):
        self.steps = step

    def should_stop(self):
        return self.steps == self.stop_at

    def on_message(self, text):
        self.messages.append(text)


def run(wanted, folder, hooks=None):
    return train_lora(wanted, runs=folder, hooks=hooks or Hooks(), report=lambda text: None)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_run_with_routed_and_hidden_tokens_goes_on_bit_for_bit_and_tells_what_it_kept(family, tmp_path):
    hooks = Told()
    straight = run(request(family, ALL), tmp_path / "straight", hooks)
    assert not run(request(family, ALL), tmp_path / "halves", Told(stop_at=3)).result.completed
    resumed = run(request(family, ALL), tmp_path / "halves")
    assert resumed.result.resumed_from == 3 and resumed.result.losses == straight.result.losses
    assert all(torch.equal(value, resumed.tensors[key]) for key, value in straight.tensors.items())
    (line,) = [m for m in hooks.messages if m.startswith("token routing")]
    assert line == "token routing: 50 % of 64 tokens kept in blocks 1 to 2."
    with safe_open(export_lora(LoraTensors(straight), tmp_path / "lora", ExportSettings())[0], "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["masklora.loss"])["routes"] == ALL.routes
    assert json.loads(metadata["masklora.summary"])["kept_tokens"] == {"16×16": [0.5]}


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_every_switch_alone_changes_what_is_learned_and_its_off_position_changes_nothing(family, tmp_path):
    changes = [
        {},
        {"attention_mask": True},
        {"text_padding_mask": True},
        {"routes": ALL.routes},
        {"routes": "0: 0..-1"},
    ]
    found = [
        run(request(family, LossSettings(**change), steps=2), tmp_path / str(i)).result.losses
        for i, change in enumerate(changes)
    ]
    plain, *others, nothing_dropped = found
    assert plain == nothing_dropped
    assert len({tuple(losses) for losses in [plain, *others]}) == 4


@pytest.mark.parametrize("mode", ["off", "whole model"])
def test_routed_runs_learn_alike_in_every_checkpointing_mode(mode, tmp_path):
    blocks = run(request("flux", ALL, steps=3), tmp_path / "blocks").result
    other = run(request("flux", ALL, steps=3, checkpointing=mode), tmp_path / "other").result
    assert other.losses == pytest.approx(blocks.losses, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"routes": "0.5: 1..2"}, r"^routes: .*U-Net.*masked crop"),
        ({"attention_mask": True}, r"^attention_mask: .*U-Net.*masked crop"),
        ({"text_padding_mask": True}, r"^text_padding_mask: .*U-Net.*Switch it off"),
    ],
)
def test_u_nets_have_no_tokens_and_say_so_before_a_run_is_made(change, remedy, tmp_path):
    with pytest.raises(ConfigError, match=remedy):
        run(request("sd15", LossSettings(**change)), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_routes_beyond_the_model_and_captions_without_padding_are_refused_before_a_run_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"'0\.5: 1\.\.9' names block 9, but this FLUX\.1 model has 4 blocks, 0 to 3"):
        run(request("flux", LossSettings(routes="0.5: 1..9")), tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"^text_padding_mask: .*Cache Dataset"):
        run(request("flux", LossSettings(text_padding_mask=True), text=HashedText), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_with_another_route_is_another_run(tmp_path):
    wanted = request("sd3", LossSettings(), steps=1)
    losses = [LossSettings(), LossSettings(routes="0.75: 1..2"), LossSettings(attention_mask=True)]
    folders = {run(dataclasses.replace(wanted, loss=loss), tmp_path).result.folder for loss in losses}
    assert len(folders) == 3
