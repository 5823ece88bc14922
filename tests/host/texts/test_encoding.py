"""Captions by text encoders in training: at the start those of the cache, and ComfyUI's modules as they were after."""

import comfy.model_management
import pytest
import torch

from harness.damage import ALL
from harness.text_encoders import TRAINED, text_cache, trained_clip
from masklora.errors import ConfigError, FamilyError
from masklora.host.finders.borrowed import unload
from masklora.host.model.encoders import ClipTextEncoder
from masklora.host.texts.memory import text_memory
from masklora.host.texts.parts import encoders_of, text_request
from masklora.host.texts.trained import TrainedTexts, captions_of
from masklora.settings import AdapterSettings, TextEncoderSettings

CAPTION = "a photo of zwx (weird), on grass"
ADAPTER = AdapterSettings(rank=4, alpha=4.0)
ENCODED = [(family, layer, False) for family in TRAINED for layer in (None, -2)] + [("sd3", None, True)]
ENCODED = ENCODED if ALL else [("sd15", None, False), ("sdxl", -2, False), ("flux", None, False)]


class NoCache:
    mend = None


def skipped(clip, layer):
    clip = clip.clone()
    clip.clip_layer(layer)
    return clip


def made(clip, *, captions=None, trigger="zwx", adapter=ADAPTER, **settings):
    asked = text_request(clip, TextEncoderSettings(**settings))
    return TrainedTexts(asked, adapter, seed=3, captions=captions or {"k": CAPTION, "": ""}, trigger=trigger)


class Session:
    """The encoders loaded and open, as within a training."""

    def __init__(self, texts):
        self.texts = texts

    def __enter__(self):
        self.alone = self.texts.alone(NoCache())
        self.alone.__enter__()
        comfy.model_management.load_models_gpu([self.texts.patcher])
        self.open = self.texts.session()
        self.open.__enter__()
        return self.texts

    def __exit__(self, *exc):
        self.open.__exit__(*exc)
        self.alone.__exit__(*exc)


def tensors(text):
    return {name: value for name, value in text.items() if isinstance(value, torch.Tensor)}


def same(one, other):
    one, other = tensors(one), tensors(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def nudge(texts, scale=0.05):
    with torch.no_grad():
        for name, p in texts.params.items():
            if name.endswith("lora_B"):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))) * scale)


@pytest.mark.parametrize(("family", "layer", "t5"), ENCODED)
def test_at_the_start_captions_are_bit_for_bit_what_the_cache_holds_and_can_be_derived(family, layer, t5):
    with torch.inference_mode():
        clip = skipped(trained_clip(family, t5=t5), layer)
        known = dict(zip(("k", ""), ClipTextEncoder(clip).encode([CAPTION, ""]), strict=True))
        texts = made(clip)
    with Session(texts):
        for key, text in known.items():
            live = texts.live(key, text)
            assert same(live, text)
            assert live["pooled_output" if family == "flux" else "cond"].requires_grad
        nudge(texts)
        assert not same(texts.live("k", known["k"]), known["k"])


@pytest.mark.parametrize("family", ["sdxl"])
def test_weights_in_a_prompt_mean_what_they_mean_to_comfyui(family):
    clip, prompt = trained_clip(family), "a (red:1.4) cat, (blue)"
    (cond, options), *_ = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    with Session(made(clip)) as texts:
        read = texts.prompt(prompt, {"cond": None, "pooled_output": None})
        assert torch.equal(read["cond"], cond) and torch.equal(read["pooled_output"], options["pooled_output"])
        plain = texts.prompt("a red cat, blue", {"cond": None, "pooled_output": None})
        assert not torch.equal(read["cond"], plain["cond"])


@pytest.mark.parametrize("family", ["flux", "sdxl"])
@pytest.mark.parametrize("fails", [False, True])
def test_comfyui_s_modules_are_afterwards_what_they_were(family, fails):
    clip = trained_clip(family)

    def state():
        modules = dict(clip.cond_stage_model.named_modules())
        held = [(name, id(m), sorted(vars(m)), [id(p) for p in m._parameters.values()]) for name, m in modules.items()]
        return held, clip.tokenizer, dict(vars(clip.tokenizer)), clip.patcher.patches, "load_model" in vars(clip)

    (known,) = ClipTextEncoder(clip).encode([CAPTION])
    # ComfyUI's own loading leaves notes on modules.
    unload(clip.patcher)
    before, texts = state(), made(clip)
    assert state() == before
    try:
        with Session(texts):
            nudge(texts)
            texts.live("k", known)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert state() == before
    assert same(ClipTextEncoder(clip).encode([CAPTION])[0], known)


