"""Text to masks with ComfyUI's own SAM 3 node on small checkpoints."""

import comfy.model_management
import comfy.utils
import numpy as np
import pytest
import torch

from harness.models import small_model
from harness.segmentation_models import core_node, load_sam3, write_sam3
from masklora.errors import ConfigError, FamilyError
from masklora.generators.finding import Picture
from masklora.host.finders.sam3 import TextMasks, TextSettings


@pytest.fixture(scope="module", autouse=True)
def detect(comfy_host):
    return core_node("SAM3_Detect", "nodes_sam3.py")


@pytest.fixture(scope="module")
def ruled(detect, tmp_path_factory):
    """MODEL and CLIP that find by colour."""
    return load_sam3(write_sam3(tmp_path_factory.mktemp("sam3") / "ruled.safetensors", ruled=True))


@pytest.fixture(scope="module", params=["SAM31", "SAM3"])
def random(detect, tmp_path_factory, request):
    """MODEL and CLIP with random weights."""
    file = tmp_path_factory.mktemp("sam3") / "random.safetensors"
    # One whose masks are neither empty nor everything.
    return load_sam3(write_sam3(file, kind=request.param, seed=8))


def coloured(height=90, width=120):
    """Two red rectangles and a green one on black, and where they are."""
    y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    large = (y > 0.1) & (y < 0.5) & (x > 0.1) & (x < 0.5)
    small = (y > 0.6) & (y < 0.9) & (x > 0.6) & (x < 0.9)
    green = (y > 0.2) & (y < 0.4) & (x > 0.7) & (x < 0.9)
    rgb = np.stack([large | small, green, np.zeros_like(green)], -1)
    return Picture("shapes.png", rgb.astype(np.uint8) * 255), {"large": large, "small": small, "green": green}


def overlap(mask, truth):
    return (mask.astype(bool) & truth).sum() / (mask.astype(bool) | truth).sum()


def test_every_instance_of_a_phrase_is_in_the_mask(ruled):
    picture, truth = coloured()
    finding = TextMasks(*ruled, TextSettings(phrases="red"))(picture)
    assert finding.mask.dtype == np.float32
    assert set(np.unique(finding.mask)) == {0, 1}
    assert overlap(finding.mask, truth["large"] | truth["small"]) > 0.95
    assert finding.note == "2 × red (0.98, 0.98)"


def test_instances_keeps_the_surest_of_a_phrase(ruled):
    picture, truth = coloured()
    finding = TextMasks(*ruled, TextSettings(phrases="red", instances=1))(picture)
    assert overlap(finding.mask, truth["large"]) > 0.95
    assert finding.note == "1 × red (0.98)"


def test_phrases_are_united_and_the_excluded_ones_taken_out(ruled):
    picture, truth = coloured()
    union = TextMasks(*ruled, TextSettings(phrases="red\n\n  green \nblue"))(picture)
    assert overlap(union.mask, truth["large"] | truth["small"] | truth["green"]) > 0.95
    assert union.note == "2 × red (0.98, 0.98); 1 × green (0.98); no blue"
    rest = TextMasks(*ruled, TextSettings(phrases="anything", exclude="green\nblue"))(picture)
    assert overlap(rest.mask, truth["large"] | truth["small"]) > 0.95
    assert rest.note.endswith("excluded: 1 × green (0.98); no blue")


def test_what_the_mask_is_made_of_is_told_for_clips(ruled):
    picture, truth = coloured()
    things = TextMasks(*ruled, TextSettings(phrases="red\nblue", exclude="green"))(picture).things
    # Alone, a small thing shows the coarse edge that is lost in a union.
    assert all(overlap(*pair) > 0.9 for pair in zip(things.wanted, (truth["large"], truth["small"]), strict=True))
    assert len(things.unwanted) == 1 and overlap(things.unwanted[0], truth["green"]) > 0.9


def test_what_is_not_found_gives_no_mask_and_says_so(ruled):
    picture, _ = coloured()
    finding = TextMasks(*ruled, TextSettings(phrases="blue\nnothing", exclude="red"))(picture)
    assert (finding.mask, finding.note) == (None, "no blue; no nothing")


def test_a_mask_that_is_excluded_whole_counts_as_nothing_found(ruled):
    picture, _ = coloured()
    finding = TextMasks(*ruled, TextSettings(phrases="red", exclude="red thing"))(picture)
    assert finding.mask is None
    assert finding.note.endswith("all of it is excluded")


def test_a_finding_below_the_threshold_does_not_count(ruled):
    picture, truth = coloured()
    finding = TextMasks(*ruled, TextSettings(phrases="red", threshold=0.98))(picture)
    assert overlap(finding.mask, truth["large"]) > 0.95


@pytest.mark.parametrize("refine", [0, 2])
def test_the_mask_is_the_one_of_comfyui_s_own_node(random, detect, refine):
    model, clip = random
    rgb = np.random.default_rng(0).integers(0, 256, (60, 84, 3), np.uint8)
    settings = TextSettings(phrases="cat", threshold=0.3, refine=refine)
    finding = TextMasks(model, clip, settings)(Picture("noise.png", rgb))
    with torch.inference_mode():
        masks, boxes = detect.execute(
            model=model,
            image=torch.from_numpy(rgb).float()[None] / 255,
            conditioning=clip.encode_from_tokens_scheduled(clip.tokenize("cat:200")),
            threshold=0.3,
            refine_iterations=refine,
        ).result
    assert len(boxes[0]) > 1
    assert finding.note.startswith(f"{len(boxes[0])} × cat ({boxes[0][0]['score']:.2f}")
    assert 0 < finding.mask.mean() < 1
    np.testing.assert_array_equal(finding.mask, masks[0].numpy())


