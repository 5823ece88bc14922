"""Text encoders learn what diffusers, transformers and PEFT teach them: the same networks, captions and steps."""

import comfy.model_management
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.mapping import inject_adapter_in_model
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from harness.damage import ALL
from harness.diffusers_models import diffusers_models
from harness.text_encoders import model_for, trained_clip
from masklora.dataset.geometry import Geometry
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.encoders import ClipTextEncoder
from masklora.host.model.trainable import TrainableModel
from masklora.host.texts.parts import text_request
from masklora.host.texts.trained import TrainedTexts
from masklora.loss.noise import add_noise, target
from masklora.settings import AdapterSettings, OptimizerSettings, TextEncoderSettings
from masklora.training.weights import Weights

# Twenty are many for a usual run.
STEPS, RANK, ALPHA, RATE = 20 if ALL else 4, 4, 3.0, 1e-3
CAPTIONS = ("a photo of zwx on grass", "a red thing, seen from the side, and a good many words more")
GEOMETRY = Geometry(source=(200, 150), resized=(128, 96), crop=(24, 16, 96, 64))
TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
FAMILIES = ("sd15", "sdxl", "sd3") if ALL else ("sd15",)
ACTIVATION = {"clip_l": "quick_gelu", "clip_g": "gelu"}


class NoCache:
    mend = None


def the_clip(family):
    """That of SD 3 with its T5, which is not trained but read."""
    return trained_clip(family, t5=family == "sd3")


def batches(channels):
    g = torch.Generator().manual_seed(5)
    for _ in range(STEPS):
        latent, noise = (torch.randn(2, channels, 8, 12, generator=g) for _ in range(2))
        yield latent, noise, torch.randint(50, 950, (2,), generator=g)


def ours(family, clip):
    """What the encoders' adapters are before the first and after the last step, by name."""
    trainable, geometries = TrainableModel(model_for(family)), [GEOMETRY] * 2
    known = ClipTextEncoder(clip).encode(list(CAPTIONS))
    asked = text_request(clip, TextEncoderSettings(learning_rate=RATE, rank=RANK, alpha=ALPHA))
    texts = TrainedTexts(
        asked, AdapterSettings(rank=1, alpha=1.0), seed=0, captions=dict(enumerate(CAPTIONS)), trigger=""
    )
    adapters = trainable.make_adapters(AdapterSettings(rank=1, alpha=1.0), seed=0)
    model = AdaptedModel(trainable, adapters, texts)
    before = {name: p.detach().clone() for name, p in texts.params.items()}
    # The model's own adapters stay at zero.
    optim = OptimizerSettings(learning_rate=1e-30, clip_norm=0.0, weight_decay=0.01)
    weights = Weights(model, optim, parts=texts.parts(RATE))
    with texts.alone(NoCache()):
        comfy.model_management.load_models_gpu([trainable.patcher, texts.patcher])
        with trainable.session(adapters), texts.session():
            for latent, noise, steps in batches(trainable.channels):
                weights.begin()
                u = steps / 1000
                noisy = add_noise(latent, noise, u, schedule=trainable.schedule)
                with model.autograd_scope():
                    conds = model.collate(known, geometries, latent.shape[1:], keys=range(2))
                    wanted = target(latent, noise, u, schedule=trainable.schedule)
                    weights.backward(F.mse_loss(model.denoise(noisy, u, conds), wanted))
                weights.clip()
                weights.update(STEPS)
                weights.settle()
    return before, {name: p.detach().clone() for name, p in texts.params.items()}


