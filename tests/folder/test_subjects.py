"""Several masks of one picture: one sample for each subject, and one for all of them together."""

import unicodedata
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.caching import SETTINGS, Bench, save
from harness.caching import picture as noise
from harness.folders import anywhere, folder_settings, grey, picture
from masklora.cache.donors import Donors
from masklora.cache.infill import donor_background, plan_set
from masklora.dataset.corrections import find_picture, replace_masks
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_mask, load_sample, merge
from masklora.errors import ConfigError, DataError, MaskError
from masklora.folder.subjects import Rule, parse_subjects
from masklora.generators.apply import GenerateSettings, generate
from masklora.generators.finding import Finding
from masklora.saving.saving import save_masks
from masklora.saving.targets import LAYOUTS, SaveSettings
from masklora.settings import MaskTransform
from masklora.training.batches import BatchPlan, split_entries
from masklora.viewing.inspection import inspect

FOLDER, ALPHA, *BESIDE = LAYOUTS
LEFT = np.zeros((8, 8), np.float32)
LEFT[1:6, :3] = 1
RIGHT = np.zeros((8, 8), np.float32)
RIGHT[3:8, 5:] = 1


def loaded(folder, **values):
    return load_dataset(folder_settings(folder, **{"mask_folder": "masks"} | values), allowed=anywhere)


def latents_of(entry):
    return tuple(variant.latent for variant in entry.variants)


def shares(dataset):
    return {sample.name: sample.repeats for sample in dataset.samples}


def captions(dataset):
    return {sample.subject: sample.caption for sample in dataset.samples}


def write(path, text):
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def group(tmp_path):
    """A folder whose picture group.jpg shows Anna on the left and Ben on the right."""
    root = tmp_path / "pictures"
    picture(root / "group.jpg")
    grey(root / "masks" / "group.anna.png", LEFT)
    grey(root / "masks" / "group.ben.png", RIGHT)
    return root


def test_a_picture_with_two_subjects_becomes_a_sample_of_each_and_one_of_both(group):
    dataset = loaded(group)
    anna, ben, both = dataset.samples
    assert [s.name for s in dataset.samples] == ["group.jpg [anna]", "group.jpg [ben]", "group.jpg [together]"]
    assert anna.image_path == ben.image_path == both.image_path
    assert {s.picture for s in dataset.samples} == {"group.jpg"}
    assert np.array_equal(load_mask(anna), LEFT)
    assert np.array_equal(load_mask(ben), RIGHT)
    assert np.array_equal(load_mask(both), np.maximum(LEFT, RIGHT))
    assert dataset.report.missing == () and dataset.report.orphaned == ()


def test_a_folder_that_is_called_like_a_subject_s_sample_changes_no_picture_s_key(tmp_path):
    picture(tmp_path / "at [anna]" / "group.jpg")
    for name, mask in (("anna", LEFT), ("ben", RIGHT)):
        grey(tmp_path / "masks" / "at [anna]" / f"group.{name}.png", mask)
    dataset = loaded(tmp_path)
    assert {s.picture_key for s in dataset.samples} == {"at [anna]/group.jpg"}
    saved = save_masks(dataset, SaveSettings(FOLDER), destination=tmp_path / "out", allowed=anywhere).dataset
    assert {part.path.parent for part in saved.samples[2].parts} == {tmp_path / "out" / "at [anna]"}


def test_the_repeats_of_the_picture_are_split_by_together_and_by_weight(group):
    assert shares(loaded(group, repeats=4)) == {"group.jpg [anna]": 1, "group.jpg [ben]": 1, "group.jpg [together]": 2}
    given = shares(loaded(group, together=0.25, subjects="anna: 2\nben: 1"))
    assert given == pytest.approx({"group.jpg [anna]": 0.5, "group.jpg [ben]": 0.25, "group.jpg [together]": 0.25})


@pytest.mark.parametrize(("together", "left"), [(0.0, ["anna", "ben"]), (1.0, ["together"])])
def test_samples_that_would_never_be_shown_are_not_made(group, together, left):
    dataset = loaded(group, together=together)
    assert [sample.subject for sample in dataset.samples] == left
    assert sum(shares(dataset).values()) == 1