def test_beside_a_language_model_only_clip_is_loaded_and_run():
    clip = trained_clip("flux")
    (known,) = ClipTextEncoder(clip).encode([CAPTION])
    texts = made(clip)
    calls = []
    hook = clip.cond_stage_model.t5xxl.register_forward_hook(lambda *_: calls.append(1))
    try:
        with Session(texts):
            texts.live("k", known)
            loaded = texts.patcher.model_size()
    finally:
        hook.remove()
    assert calls == []
    parts = clip.cond_stage_model
    assert loaded == sum(p.nbytes for p in parts.clip_l.parameters()) < sum(p.nbytes for p in parts.parameters())


def test_a_language_model_s_part_and_the_cached_text_stay_in_the_conditioning():
    clip = trained_clip("flux")
    (known,) = ClipTextEncoder(clip).encode([CAPTION])
    with Session(made(clip)) as texts:
        nudge(texts)
        live = texts.live("k", known)
    assert torch.equal(live["cond"], known["cond"]) and torch.equal(live["text_mask"], known["text_mask"])
    assert not torch.equal(live["pooled_output"], known["pooled_output"])


def test_while_nothing_learns_a_caption_is_encoded_once_and_again_when_the_weights_have_changed():
    clip = trained_clip("sd15")
    (known,) = ClipTextEncoder(clip).encode([CAPTION])
    with Session(made(clip)) as texts:
        texts.set_training(False)
        with torch.no_grad():
            first = texts.live("k", known)
            assert texts.live("k", known) is first
            nudge(texts)
            assert texts.live("k", known) is not first
        for p in texts.params.values():
            p.requires_grad_(False)
        frozen = texts.live("k", known)
        assert texts.live("k", known) is frozen and not frozen["cond"].requires_grad


def test_dropout_is_drawn_while_the_encoders_learn_and_at_no_other_time():
    clip = trained_clip("sd15")
    (known,) = ClipTextEncoder(clip).encode([CAPTION])
    with Session(made(clip, adapter=AdapterSettings(rank=4, alpha=4.0, dropout=0.5))) as texts:
        nudge(texts)
        assert not same(texts.live("k", known), texts.live("k", known))
        texts.set_training(False)
        assert same(texts.live("k", known), texts.live("k", known))
        texts.set_training(True)
        for p in texts.params.values():
            p.requires_grad_(False)
        assert same(texts.live("k", known), texts.live("k", known))


@pytest.mark.parametrize("start", ["a dog", ""])
def test_a_new_word_reads_as_the_words_that_it_begins_with(start):
    clip = trained_clip("sdxl")
    spelled = CAPTION.replace("zwx", start)
    base, wanted = ClipTextEncoder(clip).encode([CAPTION, spelled])
    with Session(made(clip, encoders="none", new_word=True, word_vectors=2, word_start=start)) as texts:
        live = texts.live("k", base)
        assert same(live, wanted) == bool(start)
        live["cond"].square().sum().backward()
        assert {name for name, p in texts.params.items() if p.grad.abs().sum() > 0} == {
            "new_word.clip_l",
            "new_word.clip_g",
        }
        assert texts.params["new_word.clip_g"].shape == (2, 1280)


def test_a_new_word_takes_the_trigger_word_s_place_wherever_it_stands():
    clip = trained_clip("sd15")
    captions = {"k": "Zwx, zwx's dog (zwx) zwxy", "": ""}
    (wanted,) = ClipTextEncoder(clip).encode(["cat , cat 's dog ( cat ) zwxy"])
    base = ClipTextEncoder(clip).encode([captions["k"]])[0]
    with Session(
        made(clip, captions=captions, encoders="none", new_word=True, word_vectors=1, word_start="cat")
    ) as texts:
        assert same(texts.live("k", base), wanted)


@pytest.mark.parametrize("prompt", ["a zwx on grass", "a embedding:zwx on grass", "a (EMBEDDING:zwx:1.0) on grass"])
def test_a_prompt_may_call_the_new_word_by_its_trigger_word_or_as_other_prompts_do(prompt):
    clip = trained_clip("sd15")
    (wanted,) = ClipTextEncoder(clip).encode(["a cat on grass"])
    with Session(made(clip, encoders="none", new_word=True, word_vectors=1, word_start="cat")) as texts:
        assert same(texts.prompt(prompt, wanted), wanted)


def test_random_vectors_are_spread_as_the_vocabulary_and_follow_the_seed():
    clip = trained_clip("sd15")
    one, again = (made(clip, encoders="none", new_word=True, word_vectors=32) for _ in range(2))
    other = TrainedTexts(
        text_request(clip, TextEncoderSettings(encoders="none", new_word=True, word_vectors=32)),
        ADAPTER,
        seed=4,
        captions={"": ""},
        trigger="zwx",
    )
    (name,) = one.params
    table = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight
    assert torch.equal(one.params[name], again.params[name]) and not torch.equal(one.params[name], other.params[name])
    assert float(one.params[name].detach().std()) == pytest.approx(float(table.std()), rel=0.05)


