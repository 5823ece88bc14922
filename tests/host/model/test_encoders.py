"""ComfyUI's own VAE and CLIP classes, small and with random weights, as the cache's encoders."""

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.taesd.taesd
import pytest
import torch

from harness.damage import many
from harness.models import small_clip
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.cache.keys import digest
from masklora.dataset.sample import Dataset, Sample
from masklora.errors import FamilyError
from masklora.host.model.encoders import (
    ClipTextEncoder,
    VaeEncoder,
    from_conditioning,
    patcher_identity,
    text_mask,
)
from masklora.loss.masks import reduce_frames
from masklora.settings import CacheSettings

# The most of a change that reaches the latent frames before its own: CogVideoX has norms over frames, Mochi attention.
REACHES_BACK = {"wan": 0.0, "ltxv": 0.0, "cogvideox": 0.1, "mochi": 0.25}
SMALL_CLIP = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
}


@torch.no_grad()
def fill(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        scale = max(1, parameter[0].numel()) ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def make_vae(seed=0, channels=4):
    model = comfy.taesd.taesd.TAESD(latent_channels=channels)
    fill(model, seed)
    model.vae_scale.data.fill_(1.0)
    return comfy.sd.VAE(sd={name: value.clone() for name, value in model.state_dict().items()})


def make_clip(seed=0):
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": SMALL_CLIP, "model_name": "clip_l"})
    fill(clip.cond_stage_model, seed)
    return clip


@pytest.fixture(scope="module")
def vae():
    return make_vae()


@pytest.fixture(scope="module")
def clip():
    return make_clip()


def images(count=2, size=(64, 48), seed=0):
    return torch.rand((count, size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))


def patch(clip, seed, strength=1.0):
    name = next(k for k in clip.patcher.model_state_dict() if k.endswith("mlp.fc1.weight"))
    difference = torch.randn(64, 32, generator=torch.Generator().manual_seed(seed))
    clone = clip.clone()
    assert clone.add_patches({name: ("diff", (difference,))}, strength) == [name]
    return clone


def test_latents_are_those_of_comfyuis_own_encoding(vae):
    encoder = VaeEncoder(vae)
    latents = encoder.encode(images())
    with torch.inference_mode():
        assert torch.equal(latents, vae.encode(images()).float().cpu())
    assert latents.shape == (2, 4, 6, 8) and latents.dtype == torch.float32
    assert (encoder.channels, encoder.stride) == (4, 8)


def test_encoding_twice_and_in_another_batch_gives_the_same_latents(vae):
    encoder, pictures = VaeEncoder(vae), images(3)
    whole = encoder.encode(pictures)
    assert torch.equal(whole, encoder.encode(pictures))
    single = torch.cat([encoder.encode(picture[None]) for picture in pictures])
    assert torch.allclose(whole, single, atol=1e-5)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_tensors_are_ordinary_whatever_mode_the_host_is_in(vae, clip, mode):
    with mode():
        latents = VaeEncoder(vae).encode(images())
        values = ClipTextEncoder(clip).encode(["a cat"])[0]
    for tensor in (latents, values["cond"], values["pooled_output"]):
        assert not tensor.is_inference() and not tensor.requires_grad and tensor.device.type == "cpu"
    scale = torch.ones((), requires_grad=True)
    (latents * scale).sum().backward()


def test_the_vaes_identity_follows_its_weights_and_nothing_else(vae):
    identity = VaeEncoder(vae).identity
    assert identity == VaeEncoder(make_vae()).identity
    VaeEncoder(vae).encode(images())
    assert identity == VaeEncoder(vae).identity
    assert identity != VaeEncoder(make_vae(seed=1)).identity
    other = make_vae()
    with torch.no_grad():
        other.first_stage_model.taesd_encoder[0].bias[3] += 1e-3
    assert identity != VaeEncoder(other).identity


def test_a_vae_of_sixteen_channels_says_so():
    encoder = VaeEncoder(make_vae(channels=16))
    assert encoder.channels == 16 and encoder.encode(images()).shape == (2, 16, 6, 8)


def test_pixel_space_is_a_vae_of_stride_one():
    encoder = VaeEncoder(comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}))
    assert (encoder.channels, encoder.stride) == (3, 1)
    assert torch.allclose(encoder.encode(images()), images().movedim(-1, 1) * 2 - 1)


def test_a_video_vae_encodes_pictures_one_by_one():
    """ComfyUI turns a batch for a video VAE into the frames of one clip, which would mix the pictures."""

    class Frames(torch.nn.Module):
        def encode(self, frames):
            assert frames.shape[2] == 1, "one picture at a time"
            return torch.nn.functional.avg_pool3d(frames, (1, 8, 8))

    video = make_vae()
    video.latent_dim, video.latent_channels = 3, 3
    video.downscale_ratio = (lambda frames: frames, 8, 8)
    video.first_stage_model = Frames()
    latents = VaeEncoder(video).encode(images(3))
    expected = torch.nn.functional.avg_pool2d(images(3).movedim(-1, 1) * 2 - 1, 8)
    assert torch.allclose(latents, expected, atol=1e-6)