def test_a_picture_with_one_subject_is_that_sample_alone(group):
    (group / "masks" / "group.ben.png").unlink()
    dataset = loaded(group)
    assert shares(dataset) == {"group.jpg [anna]": 1}
    assert np.array_equal(load_mask(dataset.samples[0]), LEFT)


def test_pictures_may_lack_a_subject_and_the_report_says_which(group):
    picture(group / "party.jpg")
    grey(group / "masks" / "party.anna.png", LEFT)
    picture(group / "empty.jpg")
    dataset = loaded(group)
    assert shares(dataset)["party.jpg [anna]"] == 1 and shares(dataset)["empty.jpg"] == 1
    text = dataset.report.to_text()
    assert "subjects in 2 pictures, 1 of them with several: anna (2), ben (1)." in text
    assert "no mask of ben in party.jpg." in text and "anna in party" not in text
    assert dataset.report.missing == ("empty.jpg",)


def test_a_mask_whose_whole_stem_is_a_picture_s_belongs_to_that_picture(tmp_path):
    for name in ("a.png", "a.b.png"):
        picture(tmp_path / name)
    for name in ("a.b.png", "a.b.cleo.png", "a.dora.png"):
        grey(tmp_path / "masks" / name, LEFT)
    with pytest.raises(MaskError, match=r"a\.b\.png: it has a mask of its own, a\.b\.png, and one of the subject cleo"):
        loaded(tmp_path)
    (tmp_path / "masks" / "a.b.png").unlink()
    assert sorted(shares(loaded(tmp_path))) == ["a.b.png [cleo]", "a.png [dora]"]
    (tmp_path / "masks" / "a.b.cleo.png").unlink()
    grey(tmp_path / "masks" / "a.b.png", LEFT)
    assert sorted(shares(loaded(tmp_path))) == ["a.b.png", "a.png [dora]"]


def test_subjects_are_matched_in_subfolders_and_in_any_unicode_form(tmp_path):
    picture(tmp_path / "täg" / unicodedata.normalize("NFC", "grüppe 1.png"))
    picture(tmp_path / "grüppe 1.png")
    grey(tmp_path / "masks" / "täg" / unicodedata.normalize("NFD", "grüppe 1.jürgen.png"), LEFT)
    name = unicodedata.normalize("NFC", "grüppe 1.png [jürgen]")
    dataset = loaded(tmp_path, subjects=unicodedata.normalize("NFD", "jürgen: 2: ein Bild"))
    assert [s.name for s in dataset.samples] == ["grüppe 1.png", f"täg/{name}"]
    assert dataset.samples[1].caption == "ein Bild"


def test_subjects_come_before_masks_beside_the_picture_and_alpha(group):
    grey(group / "group_mask.png", np.ones((8, 8)))
    assert len(loaded(group)) == 3
    assert shares(loaded(group, mask_source="sidecar")) == {"group.jpg": 1}
    assert shares(loaded(group, mask_source="none", subjects="nobody: 1")) == {"group.jpg": 1}


def test_two_masks_of_one_subject_are_an_error_that_names_them(group):
    grey(group / "masks" / "group.anna.webp", LEFT)
    with pytest.raises(MaskError, match=r"expected one anna mask, got 2: group\.anna\.png, group\.anna\.webp"):
        loaded(group)


def test_subjects_of_two_pictures_of_one_stem_are_an_error(group):
    picture(group / "group.png")
    with pytest.raises(MaskError, match=r"fits both group\.jpg and group\.png"):
        loaded(group)


def test_no_subject_can_have_the_name_of_the_sample_of_all(group):
    grey(group / "masks" / "group.together.png", LEFT)
    with pytest.raises(MaskError, match=r"cannot be called together \(group\.together\.png\)"):
        loaded(group)


def test_masks_that_fit_no_picture_are_orphaned_as_before(group):
    grey(group / "masks" / "gruop.anna.png", LEFT)
    assert loaded(group).report.orphaned == ("gruop.anna.png",)


