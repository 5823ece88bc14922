"""Exports of another rank and of own strengths: ComfyUI applies what was asked, of checkpoints and two models too."""

import dataclasses
import json

import comfy.lora
import comfy.sd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from harness.damage import ALL
from harness.models import small_model
from harness.training import Caches, make_request
from masklora.errors import AdapterError, ConfigError
from masklora.host.exporting import KeptTensors, LoraTensors, export_lora
from masklora.host.reshaping import reshaped
from masklora.host.training import train_lora
from masklora.runs.record import kept_lora
from masklora.settings import ExportSettings, OptimizerSettings
from masklora.training.job import Hooks

FAMILIES = ["sd15", "flux", "z_image", "wan"] if ALL else ["flux"]


@pytest.fixture(scope="module")
def caches():
    return Caches()


@pytest.fixture(scope="module")
def trained(caches, tmp_path_factory):
    made = {}

    def of(family, **adapter):
        key = family, *adapter.values()
        if key not in made:
            request = make_request(family, caches[family])
            if "low" in adapter:
                turns = dataclasses.replace(request.train, steps=4, switch_experts_every=1)
                request = dataclasses.replace(request, model_low=other_model(family), train=turns)
                adapter = {}
            request = dataclasses.replace(request, adapter=dataclasses.replace(request.adapter, **adapter))
            request = dataclasses.replace(request, optimizer=OptimizerSettings(learning_rate=1e-2))
            folder = tmp_path_factory.mktemp("runs")
            made[key] = train_lora(request, runs=folder, hooks=Hooks(), report=lambda found: None)
        return made[key]

    return of


def other_model(family):
    model = small_model(family)
    with torch.no_grad():
        for parameter in model.model.diffusion_model.parameters():
            parameter.mul_(0.9)
    return model


def applied(family, tensors):
    """{layer: change of its weight} as ComfyUI's loader makes it."""
    model = small_model(family)
    patched, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), 1.0, 0.0)
    weights, found = model.model.state_dict(), {}
    for key, patches in patched.patches.items():
        weight = weights[key].float()
        name = key.removeprefix("diffusion_model.").removesuffix(".weight")
        found[name] = comfy.lora.calculate_weight(patches, weight.clone(), key) - weight
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_has_the_lower_rank_and_the_strengths_and_tells_what_it_lost(family, trained, tmp_path):
    lora = trained(family)
    # The first block of a U-Net has no layer that is trained by default.
    number = next(
        i for i, block in enumerate(lora.blocks) if any(name.startswith(f"{block}.") for name in lora.factors)
    )
    assert number == (family == "sd15")
    text = f"blocks {number}: 0.5, others -1"
    asked = ExportSettings(new_rank=2, block_strengths=text, dtype="float32")
    made, told = reshaped(LoraTensors(lora), asked)
    (path,) = export_lora(made, tmp_path / "small", asked)
    found, first = applied(family, load_file(path)), f"{lora.blocks[number]}."
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    kept = json.loads(metadata["masklora.reshaped"])
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "2" and kept["block_strengths"] == text
    assert found.keys() == lora.factors.keys()
    lost = whole = 0.0
    for name, factors in lora.factors.items():
        wanted = factors.delta() * (0.5 if name.startswith(first) else -1)
        error = float((found[name].reshape(wanted.shape) - wanted).norm() / wanted.norm())
        assert torch.linalg.matrix_rank(found[name].flatten(1), rtol=1e-4) <= 2
        assert error == pytest.approx(kept["errors"][name], rel=1e-2, abs=1e-5)
        lost, whole = lost + float(wanted.norm() * error) ** 2, whole + float(wanted.norm()) ** 2
    assert 0 < (lost / whole) ** 0.5 == pytest.approx(kept["error"], rel=1e-3)
    assert told[0].text.startswith("block_strengths: ") and "at -1. They are part of the file" in told[0].text
    assert f"from rank 4 to 2. The change of the weights is {kept['error']:.2%} off in all" in told[1].text


def test_a_checkpoint_is_changed_as_the_training_is(trained, tmp_path):
    lora = trained("flux")
    asked = ExportSettings(keep_energy=0.9, block_strengths="blocks 0: 0.5")
    kept = KeptTensors(kept_lora(lora.result.folder, None))
    (one, _), (other, told) = reshaped(LoraTensors(lora), asked), reshaped(kept, asked)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    paths = [export_lora(each, tmp_path / name, asked)[0] for each, name in ((one, "a"), (other, "b"))]
    assert len({path.read_bytes()[-1000:] for path in paths}) == 1 and "from rank 4 to" in told[1].text


def test_of_a_run_that_did_not_keep_its_blocks_they_are_named_by_their_list(trained):
    kept = dataclasses.replace(kept_lora(trained("flux").result.folder, None), blocks=())
    with pytest.raises(AdapterError, match="block_strengths: this run did not keep the order of its model's blocks"):
        reshaped(KeptTensors(kept), ExportSettings(block_strengths="attn: 1, blocks 0: 0.5"))
    _, told = reshaped(KeptTensors(kept), ExportSettings(block_strengths="double_blocks 0: 0.5"))
    assert "at 0.5" in told[0].text


