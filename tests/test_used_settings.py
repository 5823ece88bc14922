"""What the page hides has no effect, and what it shows may have one: the rules of the fields against what they rule."""

import dataclasses
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.caching import SETTINGS, ClipPooling, Letters, Pooling, blob, picture, save
from harness.clip_files import video
from harness.toy import ToyNet, same, toy_entries, toy_job, train_toy, with_infills
from masked_lora_pack.nodes.loss_use import _FIRST, add_use, holds, ways_of
from masklora.adapters import AdapterSet
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.folder.captions import caption_variants
from masklora.loss.masks import transform_mask
from masklora.loss.noise import Schedule
from masklora.loss.presets import CUSTOM, PRESET_DECIDES, PRESET_NAMES, PRESET_OPTIONS, apply_preset
from masklora.settings import (
    ALGORITHMS,
    CHUNKINGS,
    AdapterSettings,
    CacheSettings,
    CaptionSettings,
    DatasetSettings,
    LossSettings,
    MaskTransform,
    OptimizerSettings,
    TrainSettings,
    about,
    widgets_of,
)

ALPHAS = 1 - torch.linspace(0.02, 0.98, 1000)
PRIOR = {"prior_weight": 1.0}
# Of each field: another value than the default, and for each way in which it is used settings that take this way.
LOSS = {
    "mask_probability_scope": ("batch", [{"mask_probability": 0.6}]),
    "floor_mode": ("max", [{"floor": 0.3, "gamma": 0.5}]),
    "timestep_mean": (1.0, [{"timestep_sampling": "shifted"}, {"timestep_weight": "logit-normal"}]),
    "timestep_std": (2.0, [{"timestep_sampling": "sigmoid"}, {"timestep_weight": "logit-normal"}]),
    "snr_gamma": (1.0, [{"timestep_weight": "min-snr"}]),
    "prior_probability": (0.4, [PRIOR]),
    "prior_normalize": ("none", [PRIOR]),
    "prior_multiplier": (False, [PRIOR]),
    "prior_schedule": ("linear", [PRIOR]),
    "prior_timestep_schedule": ("linear", [PRIOR]),
    "prior_pivot": (0.9, [{**PRIOR, "prior_timestep_schedule": "cosine"}]),
    "prior_timestep_min": (0.7, [PRIOR]),
    "prior_warmup": (0.9, [PRIOR]),
    "prior_reduction": ("bicubic (ai-toolkit)", [PRIOR]),
    "preservation_probability": (0.3, [{"preservation_weight": 1.0}]),
    "elementwise_param": (0.2, [{"elementwise": "huber"}]),
    "area_min": (0.9, [{}, {**PRIOR, "normalize": "none"}]),
    "area_beta": (0.4, [{}]),
}
# Only on a network with tokens, see test_tokens.py; here that they do nothing without routes.
ROUTED = {"route_selection": ("random", []), "route_until": (0.5, [])}
OPTIM = {
    "betas": ((0.5, 0.9), [{}]),
    "eps": (1e-2, [{}]),
    "restarts": (2, [{"schedule": "cosine with restarts"}]),
    "power": (3.0, [{"schedule": "polynomial"}]),
    "min_lr_ratio": (0.5, [{"schedule": "linear"}]),
}
SOFT = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)


def ways(kind, name):
    return about(kind, name).metadata.get("used") or ()


def fields_with_rules(kind):
    return [one.name for one in dataclasses.fields(kind) if one.metadata.get("used")]


def unused(kind, name):
    """Settings in which no way holds, each rule broken in turn by each value that breaks it."""
    for broken in itertools.product(*(list(way.items()) for way in ways(kind, name))):
        changes = {}
        for option, condition in broken:
            values = about(kind, option).metadata.get("choices") or (0, 1.0, "", 0.0, False)
            outside = [value for value in values if not holds(condition, value)]
            changes[option] = outside
        for values in itertools.product(*changes.values()):
            yield dict(zip(changes, values, strict=True))


def has_way(kind, name, settings):
    return any(all(holds(one, getattr(settings, option)) for option, one in way.items()) for way in ways(kind, name))


def weights(folder, **settings):
    entries = [replace(entry, multiplier=1.5) for entry in toy_entries(4)]
    is_snr = settings["loss"].timestep_weight.startswith(("min-snr", "debiased")) if "loss" in settings else False
    net = ToyNet(Schedule("epsilon", alphas_cumprod=ALPHAS)) if is_snr else None
    job = toy_job(entries=[with_infills(entry, "i") for entry in entries], net=net, **{"steps": 4, **settings})
    return train_toy(folder, job).adapter