def test_a_subject_s_mask_of_another_aspect_is_refused_by_name(group):
    grey(group / "masks" / "group.ben.png", np.ones((8, 4)))
    with pytest.raises(MaskError, match=r"group\.jpg \[ben\] \(mask file group\.ben\.png\): the mask is 4×8"):
        loaded(group)
    with pytest.raises(MaskError, match=r"group\.jpg \[together\] \(mask file group\.ben\.png\): the mask is 4×8"):
        loaded(group, together=1.0)


def test_lines_give_weights_and_captions_that_may_hold_colons():
    text = "anna: 2\n\n ben :0.5: a man: Ben \r\ncleo: 1:\n"
    assert parse_subjects(text) == {"anna": Rule(2), "ben": Rule(0.5, "a man: Ben"), "cleo": Rule(1)}
    assert parse_subjects(" \n") == {}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("anna", "should read name: weight"),
        (": 2", "should read name: weight"),
        ("anna: much", "a weight above 0"),
        ("anna: 0", "a weight above 0"),
        ("anna: -1: x", "a weight above 0"),
        ("anna: nan", "a weight above 0"),
        ("anna: inf", "a weight above 0"),
        ("ben: 3", "a second time"),
    ],
)
def test_a_malformed_line_is_an_error_with_its_number_and_text(group, line, fault):
    with pytest.raises(ConfigError, match=rf"subjects: line 3 .*{fault}.*got '{line}'"):
        loaded(group, subjects=f"ben: 1\n\n{line}")


def test_names_in_the_widget_that_have_no_mask_are_an_error_that_names_them(group):
    with pytest.raises(ConfigError, match=r"<picture>\.bene, <picture>\.cleo\. There are anna, ben\."):
        loaded(group, subjects="anna: 1\nbene: 2\ncleo: 1")
    picture(group / "plain" / "a.png")
    with pytest.raises(ConfigError, match="There are no masks named"):
        loaded(group / "plain", mask_folder="", subjects="anna: 1")


def test_lines_that_no_mask_folder_can_meet_are_told(group):
    notes = loaded(group, mask_source="none", subjects="ben: 2").report.notes
    assert any("subjects is not used: mask_source is none" in note for note in notes)
    assert not any("not used" in note for note in loaded(group, subjects="ben: 2").report.notes)


@pytest.mark.parametrize("together", [-0.1, 1.5])
def test_a_share_out_of_range_names_the_widget(group, together):
    with pytest.raises(ConfigError, match="together: expected 0 to 1"):
        loaded(group, together=together)


def test_a_caption_is_the_subject_s_file_then_its_line_then_the_picture_s(group):
    assert captions(loaded(group)) == {"anna": None, "ben": None, "together": None}
    write(group / "group.txt", "two people")
    assert set(captions(loaded(group)).values()) == {"two people"}
    rules = "anna: 1: a photo of anna"
    assert captions(loaded(group, subjects=rules))["anna"] == "a photo of anna"
    write(group / "group.anna.txt", "beside the picture")
    assert captions(loaded(group, subjects=rules))["anna"] == "beside the picture"
    write(group / "masks" / "group.anna.txt", "beside the mask")
    assert captions(loaded(group, subjects=rules)) == {
        "anna": "beside the mask",
        "ben": "two people",
        "together": "two people",
    }


def test_all_together_have_the_picture_s_caption_or_those_of_the_subjects(group):
    write(group / "masks" / "group.ben.txt", "ben")
    rules = "anna: 1: a photo of anna"
    assert captions(loaded(group, subjects=rules))["together"] == "a photo of anna, ben"
    write(group / "group.txt", "")
    assert captions(loaded(group, subjects=rules))["together"] == ""


def test_missing_captions_of_subjects_are_reported_and_are_an_error_if_asked(group):
    write(group / "masks" / "group.anna.txt", "anna")
    assert loaded(group).report.no_caption == ("group.jpg [ben]",)
    with pytest.raises(DataError, match=r"group\.jpg \[ben\]: expected a caption"):
        loaded(group, caption={"missing": "error"})