def test_both_files_of_two_models_are_changed(trained, tmp_path):
    lora = trained("wan", low=True)
    asked = ExportSettings(new_rank=1)
    made, told = reshaped(LoraTensors(lora), asked)
    files = export_lora(made, tmp_path / "both", asked)
    assert len(files) == 2 and [one.text.startswith("model_low: ") for one in told] == [False, True]
    for path in files:
        downs = {len(t) for name, t in load_file(path).items() if name.endswith("lora_down.weight")}
        assert downs == {1}


def test_a_rank_that_is_not_lower_leaves_the_metadata_s_rank_and_alpha(trained):
    lora = trained("flux", alpha=1.0)
    made, told = reshaped(LoraTensors(lora), ExportSettings(new_rank=64))
    assert (made.trained.record.rank, made.trained.record.alpha) == (4, 1.0) == (lora.record.rank, lora.record.alpha)
    assert "from rank 4 to 4. The change of the weights is 0.00% off" in told[0].text


def test_other_kinds_get_strengths_and_what_text_encoders_learned_stays_and_is_told(trained):
    lora = trained("flux", algorithm="lokr", full_layers="final_layer.linear")
    texts = {"lora_te1_x.lora_down.weight": torch.ones(2, 3), "lora_te1_x.alpha": torch.tensor(1.0)}
    lora = dataclasses.replace(lora, tensors=lora.tensors | texts)
    made, told = reshaped(LoraTensors(lora), ExportSettings(block_strengths="final_layer: 0.5, others -0.5"))
    before, after = applied("flux", lora.tensors), applied("flux", made)
    assert before.keys() == after.keys() and "final_layer.linear.bias" in before
    for name, change in before.items():
        factor = 0.5 if name.startswith("final_layer") else -0.5
        assert float((after[name] - change * factor).norm()) <= 1e-3 * float(change.norm()), name
    assert all(torch.equal(made[key], tensor) for key, tensor in texts.items())
    assert "block_strengths: what was learned of the text encoder is written as it was trained" in told[-1].text
    with pytest.raises(AdapterError, match=r"new_rank, keep_energy: what .* is of the kind lokr"):
        reshaped(LoraTensors(lora), ExportSettings(new_rank=2))


@pytest.mark.parametrize("kept", [False, True])
def test_layers_that_are_learned_whole_stay_beside_those_of_a_lower_rank_and_that_is_told(kept, trained, tmp_path):
    lora = trained("flux", full_layers="final_layer.linear|img_in")
    given = KeptTensors(kept_lora(lora.result.folder, None)) if kept else LoraTensors(lora)
    asked = ExportSettings(new_rank=2, dtype="float32")
    made, told = reshaped(given, asked)
    (path,) = export_lora(made, tmp_path / "small", asked)
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata()
    written = load_file(path)
    whole = {key for key in lora.tensors if key.endswith((".diff", ".diff_b"))}
    assert len(whole) == 4 and all(torch.equal(written[key], lora.tensors[key]) for key in whole)
    downs = {key: len(tensor) for key, tensor in written.items() if key.endswith("lora_down.weight")}
    assert set(downs.values()) == {2} and written.keys() == lora.tensors.keys()
    before, after = applied("flux", lora.tensors), applied("flux", written)
    errors = json.loads(metadata["masklora.reshaped"])["errors"]
    assert len(errors) == len(downs) and not errors.keys() & {"final_layer.linear", "img_in"}
    for name, change in before.items():
        error = float((after[name] - change).norm() / change.norm())
        assert error == pytest.approx(errors.get(name, 0.0), rel=1e-2, abs=1e-5), name
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "2"
    assert "from rank 4 to 2. The change" in told[0].text
    assert "2 layers are learned whole and stay as they are, such as " in told[1].text


def test_a_lora_of_nothing_but_whole_layers_has_no_rank_to_lower(trained):
    # All of the targets, too.
    lora = trained("flux", full_layers=".")
    with pytest.raises(AdapterError, match="new_rank, keep_energy: all layers are learned whole"):
        reshaped(LoraTensors(lora), ExportSettings(keep_energy=0.9))


def test_with_nothing_asked_it_stays_what_it_is(trained):
    lora = LoraTensors(trained("flux"))
    assert reshaped(lora, ExportSettings()) == (lora, []) and reshaped(lora, ExportSettings())[0] is lora


def test_what_cannot_be_is_refused(trained):
    lora = trained("flux")
    with pytest.raises(AdapterError, match="block_strengths: it leaves no layer"):
        reshaped(LoraTensors(lora), ExportSettings(block_strengths="others 0"))
    with pytest.raises(ConfigError, match="new_rank: only a LoRA from Train Masked LoRA or Load Run"):
        reshaped(dict(lora.tensors), ExportSettings(new_rank=2))
    dora = trained("flux", algorithm="dora")
    with pytest.raises(AdapterError, match="is a DoRA's"):
        reshaped(LoraTensors(dora), ExportSettings(new_rank=2))
