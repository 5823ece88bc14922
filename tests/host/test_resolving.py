"""One place makes a request whole and refuses what does not go together, in one order, before anything is loaded."""

from dataclasses import replace

import pytest

from harness.models import HashedText
from harness.training import make_cache, make_request, pictures
from harness.vaes import small_vae
from masklora.cache.cache import build_cache
from masklora.errors import ConfigError, FamilyError
from masklora.host.families import find_family
from masklora.host.model.encoders import VaeEncoder
from masklora.host.resolving import resolve
from masklora.host.sampling import SampleRequest
from masklora.runs.sample_pictures import SampleSettings
from masklora.settings import AdapterSettings, CacheSettings, LossSettings, OptimizerSettings, TrainSettings


@pytest.fixture(scope="module")
def caches():
    return {family: make_cache(family) for family in ("sd15", "sd3")}


def test_what_was_left_open_is_the_family_s(caches):
    request = replace(make_request("sd3", caches["sd3"]), adapter=AdapterSettings(), train=TrainSettings())
    trainable, settings = resolve(request)
    usual = trainable.family.defaults
    assert trainable.family == find_family("SD3", trainable.network)
    assert (settings.adapter.rank, settings.adapter.alpha) == (usual.rank, usual.alpha)
    assert (settings.train.steps, settings.loss.timestep_sampling) == (usual.steps, usual.timestep_sampling)


def test_of_many_faults_the_nearest_to_the_widget_is_told_first(caches):
    samples = SampleRequest(SampleSettings(prompts=("x",), steps=0), [], None, small_vae("sd15"))
    request = replace(
        make_request("sd3", caches["sd15"]),
        loss=LossSettings(floor=2.0, noise_offset=0.1, routes="0.5: 0..99", timestep_weight="min-snr"),
        adapter=AdapterSettings(rank=5000, targets="nothing"),
        optimizer=OptimizerSettings(eps=0.0),
        train=TrainSettings(batch_size=0),
        samples=samples,
    )
    told = (
        ("^steps: expected 1 to 1000", {"samples": replace(samples, settings=SampleSettings(prompts=("x",)))}),
        ("^floor: expected 0 to 1", {"loss": replace(request.loss, floor=0.0)}),
        ("^rank: expected 0 to 1024", {"adapter": replace(request.adapter, rank=4)}),
        ("^eps: expected a value above 0", {"optimizer": OptimizerSettings()}),
        ("^batch_size: expected 1 to 256", {"train": TrainSettings(batch_size=1)}),
        ("^targets: ", {"adapter": AdapterSettings()}),
        ("^timestep weight", {"loss": replace(request.loss, floor=0.0, timestep_weight="none")}),
        ("^routes: .*names block 99", {"loss": LossSettings(noise_offset=0.1)}),
        ("^noise_offset, multires_noise: ", {"loss": LossSettings()}),
        ("^cache: it was made with a VAE", {"cache": caches["sd3"]}),
        ("^samples: they would be drawn with a VAE of 4 channels", {"samples": None}),
    )
    for message, mended in told:
        with pytest.raises((ConfigError, FamilyError), match=message):
            resolve(request)
        request = replace(request, **mended)
    resolve(request)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (LossSettings(routes="0.5: 0..1"), "^routes: .*U-Net.*Empty it"),
        (LossSettings(attention_mask=True), "^attention_mask: .*U-Net.*Switch it off"),
        (LossSettings(text_padding_mask=True), "^text_padding_mask: .*U-Net.*padding"),
        (LossSettings(timestep_weight="cosmap"), "^timestep weight"),
        (LossSettings(zero_terminal_snr=True), "^zero_terminal_snr: .*predicts epsilon"),
    ],
)
def test_what_a_u_net_does_not_know_is_refused(caches, loss, message):
    with pytest.raises(ConfigError, match=message):
        resolve(replace(make_request("sd15", caches["sd15"]), loss=loss))


def test_captions_that_do_not_tell_their_padding_are_refused(caches):
    request = make_request("sd3", caches["sd3"])
    with pytest.raises(ConfigError, match=r"^text_padding_mask: the cached captions do not tell"):
        resolve(replace(request, loss=LossSettings(text_padding_mask=True)))


@pytest.mark.parametrize(("family", "vae"), [("sd3", "wan"), ("wan", "sd3")])
def test_a_vae_whose_latents_only_look_like_the_model_s_is_refused_for_training_and_samples(family, vae):
    settings = CacheSettings(resolution=64, bucket_step=16, storage="memory")
    cache = build_cache(pictures(), settings, encoder=VaeEncoder(small_vae(vae)), text=HashedText(family))
    with pytest.raises(FamilyError, match=r"^cache: it was made with a VAE for (clips|pictures), but"):
        resolve(make_request(family, cache))
    samples = SampleRequest(SampleSettings(prompts=("x",)), [], None, small_vae(vae))
    with pytest.raises(FamilyError, match=r"^samples: they would be drawn with a VAE for (clips|pictures), but"):
        resolve(replace(make_request(family, make_cache(family)), samples=samples))