def test_captions_are_known_by_their_keys_with_those_without_trigger_and_the_empty_one():
    cache = text_cache("sd15")
    found = captions_of(cache)
    encoder = ClipTextEncoder(trained_clip("sd15"))
    for key, text in list(found.items())[:3]:
        cached = cache.text(key) if key else cache.empty_text()
        assert same(encoder.encode([text])[0], cached)
    assert found[""] == "" and set(found.values()) >= {"zwx, a thing 0", "a thing 0"}


@pytest.mark.parametrize("family", ["sd15", *(["sdxl"] if ALL else [])])
def test_what_is_kept_for_backward_is_counted(family):
    clip = trained_clip(family)
    (known,) = ClipTextEncoder(clip).encode([CAPTION])
    texts, kept = made(clip), {}

    def keep(tensor):
        if not any(tensor is p for p in texts.params.values()) and tensor.ndim > 1:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with Session(texts), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        live = texts.live("k", known)
        weights = {p.untyped_storage()._cdata for p in clip.cond_stage_model.parameters()}
    del live
    found = text_memory(text_request(clip, TextEncoderSettings()), ADAPTER, captions=1)
    measured = sum(size for cdata, size in kept.items() if cdata not in weights)
    # The small encoders' feed-forward is none of four times their width.
    ours = found.kept * 8 / 20
    assert 0.7 * measured <= ours <= 1.5 * measured
    assert found.numbers == sum(p.numel() for p in texts.params.values())
    parts = [getattr(clip.cond_stage_model, name) for name in encoders_of(clip)]
    assert found.weights == sum(p.nbytes for part in parts for p in part.transformer.parameters())


class Other:
    class QwenImageTokenizer:
        pass

    tokenizer, cond_stage_model = QwenImageTokenizer(), torch.nn.Module()


@pytest.mark.parametrize(
    ("clip", "settings", "error", "told"),
    [
        (None, {}, FamilyError, "clip: there is none"),
        (Other(), {}, FamilyError, r"clip: this text encoder \(.*QwenImageTokenizer\) is no CLIP-L"),
        ("sd15", {"encoders": "none"}, ConfigError, "encoders, new_word: nothing is left to train"),
        ("sd15", {"encoders": "clip_g"}, ConfigError, "encoders: this CLIP has clip_l, got clip_g"),
        ("sd15", {"learning_rate": 2.0}, ConfigError, "learning_rate: expected 0 to 1"),
        ("flux", {"new_word": True}, ConfigError, "new_word: beside CLIP this model reads the caption with T5"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once_with_the_reason(clip, settings, error, told):
    with pytest.raises(error, match=told):
        text_request(trained_clip(clip) if isinstance(clip, str) else clip, TextEncoderSettings(**settings))


def test_a_word_without_a_trigger_word_or_with_fewer_vectors_than_it_begins_with_is_refused():
    clip = trained_clip("sd15")
    with pytest.raises(ConfigError, match=r"new_word: it stands for the trigger word .* which is empty"):
        made(clip, trigger=" ", new_word=True)
    with pytest.raises(ConfigError, match="trigger_word: 'con' is a name that Windows keeps for a device"):
        made(clip, trigger="con", new_word=True)
    with pytest.raises(
        ConfigError, match=r"word_start: 'a big dog' is 3 tokens long, and the new word has word_vectors 2"
    ):
        made(clip, new_word=True, word_start="a big dog")


@pytest.mark.parametrize(
    ("base", "hidden"),
    [
        ({"encoders": "none", "new_word": True}, {"learning_rate": 0.5, "stop_after": 3, "rank": 9, "alpha": 2.0}),
        ({}, {"word_vectors": 9, "word_start": "a dog", "word_learning_rate": 0.5, "word_stop_after": 3}),
    ],
    ids=["without encoders", "without a word"],
)
def test_what_is_hidden_in_the_node_changes_nothing(base, hidden):
    clip = trained_clip("sd15")
    usual, other = made(clip, **base), made(clip, **base, **hidden)
    assert usual.parts(1e-4) == other.parts(1e-4)
    assert usual.params.keys() == other.params.keys()
    assert all(torch.equal(p, other.params[name]) for name, p in usual.params.items())
    scalings = [one.kept()["scalings"] for one in (usual, other)]
    assert scalings[0] == scalings[1]


def test_rates_and_sizes_that_are_left_open_are_the_model_s():
    clip = trained_clip("sd15")
    texts = made(clip, learning_rate=0.0, word_learning_rate=0.0, new_word=True, stop_after=5)
    assert [(part.prefix, part.learning_rate, part.stop) for part in texts.parts(3e-4)] == [
        ("text_encoder.", 3e-4, 5),
        ("new_word.", 3e-4, 0),
    ]
    name = "text_encoder.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"
    assert texts.params[f"{name}.lora_A"].shape == (4, 768)
    ranked = made(clip, rank=2, adapter=AdapterSettings(rank=4, alpha=1.0, algorithm="rslora"))
    assert ranked.params[f"{name}.lora_A"].shape == (2, 768)
    assert all(scale == pytest.approx(2 / 2**0.5) for scale in ranked.kept()["scalings"].values())