def test_an_empty_vae_or_clip_is_named():
    with pytest.raises(FamilyError, match=r"VAE.*Load VAE"):
        VaeEncoder(comfy.sd.VAE(sd={}))
    with pytest.raises(FamilyError, match="VAE"):
        VaeEncoder(None)
    with pytest.raises(FamilyError, match=r"CLIP.*Load CLIP"):
        ClipTextEncoder(None)


def test_a_vae_for_sound_is_refused(vae):
    sound = make_vae()
    sound.latent_dim = 1
    with pytest.raises(FamilyError, match="does not encode pictures"):
        VaeEncoder(sound)


def test_conditioning_is_that_of_comfyuis_text_node(clip):
    texts = ["a red cube on grass", "", "word " * 200]
    for text, values in zip(texts, ClipTextEncoder(clip).encode(texts), strict=True):
        with torch.no_grad():
            own = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        ((cond, options),) = own
        assert set(values) == {"cond", *options}
        assert torch.equal(values["cond"], cond.cpu())
        assert torch.equal(values["pooled_output"], options["pooled_output"].cpu())


def test_parentheses_in_a_caption_carry_no_weight(clip):
    encoder = ClipTextEncoder(clip)
    plain, weighted = (clip.tokenize("saber (fate)", disable_weights=flag)["l"] for flag in (True, False))
    assert {token[1] for token in plain[0]} == {1.0} != {token[1] for token in weighted[0]}
    with torch.no_grad():
        literal = clip.encode_from_tokens({"l": plain})
    assert torch.equal(encoder.encode(["saber (fate)"])[0]["cond"], literal)


def test_the_clips_identity_follows_weights_loras_layer_and_options(clip):
    identity = ClipTextEncoder(clip).identity
    assert identity == ClipTextEncoder(clip.clone()).identity == ClipTextEncoder(make_clip()).identity
    other_layer, other_option = clip.clone(), clip.clone()
    other_layer.clip_layer(-2)
    other_option.set_tokenizer_option("min_padding", 3)
    others = [make_clip(seed=1), other_layer, other_option, patch(clip, 0), patch(clip, 1), patch(clip, 0, 0.5)]
    identities = [ClipTextEncoder(other).identity for other in others]
    assert len({identity, *identities}) == 7


def test_the_identity_of_a_patched_clip_is_the_same_before_and_after_it_was_loaded(clip):
    patched = patch(clip, 0)
    before, plain = ClipTextEncoder(patched).identity, ClipTextEncoder(clip).identity
    encoded = ClipTextEncoder(patched).encode(["a cat"])[0]["cond"]
    assert ClipTextEncoder(patched).identity == before
    assert ClipTextEncoder(clip).identity == plain
    assert not torch.equal(encoded, ClipTextEncoder(clip).encode(["a cat"])[0]["cond"])
    assert ClipTextEncoder(patch(clip, 0)).identity == before


def test_a_clip_with_hooks_is_refused(clip):
    import comfy.hooks

    hooked = clip.clone()
    hooked.apply_hooks_to_conds = comfy.hooks.HookGroup()
    with pytest.raises(FamilyError, match="hooks"):
        ClipTextEncoder(hooked)


def test_conditioning_that_cannot_be_stored_is_refused_by_name():
    with pytest.raises(FamilyError, match="2 conditionings"):
        from_conditioning([[torch.zeros(1), {}], [torch.zeros(1), {}]])
    with pytest.raises(FamilyError, match="control"):
        from_conditioning([[torch.zeros(1), {"control": object()}]])
    values = {"guidance": 3.5, "pooled_output": None, "note": "x", "flag": True}
    assert from_conditioning([[torch.zeros(1), values]]).keys() == {"cond", *values}


@pytest.fixture(scope="module")
def flux_text():
    return small_clip("flux")


def real_tokens(values):
    assert values["text_mask"].shape == (1, values["cond"].shape[1])
    return values["text_mask"][0].tolist()


def test_padding_of_t5_is_told_apart_for_flux(flux_text):
    short, empty, long = ClipTextEncoder(flux_text).encode(["a red cube", "", "word " * 300])
    tokens = [t for t, _ in flux_text.tokenize("a red cube")["t5xxl"][0]]
    # The end token, 1, belongs to the text; the padding is 0.
    count = tokens.index(1) + 1
    assert 3 < count < 10 and set(tokens[count:]) == {0}
    assert real_tokens(short) == [True] * count + [False] * (256 - count)
    assert real_tokens(empty) == [True] + [False] * 255
    assert long["cond"].shape[1] > 256 and all(real_tokens(long))


