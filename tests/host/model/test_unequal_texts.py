"""Samples whose texts differ in length: filled up and hidden from attention, they are what each is by itself."""

import functools

import numpy as np
import pytest
import torch

from harness.damage import ALL
from harness.models import HashedText, small_model, small_side, small_text, with_padding
from harness.small import small_models, tried
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.dataset.geometry import Geometry
from masklora.dataset.loading import from_images
from masklora.errors import FamilyError
from masklora.host.families import families
from masklora.host.model.conditioning import TEXT, TEXT_MASK, filled, rows_alike
from masklora.host.model.encoders import VaeEncoder
from masklora.host.model.fitting import batch_notes
from masklora.host.model.trainable import TrainableModel
from masklora.loss.tokens import TokenPlan
from masklora.settings import AdapterSettings, CacheSettings, CaptionSettings, DatasetSettings

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
FILLED = {family.name for family in families() if family.text_fills}
NAMES = [name for name in tried() if small_models()[name].family in FILLED]
LENGTHS = (45, 77, 60)


class Bench:
    """Three samples with texts of unlike length, and adapters that change the output."""

    def __init__(self, name, targets="default"):
        self.name, self.trainable = name, TrainableModel(small_model(name))
        self.adapters = self.trainable.make_adapters(AdapterSettings(rank=2, alpha=2.0, targets=targets), seed=0)
        g = torch.Generator().manual_seed(3)
        for path, p in self.adapters.parameters().items():
            if path.endswith("lora_B"):
                p.data.normal_(0, 0.05, generator=g)
        side = [small_side(self.trainable.family)] * 2
        self.noisy = torch.randn(len(LENGTHS), self.trainable.channels, *side, generator=g)
        self.u = torch.tensor([0.4, 0.7, 0.2])
        self.texts = [small_text(name, tokens=n, seed=s) for s, n in enumerate(LENGTHS)]

    def conditioning(self):
        return self.trainable.collate(self.texts, [SQUARE] * len(self.texts), self.noisy.shape[1:])

    def loss_and_gradient(self, groups, *, mode="per block", plan=None):
        """Of all samples, of which those of a group run together."""
        parameters, losses = list(self.adapters.parameters().values()), []
        total = [torch.zeros_like(p) for p in parameters]
        with self.trainable.session(self.adapters, checkpointing=mode):
            conditioning = self.conditioning()
            for rows in groups:
                with self.trainable.autograd_scope():
                    given = [conditioning[i] for i in rows]
                    tokens = plan and plan.rows(rows)
                    out = self.trainable.denoise(self.noisy[rows], self.u[rows], given, tokens=tokens)
                    losses += out.detach().square().flatten(1).mean(1).tolist()
                    found = torch.autograd.grad(out.square().sum(), parameters, materialize_grads=True)
                    total = [a + b for a, b in zip(total, found, strict=True)]
        return torch.tensor(losses), torch.cat([g.flatten() for g in total])


@pytest.fixture(scope="module")
def benches():
    return functools.cache(Bench)