def told(kind):
    return [pytest.param(kind, name, id=f"{kind.__name__} {name}") for name in fields_with_rules(kind)]


def trained(folder, kind, settings):
    return weights(folder, **{"loss" if kind is LossSettings else "optim": settings})


BASES = {LossSettings: LossSettings(prior_weight=0.0), OptimizerSettings: OptimizerSettings(learning_rate=1e-2)}
CASES = {LossSettings: {**LOSS, **ROUTED}, OptimizerSettings: OPTIM}


@pytest.mark.parametrize(("kind", "name"), [*told(LossSettings), *told(OptimizerSettings)])
def test_what_is_hidden_changes_nothing_and_what_is_shown_does(kind, name, tmp_path):
    other, shown = CASES[kind][name]
    # A package of its own, which need not be here.
    hidden = [changes for changes in unused(kind, name) if changes.get("optimizer") != "adamw8bit"]
    assert hidden
    for number, changes in enumerate(hidden):
        base = replace(BASES[kind], **changes)
        assert not has_way(kind, name, base)
        before, after = (
            trained(tmp_path / f"{number} {which}", kind, settings)
            for which, settings in (("before", base), ("after", replace(base, **{name: other})))
        )
        assert same(before, after), changes
    for number, changes in enumerate(shown):
        base = replace(BASES[kind], **changes)
        assert has_way(kind, name, base)
        before, after = (
            trained(tmp_path / f"shown {number} {which}", kind, settings)
            for which, settings in (("before", base), ("after", replace(base, **{name: other})))
        )
        assert not same(before, after), changes


def test_each_rule_of_a_field_is_tried():
    assert {name for name in fields_with_rules(LossSettings)} == set(LOSS) | set(ROUTED)
    assert {name for name in fields_with_rules(OptimizerSettings)} == set(OPTIM)
    kinds = (MaskTransform, CacheSettings, CaptionSettings, TrainSettings, AdapterSettings)
    assert {kind: fields_with_rules(kind) for kind in kinds} == {
        AdapterSettings: ["init", "least_rank", "lokr_factor"],
        MaskTransform: ["threshold"],
        CacheSettings: ["max_gigabytes", "infill", "crop_margin", "crop_margin_max", "clip_chunks", "infill_reference"],
        CaptionSettings: ["keep_first"],
        TrainSettings: ["validation_share"],
    }


@pytest.mark.parametrize(("name", "other"), [("init", "gaussian"), ("lokr_factor", 2)])
def test_what_an_adapter_begins_with_is_the_same_where_a_setting_is_hidden(name, other):
    def begun(**settings):
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({"a": torch.nn.Linear(16, 16)})
        settings = AdapterSettings(rank=2, alpha=2.0, **settings)
        made = AdapterSet(model, settings, targets=["a"], seed=0, device=torch.device("cpu")).parameters()
        return {name: p.detach() for name, p in made.items()}

    for algorithm in ALGORITHMS:
        base = AdapterSettings(algorithm=algorithm)
        before, after = begun(algorithm=algorithm), begun(algorithm=algorithm, **{name: other})
        alike = before.keys() == after.keys() and all(torch.equal(before[one], after[one]) for one in before)
        assert alike != has_way(AdapterSettings, name, base), algorithm


def test_a_threshold_counts_for_a_binary_mask_only():
    for binarize in (False, True):
        one, other = (transform_mask(SOFT, MaskTransform(binarize=binarize, threshold=t)) for t in (0.5, 0.8))
        assert np.array_equal(one, other) is not binarize


def test_kept_tags_count_where_tags_are_shuffled_only():
    for shuffle in (False, True):
        kept = [CaptionSettings(shuffle=shuffle, keep_first=count) for count in (0, 3)]
        one, other = (
            caption_variants("a, b, c, d", each, count=5, generator=torch.Generator().manual_seed(1)) for each in kept
        )
        assert (one == other) is not shuffle


def test_a_held_out_share_counts_where_a_loss_is_held_out_only(tmp_path):
    for every in (0, 2):
        found = [weights(tmp_path / f"{every} {s}", validate_every=every, validation_share=s) for s in (0.1, 0.5)]
        assert same(*found) is (every == 0)