def test_trigger_words_apply_to_every_sample(group, tmp_path):
    write(group / "group.txt", "two people")
    bench = subjects_bench(tmp_path, caption={"trigger": "sks"}, folder=group)
    bench.build(replace(SETTINGS, upscale=True), dataset=bench.dataset)
    assert [[c.text for c in entry.captions] for entry in bench.cache.entries] == [["sks, two people"]] * 3


TRANSFORMS = [
    MaskTransform(),
    MaskTransform(invert=True),
    MaskTransform(grow=1, feather=0.7),
    MaskTransform(binarize=True, threshold=0.3, fill_holes=True, min_area=4),
]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_union_is_at_each_pixel_the_largest_of_the_subjects_masks_times_their_weight(group, transform):
    grey(group / "masks" / "group.ben.png", np.random.default_rng(0).random((8, 8)))
    dataset = loaded(group, subjects="anna: 1\nben: 4").with_transform(transform)
    anna, ben, both = (load_mask(sample) for sample in dataset.samples)
    assert np.array_equal(both, np.maximum(anna * np.float32(0.25), ben))
    assert np.array_equal(load_sample(dataset.samples[2]).mask, both)


def test_masks_of_unlike_scales_are_joined_at_the_picture_s_size(group):
    grey(group / "masks" / "group.ben.png", RIGHT.repeat(2, axis=0).repeat(2, axis=1))
    grey(group / "masks" / "group.anna.png", LEFT.repeat(4, axis=0).repeat(4, axis=1))
    assert np.array_equal(load_mask(loaded(group).samples[2]), np.maximum(LEFT, RIGHT))


def test_inspection_reads_every_sample(group):
    report = inspect(loaded(group))
    assert [(stats.name, stats.coverage) for stats in report.pictures] == [
        ("group.jpg [anna]", 15 / 64),
        ("group.jpg [ben]", 15 / 64),
        ("group.jpg [together]", 30 / 64),
    ]


def test_a_sample_is_found_by_its_whole_name_only(group):
    dataset = loaded(group)
    assert find_picture(dataset, "group.jpg [ben]") == 1
    for text in ("group", "group.jpg"):
        with pytest.raises(ConfigError, match=r"group\.jpg \[anna\]"):
            find_picture(dataset, text)


def test_a_corrected_mask_replaces_the_parts_of_a_union(group):
    dataset = loaded(group)
    corrected = replace_masks(dataset, [LEFT], picture=2)
    assert np.array_equal(load_mask(corrected.samples[2]), LEFT)
    assert np.array_equal(load_mask(corrected.samples[1]), RIGHT)


def test_generated_masks_join_those_of_each_sample(group):
    spot = np.zeros((8, 8), np.float32)
    spot[0, 7] = 1
    made, _ = generate(loaded(group), lambda one: Finding(spot), GenerateSettings(combine="union"), label="Spot")
    for sample, own in zip(made.samples, (LEFT, RIGHT, np.maximum(LEFT, RIGHT)), strict=True):
        assert np.array_equal(load_mask(sample), np.maximum(own, spot))
    assert shares(made) == shares(loaded(group))


# The cache.


def subjects_bench(tmp_path, *, folder=None, **values):
    """Builds caches of a folder with subjects; by default g.png of Anna and Ben, and h.png without a mask."""
    root = folder or tmp_path / "set"
    if folder is None:
        (root / "masks").mkdir(parents=True)
        for seed, name in enumerate("gh"):
            save(noise(seed), root / f"{name}.png")
        save(half(0, 30), root / "masks" / "g.anna.png")
        save(half(50, 80), root / "masks" / "g.ben.png")
    bench = Bench(root, tmp_path / "store")
    bench.dataset = loaded(root, **values)
    return bench


def half(left, right):
    mask = np.zeros((64, 80), np.uint8)
    mask[10:50, left:right] = 255
    return mask


def test_the_picture_is_encoded_once_for_all_of_its_subjects(tmp_path):
    bench = subjects_bench(tmp_path)
    # Two pictures; three masks and the ones of h; the empty text alone.
    assert bench.build(dataset=bench.dataset) == (2, 4, 1)
    anna, ben, both, _ = bench.cache.entries
    assert latents_of(anna) == latents_of(ben) == latents_of(both)
    assert len({anna.variants[0].mask, ben.variants[0].mask, both.variants[0].mask}) == 3