@pytest.mark.parametrize(
    "phrase",
    ["cat", "cat:5", "a cat, asleep", "(red) cat", 'the "wild" one\'s tail', "🐈 on a 🛋", "embedding:cat", "Größe"],
)
def test_a_phrase_is_searched_as_typed(ruled, phrase, monkeypatch):
    model, clip = ruled
    encode, seen = clip.encode_from_tokens, []
    monkeypatch.setattr(clip, "encode_from_tokens", lambda tokens, **k: seen.append(tokens) or encode(tokens, **k))
    TextMasks(model, clip, TextSettings(phrases=phrase))(coloured()[0])
    vocabulary = clip.tokenizer.sam3_clip.tokenizer
    expected = vocabulary(phrase)["input_ids"]
    ids = [token for token, _ in seen[0]["sam3_clip"][0]]
    assert ids[: len(expected)] == expected
    assert set(ids[len(expected) :]) <= {0}


def test_each_phrase_is_encoded_once_and_only_when_a_picture_comes(ruled, monkeypatch):
    model, clip = ruled
    encode, seen = clip.encode_from_tokens, []
    monkeypatch.setattr(clip, "encode_from_tokens", lambda tokens, **k: seen.append(1) or encode(tokens, **k))
    search = TextMasks(model, clip, TextSettings(phrases="red\ngreen", exclude="blue"))
    assert seen == []
    for _ in range(3):
        search(coloured()[0])
    assert len(seen) == 3


def test_a_phrase_in_the_other_node_s_manner_gets_advice_where_it_finds_nothing(ruled):
    picture = coloured()[0]
    commas = TextMasks(*ruled, TextSettings(phrases="blue, nothing"))(picture)
    assert commas.note == "no blue, nothing (searched as one phrase: write one per line to search for several)"
    counted = TextMasks(*ruled, TextSettings(phrases="blue:5"))(picture)
    assert "how many findings count is set by instances" in counted.note


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TextSettings(), "phrases: expected at least one phrase"),
        (TextSettings(phrases=" \n\t"), "phrases: expected at least one phrase"),
        (TextSettings(phrases="a\nb", exclude="b"), "exclude: b is in phrases too"),
        (TextSettings(phrases="cat", threshold=1.5), "threshold: expected 0 to 1"),
        (TextSettings(phrases="cat", refine=6), "refine: expected 0 to 5"),
        (TextSettings(phrases="cat", key_frames="first"), "key_frames: expected numbers of frames"),
        (TextSettings(phrases="cat", instances=-1), "instances: expected 0 to 200"),
        (TextSettings(phrases="cat", exclude="very " * 40 + "long"), "exclude: .* longer than SAM 3 reads"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(ruled, settings, message):
    with pytest.raises(ConfigError, match=message):
        TextMasks(*ruled, settings)


def test_another_model_is_refused_and_the_socket_named(ruled):
    model, clip = ruled
    settings = TextSettings(phrases="cat")
    with pytest.raises(FamilyError, match=r"^model: expected SAM 3, got BaseModel\..*Load Checkpoint"):
        TextMasks(small_model("sd15"), clip, settings)
    with pytest.raises(FamilyError, match=r"^clip: expected the text encoder of the SAM 3 checkpoint, got nothing"):
        TextMasks(model, None, settings)
    with pytest.raises(FamilyError, match=r"^clip: expected"):
        TextMasks(model, model, settings)


def test_closing_unloads_both_models_and_the_search_can_go_on(ruled):
    model, clip = ruled
    picture, _ = coloured()
    search = TextMasks(model, clip, TextSettings(phrases="red"))
    before = search(picture).mask

    def loaded():
        ours = {model.clone_base_uuid, clip.patcher.clone_base_uuid}
        return ours & {one.clone_base_uuid for one in comfy.model_management.loaded_models()}

    assert len(loaded()) == 2
    search.close()
    assert loaded() == set()
    np.testing.assert_array_equal(search(picture).mask, before)


def test_a_cancel_takes_effect_between_two_phrases(ruled, monkeypatch, detect):
    calls = []

    class Cancelled(BaseException):
        pass

    def check_cancel():
        calls.append(1)
        if len(calls) == 2:
            raise Cancelled

    search = TextMasks(*ruled, TextSettings(phrases="red\ngreen\nblue"), check_cancel=check_cancel)
    with pytest.raises(Cancelled):
        search(coloured()[0])
    assert len(calls) == 2


def test_the_node_s_own_progress_bar_stays_as_it_is(ruled, monkeypatch):
    moved = []

    def hook(*values, **more):
        moved.append(values)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    TextMasks(*ruled, TextSettings(phrases="red"))(coloured()[0])
    assert moved == []
    assert comfy.utils.PROGRESS_BAR_HOOK is hook


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (7, 2000)])
def test_pictures_of_any_shape_get_masks_of_their_size(random, height, width):
    rgb = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    finding = TextMasks(*random, TextSettings(phrases="cat", threshold=0, refine=0))(Picture("odd.png", rgb))
    assert finding.mask is None or finding.mask.shape == (height, width)


def test_findings_without_a_pixel_are_told_as_such(random):
    finding = TextMasks(*random, TextSettings(phrases="cat", threshold=0, refine=0))(
        Picture("dot.png", np.full((1, 1, 3), 9, np.uint8))
    )
    assert (finding.mask is None) == finding.note.endswith("; no pixel lies in their outlines")
    assert " × cat" in finding.note


def test_a_large_picture_is_searched_small_and_its_mask_fits(ruled):
    picture, truth = coloured(3000, 4000)
    finding = TextMasks(*ruled, TextSettings(phrases="green"))(picture)
    assert finding.mask.shape == (3000, 4000)
    assert set(np.unique(finding.mask)) == {0, 1}
    assert overlap(finding.mask, truth["green"]) > 0.95