@pytest.mark.parametrize(
    ("changes", "option", "other", "is_used"),
    [
        ({"crop": "centre"}, "crop_margin", 0.1, False),
        ({"crop": "random"}, "crop_margin", 0.1, False),
        ({"crop": "mask-centred"}, "crop_margin", 0.1, False),
        ({"crop": "around mask", "crop_margin_max": 2.0}, "crop_margin", 2.0, True),
        ({"crop": "masked crop"}, "crop_margin", 0.1, True),
        ({"crop": "centre"}, "crop_margin_max", 2.0, False),
        ({"crop": "masked crop"}, "crop_margin_max", 2.0, False),
        ({"crop": "around mask"}, "crop_margin_max", 2.0, True),
        ({"infill_variants": 0}, "infill", "flat colour", False),
        ({"infill_variants": 2}, "infill", "flat colour", True),
        ({"infill_variants": 0}, "infill_reference", "target only", False),
        ({"infill_variants": 2}, "infill_reference", "target only", True),
        ({"storage": "memory"}, "max_gigabytes", 1e-9, False),
    ],
)
def test_settings_of_the_cache_that_are_hidden_change_nothing_in_it(changes, option, other, is_used, tmp_path):
    for number in range(3):
        save(picture(number), tmp_path / f"{number}.png")
        save(blob(number), tmp_path / f"{number}_mask.png")
        (tmp_path / "before").mkdir(exist_ok=True)
        save(picture(number + 5), tmp_path / "before" / f"{number}.png")
    settings = DatasetSettings(folder=str(tmp_path), reference_folders="before")
    samples = load_dataset(settings, allowed=lambda path: path)
    base = replace(SETTINGS, **{"storage": "memory", "variants": 3} | changes)
    way = about(CacheSettings, option).metadata["used"]
    assert any(holds(c, getattr(base, name)) for one in way for name, c in one.items()) is is_used
    one, two = (build(samples, settings) for settings in (base, replace(base, **{option: other})))
    assert (one == two) is not is_used


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_a_number_of_parts_counts_where_a_clip_is_cut_into_even_ones_only(chunking, tmp_path):
    video(tmp_path / "walk.mkv", 25, size=(64, 64), codec="ffv1")
    samples = load_dataset(DatasetSettings(folder=str(tmp_path)), allowed=lambda path: path)
    base = replace(SETTINGS, storage="memory", clip_frames=5, clip_chunking=chunking)
    one, other = (
        build_cache(samples, replace(base, clip_chunks=count), encoder=ClipPooling(), text=Letters())
        for count in (2, 3)
    )
    assert ([e.frames for e in one.entries] == [e.frames for e in other.entries]) is (chunking != "uniform")


def build(samples, settings):
    cache = build_cache(samples, settings, encoder=Pooling(), text=Letters())
    return [
        (
            entry.bucket,
            [(v.latent, v.infills, v.infill_references) for v in entry.variants],
            cache.mask(entry, 0).tolist(),
        )
        for entry in cache.entries
    ]


def rows(preset, **values):
    """The options that the page shows with a preset without being asked for more, as widgets stand by default."""
    standing = {widget: one.default for one in dataclasses.fields(LossSettings) for widget in widgets_of(one)} | {
        "preset": preset,
        "prior_weight": PRESET_DECIDES,
        **values,
    }
    shown = []
    for option in (one.name for one in dataclasses.fields(LossSettings)):
        first = [way for way in _first_when(option) if _all_hold(way, standing)]
        if first and any(_all_hold(way, standing) for way in ways_of(option)):
            shown.append(option)
    return shown


def _first_when(option):
    class Made:
        id, extra_dict = option, {}

    Made.extra_dict = {}
    add_use([Made])
    return Made.extra_dict.get("first_when", [])


def _all_hold(way, standing):
    return all(holds(condition, standing[option]) for option, condition in way.items())


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("values", [{}, {"prior_weight": 0.5, "elementwise": "huber (kohya)", "floor": 0.2}])
def test_a_preset_shows_at_most_eight_rows_with_itself(preset, values):
    assert len(rows(preset, **values)) <= 7
    assert preset not in _FIRST or rows(preset)


@pytest.mark.parametrize("preset", [name for name in PRESET_NAMES if name != CUSTOM])
def test_an_option_that_a_preset_hides_is_not_read(preset):
    asked = LossSettings(prior_weight=PRESET_DECIDES)
    standing = dataclasses.asdict(asked) | {"preset": preset}
    for option in PRESET_OPTIONS:
        if option == "mask_channel" or any(_all_hold(way, standing) for way in ways_of(option)):
            continue
        before, after = (apply_preset(preset, one) for one in (asked, replace(asked, **{option: another(option)})))
        assert before == after or _is_without_effect(option, before), option


def another(option):
    """A value of the option that is not the default."""
    one = about(LossSettings, option)
    if "choices" in one.metadata:
        return next(value for value in one.metadata["choices"] if value != one.default)
    return not one.default if isinstance(one.default, bool) else 0.5


def _is_without_effect(option, loss):
    """The field's own rule hides it, as proven by training above."""
    return bool(ways(LossSettings, option)) and not has_way(LossSettings, option, loss)