def their_encoder(family, name, ours):
    """transformers' network of one of ComfyUI's encoders, with PEFT's adapters."""
    projected = name == "clip_g" or family == "sd3"
    width = ours.get_input_embeddings().weight.shape[1]
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_act=ACTIVATION[name],
        projection_dim=width,
    )
    network = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
    state = {key: value.clone() for key, value in ours.state_dict().items()}
    if family == "sd3" and name == "clip_l":
        # As diffusers makes it of the published file, and ComfyUI leaves out.
        state["text_projection.weight"] = torch.eye(width)
    needed = network.state_dict()
    found = {key: state.get(key, state.get(f"text_model.{key}")) for key in needed if not key.endswith("position_ids")}
    network.load_state_dict(found, strict=False)
    network.requires_grad_(False).eval()
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS)
    return inject_adapter_in_model(config, network)


def name_of(encoder, parameter):
    """Our name of one of PEFT's parameters."""
    layer, _, kind = parameter.partition(".lora_")
    return f"text_encoder.{encoder}.transformer.text_model.{layer.removeprefix('text_model.')}.lora_{kind[0]}"


def read_by(family, encoders, tokens, t5):
    """What diffusers' pipeline gives its network of the captions: its keywords."""
    read = {}
    for name, network in encoders.items():
        ids = torch.tensor([[token for token, _ in text[name[-1]][0]] for text in tokens])
        read[name] = network(input_ids=ids, output_hidden_states=True)
    if family == "sd15":
        return {"encoder_hidden_states": read["clip_l"].last_hidden_state}
    both = torch.cat([read[name].hidden_states[-2] for name in ("clip_l", "clip_g")], dim=-1)
    if family == "sd3":
        cond = torch.cat([F.pad(both, (0, t5.shape[-1] - both.shape[-1])), t5], dim=1)
        pooled = torch.cat([read[name].text_embeds for name in ("clip_l", "clip_g")], dim=-1)
        return {"encoder_hidden_states": cond, "pooled_projections": pooled}
    sizes = torch.tensor([[150, 200, 16, 24, 64, 96]] * 2)
    more = {"text_embeds": read["clip_g"].text_embeds, "time_ids": sizes}
    return {"encoder_hidden_states": both, "added_cond_kwargs": more}


def theirs(family, clip, before):
    """The same, learned by diffusers' network, transformers' encoders and PEFT's adapters."""
    network = diffusers_models()[family].filled(model_for(family).model)
    encoders = {
        name: their_encoder(family, name, getattr(clip.cond_stage_model, name).transformer)
        for name in ACTIVATION
        if getattr(clip.cond_stage_model, name, None) is not None
    }
    trained = {}
    for encoder, text_network in encoders.items():
        for name, p in text_network.named_parameters():
            if p.requires_grad:
                trained[name_of(encoder, name)] = p
                with torch.no_grad():
                    p.copy_(before[name_of(encoder, name)])
    assert trained.keys() == before.keys()
    tokens = [clip.tokenize(caption) for caption in CAPTIONS]
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.01)
    trainable = TrainableModel(model_for(family))
    with torch.no_grad():
        t5 = torch.cat([text["cond"][:, 77:] for text in ClipTextEncoder(clip).encode(list(CAPTIONS))])
    for latent, noise, steps in batches(trainable.channels):
        texts = read_by(family, encoders, tokens, t5)
        if family == "sd3":
            u = (steps / 1000).view(-1, 1, 1, 1)
            noisy, wanted = (1 - u) * latent + u * noise, noise - latent
        else:
            noisy, wanted = add_noise(latent, noise, steps / 1000, schedule=trainable.schedule), noise
        loss = F.mse_loss(network(noisy, timestep=steps, **texts).sample, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: p.detach() for name, p in trained.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_after_some_steps_the_encoders_adapters_are_those_of_diffusers_and_peft(family):
    clip = the_clip(family)
    before, found = ours(family, clip)
    wanted = theirs(family, clip, before)
    change = torch.cat([(wanted[name] - before[name]).flatten() for name in before])
    apart = torch.cat([(found[name] - wanted[name]).flatten() for name in before])
    assert change.norm() > 0.05
    assert apart.norm() <= 1e-5 * torch.cat([wanted[name].flatten() for name in before]).norm()