@pytest.mark.parametrize(
    "changes", [{"crop": "random", "variants": 3, "bucketing": False}, {"rotate": 20.0, "variants": 2}, {"flip": True}]
)
def test_crops_and_turns_that_follow_no_mask_are_shared_too(tmp_path, changes):
    bench = subjects_bench(tmp_path)
    bench.build(replace(SETTINGS, **changes), dataset=bench.dataset)
    anna, ben, both, _ = bench.cache.entries
    assert len(anna.variants) > 1 and latents_of(anna) == latents_of(ben) == latents_of(both)


def test_an_edited_subject_stales_its_own_mask_and_that_of_all_together(tmp_path):
    bench = subjects_bench(tmp_path)
    bench.build(dataset=bench.dataset)
    save(half(45, 80), bench.folder / "masks" / "g.ben.png")
    assert bench.build(dataset=bench.dataset) == (0, 2, 0)
    assert bench.build(dataset=bench.dataset) == (0, 0, 0)
    assert bench.build(dataset=loaded(bench.folder, subjects="anna: 3")) == (0, 1, 0)
    assert bench.build(dataset=loaded(bench.folder, together=0.1)) == (0, 0, 0)


def test_a_fill_follows_each_subject_s_own_mask(tmp_path):
    bench = subjects_bench(tmp_path, fill="grey")
    assert bench.build(dataset=bench.dataset)[0] == 4


def test_the_cached_union_is_the_largest_of_the_cached_masks(tmp_path):
    bench = subjects_bench(tmp_path)
    bench.build(replace(SETTINGS, resolution=48), dataset=bench.dataset)
    anna, ben, both = (bench.cache.mask(entry) for entry in bench.cache.entries[:3])
    assert both.equal(anna.maximum(ben))


def test_a_crop_around_the_union_holds_its_faintest_subject(tmp_path):
    tight = {"crop": "around mask", "crop_margin": 0.0, "crop_margin_max": 0.0}
    settings = replace(SETTINGS, bucketing=False, resolution=32, **tight)
    bench = subjects_bench(tmp_path, subjects="anna: 1\nben: 9")
    bench.build(settings, dataset=bench.dataset)
    _, ben, both, _ = bench.cache.entries
    assert both.geometry.resized[0] < ben.geometry.resized[0]
    columns = bench.cache.mask(both)[0].amax(dim=0)
    assert 0.05 < columns[:8].max() < 0.2 and columns[-8:].max() == 1


def test_metadata_count_pictures_and_not_their_subjects_and_name_nobody(tmp_path):
    bench = subjects_bench(tmp_path, repeats=3, subjects="anna: 2: a photo of anna\nben: 0.5")
    bench.build(dataset=bench.dataset)
    (source,) = bench.cache.sources
    assert (source["images"], source["num_repeats"]) == (2, 3)
    assert source["settings"]["subjects"] == "2, 0.5"


def test_the_same_picture_with_other_masks_in_merged_sets_shares_its_latents(tmp_path):
    bench = subjects_bench(tmp_path)
    (bench.folder / "others").mkdir()
    save(half(20, 60), bench.folder / "others" / "g.png")
    whole = loaded(bench.folder, mask_folder="others", subfolders=False)
    alone = loaded(bench.folder, subfolders=False)
    merged = merge([alone, whole, alone], [1.0, 0.5, 1.0])
    assert bench.build(dataset=merged) == (2, 5, 1)
    latents = {latents_of(entry) for entry in bench.cache.entries if "g.png" in entry.name}
    assert len(latents) == 1 and len({sample.key for sample in merged.samples}) == len(merged)


# Batches.


def test_an_epoch_s_draws_meet_the_shares_in_the_long_run(tmp_path):
    bench = subjects_bench(tmp_path, repeats=2, subjects="anna: 3\nben: 1")
    bench.build(dataset=bench.dataset)
    plan = BatchPlan(bench.cache.entries, 1, 0)
    count = sum(plan.epoch_length(epoch) for epoch in range(40))
    drawn = Counter(bench.cache.entries[plan.batch(n)[0].entry].name for n in range(count))
    assert drawn == {"g.png [anna]": 30, "g.png [ben]": 10, "g.png [together]": 40, "h.png": 80}