@pytest.mark.parametrize("without", [(), ("t5",), ("clip_g", "t5"), ("clip_l", "t5"), ("clip_l", "clip_g")])
def test_padding_of_each_encoder_of_sd3_is_told_apart_in_the_order_of_its_tokens(without):
    encoder = ClipTextEncoder(small_clip("sd3", without=without))
    for text in ["a red cube!", "", "word " * 90]:
        tokens = encoder.clip.tokenize(text, disable_weights=True)
        # All together would need a T5 of full width.
        values = encoder.encode([text])[0] if without else {"text_mask": text_mask(encoder.clip, tokens)}
        expected = []
        if "clip_l" not in without or "clip_g" not in without:
            for section in tokens["l"]:
                ids = [t for t, _ in section]
                # CLIP's first end token is text, and those after it pad.
                count = ids.index(49407) + 1
                expected += [True] * count + [False] * (77 - count)
        if "t5" not in without:
            ids = [t for t, _ in tokens["t5xxl"][0]]
            expected += [t != 0 for t in ids]
        assert values["text_mask"].tolist() == [expected]
        assert not without or values["cond"].shape[1] == len(expected)


def test_text_encoders_of_u_nets_have_no_text_mask_and_keep_their_identity(clip, flux_text):
    assert "text_mask" not in ClipTextEncoder(clip).encode(["a cat"])[0]
    before = digest(
        "clip",
        type(clip.tokenizer).__qualname__,
        clip.layer_idx,
        clip.tokenizer_options,
        patcher_identity(clip.patcher),
    )
    assert ClipTextEncoder(clip).identity == before
    with_mask = digest(
        "clip", "FluxTokenizer", flux_text.layer_idx, flux_text.tokenizer_options, patcher_identity(flux_text.patcher)
    )
    assert ClipTextEncoder(flux_text).identity != with_mask


def test_text_masks_survive_a_cache_on_disk(flux_text, vae, tmp_path):
    picture = images(1, size=(64, 64))[0].numpy()
    samples = Dataset((Sample("memory:a", "a", (64, 64), image=picture, caption="a red cube"),))
    options = dict(encoder=VaeEncoder(vae), text=ClipTextEncoder(flux_text), folder=tmp_path)
    cache = build_cache(samples, CacheSettings(resolution=64, bucket_step=16), **options)
    stored = cache.text(cache.entries[0].captions[0].key)["text_mask"]
    assert torch.equal(stored, ClipTextEncoder(flux_text).encode(["a red cube"])[0]["text_mask"])
    assert cache.empty_text()["text_mask"].sum() == 1


def test_a_cache_of_the_real_encoders_is_read_back_bit_for_bit(vae, clip, tmp_path):
    picture = images(1, size=(64, 64))[0]
    sample = Sample("memory:a", "a", (64, 64), image=picture.numpy(), caption="a red cube")
    settings = CacheSettings(resolution=64, bucket_step=16)
    with torch.inference_mode():
        cache = build_cache(
            Dataset((sample,)),
            settings,
            encoder=VaeEncoder(vae),
            text=ClipTextEncoder(clip),
            folder=tmp_path,
        )
    entry = cache.entries[0]
    rounded = (picture * 255).round() / 255
    assert torch.allclose(cache.latent(entry), VaeEncoder(vae).encode(rounded[None])[0], atol=1e-5)
    expected = ClipTextEncoder(clip).encode(["a red cube"])[0]
    stored = cache.text(entry.captions[0].key)
    assert set(stored) == set(expected)
    for name, value in expected.items():
        same = torch.equal(stored[name], value) if isinstance(value, torch.Tensor) else stored[name] == value
        assert same, name
    assert not torch.equal(cache.empty_text()["cond"], stored["cond"])


@pytest.mark.parametrize("name", many(["mochi"], list(REACHES_BACK)))
def test_a_frame_of_a_clip_changes_the_latent_frame_that_takes_its_mask_and_none_before(name):
    encoder = VaeEncoder(small_vae(name))
    step = encoder.rule.step
    assert step == {"mochi": 6, "ltxv": 8}.get(name, 4)
    frames = images(count=1 + 2 * step, size=(64, 64))
    still = encoder.encode_clip(frames)
    for number in many([0, 1, step, step + 1, 2 * step], range(len(frames))):
        changed = frames.clone()
        changed[number] = 1 - changed[number]
        apart = (encoder.encode_clip(changed) - still).square().sum(dim=(0, 2, 3))
        mask = torch.zeros(1, 1, len(frames), 1, 1)
        mask[:, :, number] = 1
        touched = (apart > REACHES_BACK[name] * apart.sum()).nonzero()
        assert touched[0] == reduce_frames(mask, frames=3).argmax(), number
