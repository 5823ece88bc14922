"""Whole trainings with adapters of every kind: resumed, continued, exported, refused."""

import dataclasses
import json

import comfy.sd
import pytest
import safetensors.torch
import torch
from comfy.model_management import InterruptProcessingException
from safetensors import safe_open

from harness.damage import ALL
from harness.models import small_model
from harness.training import Caches, CancelAt, make_request
from masklora.errors import AdapterError, ConfigError, RunError
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.training import train_lora
from masklora.runs.record import kept_lora
from masklora.settings import ExportSettings, OptimizerSettings
from masklora.training.job import Hooks

KINDS = {
    "lokr": {"algorithm": "lokr", "lokr_factor": 4},
    "loha": {"algorithm": "loha"},
    "full": {"full_layers": "qkv|head|time_embed|img_in|x_embedder"},
    "ranks": {"rank_by_layer": "blocks 0: 6, others 2"},
    "lora": {"algorithm": "lora"},
    "tlora": {"algorithm": "tlora", "least_rank": 1},
    "dora": {"algorithm": "dora"},
}
# Those that are products of two factors, and are so in every format.
PLAIN = ("ranks", "lora", "tlora")
FAMILIES = ("sd15", "flux", "z_image", "wan")
CASES = [(f, k) for f in FAMILIES for k in KINDS] if ALL else [("flux", "lokr"), ("wan", "full")]


@pytest.fixture(scope="module")
def caches():
    return Caches()


def run(request, folder, hooks=None):
    return train_lora(request, runs=folder, hooks=hooks or Hooks(), report=lambda text: None)


def asked(family, caches, kind, **train):
    request = make_request(family, caches[family], **train)
    changes = dict(KINDS[kind])
    if kind == "ranks" and family == "sd15":
        # Its first block has no layer that is trained by default.
        changes["rank_by_layer"] = "blocks 0-3: 6, others 2"
    adapter = dataclasses.replace(request.adapter, **changes, convolutions=family == "sd15")
    optimizer = OptimizerSettings(learning_rate=1e-2, ema_decay=0.5)
    return dataclasses.replace(request, adapter=adapter, optimizer=optimizer)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_cancelled_training_goes_on_bit_for_bit_and_its_file_loads_whole(family, kind, caches, tmp_path, caplog):
    straight = run(asked(family, caches, kind, steps=4), tmp_path / "straight")
    request = asked(family, caches, kind, steps=4)
    before = {k: v.clone() for k, v in request.model.model.state_dict().items()}
    with pytest.raises(InterruptProcessingException):
        run(request, tmp_path / "cut", CancelAt(2))
    resumed = run(request, tmp_path / "cut")
    after = request.model.model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], before[k]) for k in before)
    assert resumed.result.resumed_from == 2
    assert all(torch.equal(value, resumed.tensors[key]) for key, value in straight.tensors.items())
    # A checkpoint without its model, and the file that ComfyUI's loader is given.
    if kind == "dora":
        with pytest.raises(RunError, match="magnitudes of a DoRA can only be written together with the model"):
            kept_lora(resumed.result.folder, None)
    else:
        kept = kept_lora(resumed.result.folder, None).tensors
        assert list(kept) == list(straight.tensors)
        assert all(torch.equal(kept[key], straight.tensors[key]) for key in kept)
    lora = LoraTensors(resumed)
    (path,) = export_lora(lora, tmp_path / "lora", ExportSettings())
    with caplog.at_level("WARNING"):
        loaded, _ = comfy.sd.load_lora_for_models(request.model, None, safetensors.torch.load_file(path), 1.0, 0.0)
    assert "not loaded" not in caplog.text
    names = {f"diffusion_model.{name}.weight" for name in resumed.factors}
    assert names <= set(loaded.patches) and all(key.endswith((".weight", ".bias")) for key in loaded.patches)
    if kind not in (*PLAIN, "dora") and resumed.names.diffusers:
        with pytest.raises(AdapterError, match="format: diffusers"):
            export_lora(lora, tmp_path / "other", ExportSettings(format="diffusers"))


@pytest.mark.parametrize(("family", "kind"), [c for c in CASES if c[1] not in (*PLAIN, "dora")] if ALL else CASES[:1])
def test_a_training_begins_with_the_change_of_a_file_and_says_what_is_in_it(family, kind, caches, tmp_path):
    request = asked(family, caches, kind, steps=2)
    trained = run(request, tmp_path / "first")
    (path,) = export_lora(LoraTensors(trained), tmp_path / "start", ExportSettings(dtype="float32"))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    args = json.loads(metadata["ss_network_args"])
    assert args == {"lokr": {"algo": "lokr", "factor": 4}, "loha": {"algo": "loha"}}.get(kind, {"algo": "lora"})
    assert metadata["ss_network_module"] == ("networks.lora" if kind == "full" else "lycoris.kohya")
    still = OptimizerSettings(learning_rate=1e-30, weight_decay=0.0)
    other = dataclasses.replace(request.adapter, alpha=1.0)
    onward = run(dataclasses.replace(request, start_from=path, optimizer=still, adapter=other), tmp_path / "onward")
    for name, learned in trained.factors.items():
        assert learned.delta().any()
        assert torch.allclose(onward.factors[name].delta(), learned.delta(), rtol=1e-4, atol=1e-7), name
    plain = dataclasses.replace(request.adapter, algorithm="lora", full_layers="")
    with pytest.raises(AdapterError, match=r"start_from: .* Set algorithm to|Name it in full_layers|no targets? here"):
        run(dataclasses.replace(request, start_from=path, adapter=plain), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_model_in_float8_trains_every_kind_and_stays_as_it_is(caches, tmp_path):
    for kind in ("lokr", "loha", "full") if ALL else ("loha",):
        model = small_model("flux", dtype=torch.float8_e4m3fn)
        before = {k: v.clone() for k, v in model.model.state_dict().items()}
        trained = run(dataclasses.replace(asked("flux", caches, kind, steps=2), model=model), tmp_path / kind)
        after = model.model.state_dict()
        assert all(torch.equal(after[k].view(torch.uint8), v.view(torch.uint8)) for k, v in before.items())
        assert all(bool(torch.isfinite(t).all()) for t in trained.tensors.values())
        assert all(learned.delta().any() for learned in trained.factors.values())


def test_what_is_no_setting_of_theirs_is_refused_before_a_run_is_made(caches, tmp_path):
    request = asked("flux", caches, "lokr")
    plus = dataclasses.replace(request, optimizer=OptimizerSettings(learning_rate=1e-3, lora_plus_ratio=16.0))
    with pytest.raises(ConfigError, match="lora_plus_ratio: lokr has no second factor"):
        run(plus, tmp_path / "runs")
    for widget, value in (("rank_by_layer", "blocks 99: 4"), ("full_layers", "nothing_like_it")):
        wrong = dataclasses.replace(request, adapter=dataclasses.replace(request.adapter, **{widget: value}))
        with pytest.raises(AdapterError, match=f"{widget}: "):
            run(wrong, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