def test_one_picture_is_never_on_both_sides_of_the_split(tmp_path):
    root = tmp_path / "many"
    for i in range(12):
        picture(root / f"{i}.png", (16, 16), value=10 * i)
        if i % 3:
            grey(root / "masks" / f"{i}.anna.png", LEFT)
        if i % 2:
            grey(root / "masks" / f"{i}.ben.png", RIGHT)
    bench = Bench(root, tmp_path / "store")
    bench.build(replace(SETTINGS, upscale=True), dataset=merge([loaded(root), loaded(root, mask_source="none")]))
    entries = bench.cache.entries
    for seed in range(8):
        training, held = split_entries(entries, share=0.25, seed=seed)
        assert sorted(training + held) == list(range(len(entries)))
        sides = [{entries[i].picture for i in side} for side in (training, held)]
        assert not sides[0] & sides[1] and len(sides[1]) == 3


def test_a_single_picture_of_two_subjects_has_nothing_to_hold_out(tmp_path, group):
    bench = subjects_bench(tmp_path, folder=group)
    bench.build(replace(SETTINGS, upscale=True), dataset=bench.dataset)
    assert split_entries(bench.cache.entries, share=0.5, seed=0) == ([0, 1, 2], [])


def lent_to(samples, *, count):
    keys = [sample.key for sample in samples]
    return plan_set(keys, [count] * len(keys), kind="other picture", seed=0, donors=Donors.of(samples))


def test_no_subject_gets_the_background_of_its_own_picture_and_lenders_lend_without_subjects(tmp_path):
    bench = subjects_bench(tmp_path)
    save(noise(5), bench.folder / "i.png")
    for name in ("anna", "ben"):
        save(half(10, 20), bench.folder / "masks" / f"i.{name}.png")
    samples = loaded(bench.folder).samples
    for sample, infills in zip(samples, lent_to(samples, count=9), strict=True):
        lenders = sorted(samples[infill.donor].name for infill in infills)
        whole = {"g.png": "g.png [together]", "h.png": "h.png", "i.png": "i.png [together]"}
        assert lenders == sorted(name for shown, name in whole.items() if shown != sample.picture)


def red_and_blue(tmp_path, **values):
    """Anna is a red half of a grey picture, Ben a blue one; h.png is green."""
    root = tmp_path / "set"
    (root / "masks").mkdir(parents=True)
    group = np.full((64, 80, 3), 40, np.uint8)
    for name, mask, colour in (("anna", half(0, 30), (255, 0, 0)), ("ben", half(50, 80), (0, 0, 255))):
        group[mask > 0] = colour
        save(mask, root / "masks" / f"g.{name}.png")
    save(group, root / "g.png")
    save(np.full((64, 80, 3), (0, 90, 0), np.uint8), root / "h.png")
    return subjects_bench(tmp_path, folder=root, **values)


@pytest.mark.parametrize("fill", ["keep", "grey"])
def test_a_subject_of_less_weight_is_shown_as_plainly_before_other_backgrounds(tmp_path, fill):
    bench = red_and_blue(tmp_path, subjects="anna: 1\nben: 4", together=1.0, fill=fill)
    bench.build(replace(SETTINGS, infill="flat colour", infill_variants=1), dataset=bench.dataset)
    both = bench.cache.entries[0]
    assert bench.cache.mask(both)[0, 30, 10] == pytest.approx(0.25, abs=1e-4)
    seen = [bench.cache.latent(both)] if fill == "grey" else [bench.cache.latent(both, infill=0)]
    for latent in seen:
        assert latent[:, 3, 1].tolist() == [1.0, 0.0, 0.0] and latent[:, 3, -2].tolist() == [0.0, 0.0, 1.0]
        assert abs(latent[:, 0, 5] - 40 / 255).max() > 0.05