def apart(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


def alike(bench, **how):
    """How far loss and gradient of the samples together lie from those of each by itself."""
    together, alone = bench.loss_and_gradient([[0, 1, 2]], **how), bench.loss_and_gradient([[0], [1], [2]], **how)
    return max(apart(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("mode", ["per block", "off", "whole model"] if ALL else ["per block"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_of_unequal_texts_together_are_those_of_each_by_itself(name, mode, benches):
    bench = benches(name)
    assert len(bench.trainable._groups(bench.conditioning())) == 1
    assert alike(bench, mode=mode) <= 1e-6


@pytest.mark.parametrize("name", NAMES if ALL else ["krea2"])
def test_so_they_are_where_every_layer_has_an_adapter(name, benches):
    """Also in what looks at texts alone."""
    assert alike(benches(name, "all")) <= 1e-6


def test_what_fills_a_text_would_be_seen_without_a_mask(benches, monkeypatch):
    """Guards the comparison: the samples' texts matter to it."""
    from masklora.host.model import trainable

    monkeypatch.setattr(trainable, "filled", lambda conditioning: (filled(conditioning)[0], None))
    assert alike(benches("qwen_image")) > 1e-3


def test_cross_attention_that_is_not_handed_the_mask_of_the_texts_is_an_error(monkeypatch):
    """Though the blocks of the text alone have asked for theirs."""
    from masklora.host.model import token_routing

    monkeypatch.setattr(token_routing, "_of_text", lambda layer, inner: None)
    with pytest.raises(FamilyError, match=r"^attention_mask, text_padding_mask, batch_size: .*does not hand the masks"):
        Bench("kandinsky5").loss_and_gradient([[0, 1, 2]])


def test_texts_are_filled_up_beside_hidden_image_tokens_and_an_encoder_s_own_padding():
    bench = Bench("flux")
    bench.texts = [with_padding(text, real=n // 2) for text, n in zip(bench.texts, LENGTHS, strict=True)]
    tokens = bench.trainable.tokens_of(bench.noisy.shape[2:])
    visible = torch.rand(len(LENGTHS), tokens, generator=torch.Generator().manual_seed(1)) > 0.3
    assert alike(bench, plan=TokenPlan(tokens, visible=visible, text_padding=True)) <= 1e-6


def conds(length, **more):
    return {TEXT: torch.ones(1, length, 4), **more}


def test_texts_of_one_length_are_left_as_they_are():
    given = [conds(3), conds(3)]
    found, seen = filled(given)
    assert found is given and seen is None


def test_what_fills_a_text_is_zero_and_not_seen_and_marked_as_padding():
    given = [conds(n, attention_mask=torch.ones(1, n), **{TEXT_MASK: torch.ones(1, n, dtype=bool)}) for n in (2, 5)]
    assert rows_alike(given, unequal=True) == [[0, 1]] and rows_alike(given, unequal=False) == [[0], [1]]
    (short, long), seen = filled(given)
    assert seen.tolist() == [[True, True, False, False, False], [True] * 5]
    assert short[TEXT].shape == (1, 5, 4) and short[TEXT][:, 2:].eq(0).all() and short[TEXT][:, :2].eq(1).all()
    assert short["attention_mask"].tolist() == [[1, 1, 0, 0, 0]] and not short[TEXT_MASK][0, 2:].any()
    assert torch.equal(long[TEXT], given[1][TEXT])
    assert given[0][TEXT].shape[1] == 2


def test_conditions_of_another_length_keep_samples_apart():
    """As HiDream's second text encoder's, which lie in the middle of the sequence."""
    given = [conds(n, other=torch.ones(1, n, 4)) for n in (2, 5)]
    assert rows_alike(given, unequal=True) == [[0], [1]]


class Texts(HashedText):
    """Captions as long as they say."""

    def encode(self, texts):
        return [small_text(self.family, tokens=len(text) + 5) for text in texts]


UNEQUAL = ("short", "a long caption of many words, and of yet more")


@pytest.mark.parametrize(
    ("name", "captions", "how", "told"),
    [
        ("z_image", UNEQUAL, {}, True),
        ("z_image", UNEQUAL, {"batch": 1}, False),
        ("z_image", ("alike", "short"), {}, False),
        ("z_image", ("alike", "short"), {"dropout": 0.1}, True),
        ("qwen_image", UNEQUAL, {}, False),
        ("sd15", UNEQUAL, {}, False),
    ],
)
def test_a_person_is_told_where_captions_keep_the_samples_of_a_batch_apart(name, captions, how, told):
    notes = told_of(name, captions, **how)
    assert [note.startswith("batch_size: in Z-Image captions of unequal length") for note in notes] == [True] * told


@pytest.mark.parametrize(("include", "told"), [("", 0), (r"llm_adapter\..*k_proj", 1)])
def test_texts_that_layers_of_the_network_make_equally_long_keep_none_apart_unless_these_are_trained(include, told):
    trainable = TrainableModel(small_model("anima"))
    adapters = trainable.make_adapters(AdapterSettings(rank=1, alpha=1.0, include=include), seed=0)
    notes = told_of("anima", UNEQUAL, trainable=trainable, targets=adapters.targets)
    texts = [small_text("anima", tokens=n) for n in (5, 9)]
    with trainable.session(adapters):
        groups = trainable._groups(trainable.collate(texts, [SQUARE] * 2, (16, 8, 8)))
    assert len(notes) == len(groups) - 1 == told


def told_of(name, captions, *, batch=4, dropout=0.0, trainable=None, targets=("a layer",)):
    pictures, masks = [np.zeros((64, 64, 3), np.float32)] * 2, [np.ones((64, 64), np.float32)] * 2
    data = from_images(pictures, masks, list(captions), DatasetSettings(caption=CaptionSettings(dropout=dropout)))
    settings = CacheSettings(resolution=64, bucket_step=32, storage="memory")
    cache = build_cache(data, settings, encoder=VaeEncoder(small_vae(name)), text=Texts(name))
    trainable = trainable or TrainableModel(small_model(name))
    return batch_notes(trainable, cache, batch_size=batch, targets=targets)


def test_an_empty_text_runs_by_itself():
    assert rows_alike([conds(0), conds(2)], unequal=True) == [[0], [1]]
