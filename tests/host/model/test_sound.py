"""A network that takes sound beside the picture, and one sample at a time: pictures go in alone and without sound."""

import pytest
import torch

from harness.models import small_model, small_text
from harness.training import make_cache, make_request
from masklora.dataset.geometry import Geometry
from masklora.errors import ConfigError
from masklora.host.model.core_call import CoreCall
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import train_lora
from masklora.loss.tokens import Passage, TokenPlan
from masklora.settings import AdapterSettings
from masklora.training.job import Hooks

SQUARE = Geometry(source=(128, 128), resized=(128, 128), crop=(0, 0, 128, 128))
SHAPE = (24, 8, 8)
LEVELS = torch.tensor([0.3, 0.8])


@pytest.fixture
def trainable():
    return TrainableModel(small_model("minimax_h3"))


@pytest.fixture
def noisy():
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))


def text(tokens=9, seed=0):
    """One whose first four tokens stand for a picture that it shows, to the network another kind."""
    made = small_text("minimax_h3", tokens=tokens, seed=seed)
    made["minimax_token_tags"][:4] = 0
    return made


def given_to(module):
    """What the module is called with from now on."""
    calls = []
    module.register_forward_pre_hook(lambda _, args: calls.append([a.clone() if a is args[0] else a for a in args]))
    return calls


@torch.no_grad()
def test_pictures_go_in_one_by_one_without_sound_also_where_they_share_a_caption(trainable, noisy, monkeypatch):
    shapes = []
    forward = trainable.network.forward
    note = lambda x, *args, **kwargs: shapes.append([tuple(part.shape) for part in x]) or forward(x, *args, **kwargs)  # noqa: E731
    monkeypatch.setattr(trainable.network, "forward", note)
    one = trainable.collate([text()], [SQUARE], SHAPE)
    both = trainable.denoise(noisy, LEVELS, one * 2)
    assert shapes == [[(1, 24, 1, 8, 8), (1, 32, 2, 0)]] * 2
    alone = [trainable.denoise(noisy[i : i + 1], LEVELS[i : i + 1], one) for i in (0, 1)]
    assert both.shape == noisy.shape and torch.equal(both, torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_a_sound_that_lasts_is_silence_and_what_is_answered_of_it_is_dropped(trainable, noisy, dtype):
    (conds,) = trainable.collate([text()], [SQUARE], SHAPE)
    picture, t = noisy[:1, :, None].to(dtype), torch.tensor([300.0])
    shapes = [picture.shape, torch.Size((1, 32, 2, 3))]
    found = CoreCall(trainable.model, torch.float32)(
        picture, t, transformer_options={}, **conds | {"latent_shapes": shapes}
    )
    parts = [picture.float(), torch.zeros(1, 32, 2, 3)]
    wanted, _ = trainable.network(parts, t, conds["c_crossattn"], minimax_payload=conds["minimax_payload"])
    assert torch.equal(found.float(), wanted)


@torch.no_grad()
def test_a_routed_block_does_with_the_kept_tokens_what_it_would_with_their_own_runs(trainable, noisy):
    _, routed, after = trainable.network.blocks
    before, there = given_to(routed), given_to(after)
    kept = torch.tensor([[0, 3, 5, 6, 11, 15]])
    conds = trainable.collate([text()], [SQUARE], SHAPE)
    trainable.denoise(noisy[:1], LEVELS[:1], conds, tokens=TokenPlan(16, (Passage(1, 1, kept),)))
    ((tokens, t_emb, runs, table, *_),), ((found, *_),) = before, there
    assert [run[:2] for run in runs] == [(0, 4), (4, 9), (9, 9), (9, 25)] and len({run[2] for run in runs}) == 3
    stay = torch.cat([torch.arange(9), 9 + kept[0]])
    ends = [(0, 4), (4, 9), (9, 9), (9, 15)]
    shorter = [(*end, run[2]) for end, run in zip(ends, runs, strict=True)]
    wanted = tokens.clone()
    wanted[stay] = routed(tokens[stay], t_emb, shorter, table[:, stay])
    assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-6) and not torch.allclose(tokens[stay], wanted[stay])


@pytest.mark.parametrize(("batch", "told"), [(1, 0), (2, 1)])
def test_a_person_is_told_where_the_samples_of_a_batch_cannot_go_together(batch, told, tmp_path):
    found = []
    request = make_request("minimax_h3", make_cache("minimax_h3"), steps=1, batch_size=batch)
    with torch.inference_mode():
        train_lora(request, runs=tmp_path, hooks=Hooks(), report=lambda finding: found.append(finding.text))
    note = "MiniMax H3 takes one sample at a time, so the samples of a batch run one after another"
    assert sum(note in text for text in found) == told


@pytest.mark.parametrize(("name", "include"), [("minimax_h3", "token_refiner"), ("ltxav", "embeddings_connector")])
def test_layers_that_texts_pass_before_the_step_are_refused_by_name(name, include):
    """They would have the graph of one step's texts in the next."""
    trainable = TrainableModel(small_model(name))
    adapters = trainable.make_adapters(AdapterSettings(rank=1, alpha=1.0, include=include), seed=0)
    shape = (trainable.channels, 8, 8)
    with trainable.session(adapters), pytest.raises(ConfigError, match=rf"^targets, include: .*{include}.*exclude"):
        trainable.collate([small_text(name, tokens=9)], [SQUARE], shape)