def test_a_lent_background_shows_no_subject_of_less_weight(tmp_path):
    group, whole = red_and_blue(tmp_path, subjects="anna: 1\nben: 9", together=1.0).dataset.samples
    lent = donor_background(load_sample(group), whole.size)
    assert int(np.ptp(lent[..., 0])) < 10 and int(np.ptp(lent[..., 2])) < 10


def test_a_picture_of_several_subjects_that_are_never_together_lends_no_background(tmp_path):
    samples = red_and_blue(tmp_path, together=0.0).dataset.samples
    infills = lent_to(samples, count=3)[2]
    assert {infill.kind for infill in infills} == {"flat colour"}


# Saving.


def write_masks(dataset, to=None, layout=FOLDER, **options):
    only = options.pop("picture", None)
    return save_masks(dataset, SaveSettings(layout, **options), destination=to, allowed=anywhere, picture=only)


@pytest.mark.parametrize("transform", TRANSFORMS[:2])
def test_saved_subjects_load_back_as_the_same_masks_and_so_does_their_union(group, tmp_path, transform):
    dataset = loaded(group, subjects="ben: 2").with_transform(transform)
    saved = write_masks(dataset, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["group.anna.png", "group.ben.png"]
    again = loaded(group, mask_folder=str(tmp_path / "out"), subjects="ben: 2", subfolders=False)
    for one in (again, saved.dataset):
        assert shares(one) == shares(dataset)
        for before, after in zip(dataset.samples, one.samples, strict=True):
            assert np.array_equal(load_mask(before), load_mask(after))
    assert "1 sample of all subjects together has no file" in saved.text
    saved.dataset.with_transform(MaskTransform(grow=1))


def test_captions_of_subjects_are_written_under_their_names(group, tmp_path):
    write(group / "masks" / "group.anna.txt", "anna")
    dataset = loaded(group, subjects="ben: 1: this is ben")
    write_masks(dataset, tmp_path / "out", save_captions=True)
    assert (group / "group.anna.txt").read_text() == "anna\n"
    assert (group / "group.ben.txt").read_text() == "this is ben\n"
    assert not (group / "group.txt").exists()


def test_as_alpha_every_sample_becomes_a_picture(group, tmp_path):
    dataset = loaded(group)
    saved = write_masks(dataset, tmp_path / "alpha out", ALPHA)
    again = loaded(tmp_path / "alpha out", mask_source="alpha", mask_folder="")
    assert [s.name for s in again.samples] == ["group.anna.png", "group.ben.png", "group.png"]
    for one in (again, saved.dataset):
        for before, after in zip(dataset.samples, sorted(one.samples, key=lambda s: s.name), strict=True):
            assert np.array_equal(load_mask(before), load_mask(after))
    assert saved.dataset.samples[2].repeats == 0.5


@pytest.mark.parametrize("layout", BESIDE)
def test_subjects_are_not_saved_where_they_would_not_be_found_again(group, layout):
    with pytest.raises(ConfigError, match=r"layout: group\.jpg \[anna\] is one of several subjects"):
        write_masks(loaded(group), None, layout)
    assert sorted(p.name for p in group.iterdir()) == ["group.jpg", "masks"]


def test_all_subjects_together_have_no_file_of_their_own(group, tmp_path):
    for dataset, chosen in ((loaded(group), 2), (loaded(group, together=1.0), None)):
        with pytest.raises(ConfigError, match=r"group\.jpg \[together\] shows all subjects"):
            write_masks(dataset, tmp_path / "out", picture=chosen)
    assert not (tmp_path / "out").exists()


def test_one_subject_s_corrected_mask_replaces_that_file_only(group):
    dataset = replace_masks(loaded(group), [RIGHT], picture=0)
    write_masks(dataset, group / "masks", picture=0, overwrite=True)
    assert [np.array_equal(load_mask(s), RIGHT) for s in loaded(group).samples] == [True, True, True]


def test_a_mask_of_the_whole_picture_in_the_way_of_its_subjects_is_refused(group, tmp_path):
    grey(tmp_path / "out" / "group.png", LEFT)
    with pytest.raises(DataError, match=r"group\.png would be taken for its mask"):
        write_masks(loaded(group), tmp_path / "out", overwrite=True)
