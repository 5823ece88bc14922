"""Phrases to masks: the real classes on small models, and scripted ones whose answers are known."""

import dataclasses
import gc
import json
import socket
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.grounding_models import SIDE, boxed, write_florence2, write_sam2
from masklora.errors import ConfigError, DataError, MaskLoraError
from masklora.generators.finding import Picture
from masklora.generators.florence2 import TASKS, Answer, Florence2, check_boxes, is_about, read_answer
from masklora.generators.florence2_sam2 import (
    Florence2Sam2Settings,
    PhraseMasks,
    check_florence2_sam2,
    florence2_sam2_maker,
    parse_phrases,
)
from masklora.generators.local_models import library_classes
from masklora.generators.sam2 import Sam2
from masklora.loss.masks import feather_mask, grow_mask


@pytest.fixture(scope="module")
def sam2_folder(tmp_path_factory):
    return write_sam2(tmp_path_factory.mktemp("sam2") / "tiny")


@pytest.fixture(scope="module")
def segment(sam2_folder):
    return Sam2.load(sam2_folder)


@pytest.fixture(scope="module")
def florence2_folder(tmp_path_factory):
    return write_florence2(tmp_path_factory.mktemp("florence2") / "tiny", answer="cat" + boxed(100, 200, 500, 600))


@pytest.fixture
def answering(tmp_path):
    """A function that loads a Florence-2 model which answers every phrase with the given text."""

    def load(text, **options):
        return Florence2.load(write_florence2(tmp_path / "florence2", answer=text), **options)

    return load


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def picture(height=60, width=80):
    return Picture("cat.png", noise(height, width))


def seen_pixels(module, call):
    """The normalised picture that reaches a model's first layer during `call`."""
    seen = []
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    call()
    hook.remove()
    return seen[0]


class Script:
    """A detector that knows its answers and a segmenter that draws the boxes; both note what they were asked."""

    def __init__(self, **answers):
        self.answers = {phrase.replace("_", " "): boxes for phrase, boxes in answers.items()}
        self.phrases, self.prompts, self.loads = [], [], 0

    def detect(self, rgb, phrase):
        self.phrases.append(phrase)
        return [Answer(phrase, box) for box in self.answers.get(phrase, ())]

    def segment(self, rgb, boxes):
        self.prompts.append(boxes)
        for box in boxes:
            yield rectangle(rgb.shape[:2], box)

    def load(self):
        self.loads += 1
        return self.detect, self.segment

    def maker(self, **options):
        check_cancel = options.pop("check_cancel", lambda: None)
        return PhraseMasks(Florence2Sam2Settings(**options), self.load, check_cancel=check_cancel)

    def mask(self, **options):
        return self.maker(**options)(picture()).mask


def rectangle(shape, box):
    mask = np.zeros(shape, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def box_mask(*boxes):
    return np.any([rectangle((60, 80), box) for box in boxes], axis=0).astype(np.float32)


CAT, DOG, PAW = (10, 10, 30, 30), (40, 20, 70, 50), (20, 15, 60, 35)


# Boxes, from the real generate().


@pytest.mark.parametrize("size", [(200, 100), (1000, 1000), (37, 211), (8000, 6000)])
def test_an_answer_comes_back_as_the_exact_box_in_the_picture_s_pixels(answering, size):
    answers = answering("cat" + boxed(100, 200, 500, 600))(np.full((size[1], size[0], 3), 90, np.uint8), "cat")
    width, height = size
    middles = [(100, width), (200, height), (500, width), (600, height)]
    assert answers == [Answer("cat", tuple(int((k + 0.5) * length / 1000) for k, length in middles))]


def test_several_boxes_of_several_labels_come_back(answering):
    text = "cat" + boxed(0, 0, 499, 999) + boxed(500, 0, 999, 999) + "dog" + boxed(100, 100, 200, 200)
    answers = answering(text)(noise(100, 100), "cat")
    assert [answer.label for answer in answers] == ["cat", "cat", "dog"]
    assert answers[1].corners == (50, 0, 99, 99)


def test_a_polygon_answer_gives_its_bounds(answering):
    ring = boxed(100, 800, 300, 200, 600, 400)
    assert answering(f"cat<poly>{ring}<sep>{boxed(50, 500, 90, 700)}</poly>")(noise(100, 100), "cat") == [
        Answer("cat", (5, 20, 60, 80))
    ]


@pytest.mark.parametrize("text", ["cat", "", "cat" + boxed(1, 2, 3), "<poly></poly>", "no idea"])
def test_an_answer_without_a_box_gives_none(answering, text):
    assert answering(text)(noise(40, 40), "cat") == []


@pytest.mark.parametrize(
    "phrase",
    ['the "red" cat', "cat's “paw”", "a cät 🐱", "🐱🐶", "{input} 100%", "x" * 100, "🐱" * 100],
    ids=["quotes", "curly quotes", "accents", "emoji", "signs", "long", "many emoji"],
)
def test_quotes_emoji_and_long_phrases_pass_through_the_real_model(answering, phrase):
    detect = answering(phrase + boxed(100, 200, 500, 600))
    found = check_boxes(detect(noise(100, 100), phrase), phrase, size=(100, 100))
    assert found.boxes == ((10, 20, 50, 60),)


def test_phrase_grounding_reads_its_own_form_of_answer(answering):
    detect = answering("a cat" + boxed(100, 200, 500, 600) + "sofa" + boxed(0, 0, 999, 999), task="phrase grounding")
    answers = detect(noise(100, 100), "a cat on a sofa")
    assert [answer.label for answer in answers] == ["a cat", "sofa"]
    assert check_boxes(answers, "a cat on a sofa", size=(100, 100)).boxes == (
        (10, 20, 50, 60),
        (0, 0, 99, 99),
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 3), (3, 50), (50, 3)])
def test_tiny_pictures_keep_rows_columns_and_colours_apart(florence2_folder, segment, shape):
    rgb = np.zeros((*shape, 3), np.uint8)
    rgb[..., 0] = 255
    detect = Florence2.load(florence2_folder)
    for module, call in (
        (detect.model.model.vision_tower, lambda: detect(rgb, "cat")),
        (segment.model.vision_encoder, lambda: list(segment(rgb, [(0, 0, 1, 1)]))),
    ):
        pixels = seen_pixels(module, call)
        assert pixels.shape == (1, 3, SIDE, SIDE)
        red, green, blue = pixels[0].flatten(1).mean(1).tolist()
        assert red == pytest.approx((1 - 0.485) / 0.229, abs=0.02)
        assert green == pytest.approx(-0.456 / 0.224, abs=0.02)
        assert blue == pytest.approx(-0.406 / 0.225, abs=0.02)


def test_pictures_of_values_from_0_to_1_are_refused_instead_of_turned_black(florence2_folder, segment):
    wrong = np.ones((20, 20, 3), np.float32)
    with pytest.raises(DataError, match="uint8"):
        Florence2.load(florence2_folder)(wrong, "cat")
    with pytest.raises(DataError, match="uint8"):
        list(segment(wrong, [(0, 0, 5, 5)]))
    with pytest.raises(DataError, match=r"\(20, 20\)"):
        list(segment(np.zeros((20, 20), np.uint8), [(0, 0, 5, 5)]))


# What becomes of boxes.


def checked(*corners, label="cat", phrase="cat", size=(100, 50), limit=0):
    return check_boxes([Answer(label, one) for one in corners], phrase, size=size, limit=limit)


def test_inverted_corners_are_put_in_order():
    assert checked((60, 40, 20, 10)).boxes == ((20, 10, 60, 40),)


def test_boxes_are_moved_into_the_picture():
    assert checked((-5, -9, 400, 300), (200, 200, 300, 300)).boxes == ((0, 0, 100, 50), (99, 49, 100, 50))


def test_a_box_without_width_gets_one_pixel():
    assert checked((30, 20, 30, 20)).boxes == ((30, 20, 31, 21),)
    assert checked((0, 0, 0, 0), size=(1, 1)).boxes == ((0, 0, 1, 1),)


def test_a_box_that_comes_twice_counts_once():
    found = checked((1, 2, 30, 40), (30, 40, 1, 2), (5, 6, 7, 8))
    assert found.boxes == ((1, 2, 30, 40), (5, 6, 7, 8))
    assert found.note == "2 × cat"


def test_the_largest_boxes_are_kept_in_their_order_where_there_is_a_limit():
    found = checked((0, 0, 5, 5), (0, 0, 20, 20), (1, 1, 9, 9), limit=2)
    assert found.boxes == ((0, 0, 20, 20), (1, 1, 9, 9))
    assert found.note == "2 × cat (the 2 largest of 3)"


def test_answers_about_something_else_are_left_out_and_named():
    answers = [Answer("cat", (0, 0, 9, 9)), Answer("dog", (1, 1, 5, 5)), Answer("dog", (2, 2, 5, 5))]
    found = check_boxes(answers, "cat", size=(100, 50))
    assert found.boxes == ((0, 0, 9, 9),)
    assert found.note == '1 × cat (left out: "dog")'
    assert check_boxes(answers[1:], "cat", size=(100, 50)).note == 'no cat (left out: "dog")'


def test_a_box_over_the_whole_picture_is_told():
    assert checked((0, 0, 99, 50)).note == "1 × cat (a box is the whole picture)"


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("cat", "cat"),
        ("A Cat", "cat"),
        ("cat", "the red cat"),
        ("cats", "cat"),
        ("cat's", "cat"),
        ('"red" cat', 'the "red" cat'),
        ("caf", "café"),
        ("", "🐱"),
        ("cat", "猫"),
        ("dog", "cat, dog"),
    ],
)
def test_labels_that_speak_of_the_phrase_are_recognised(label, phrase):
    assert is_about(label, phrase)


@pytest.mark.parametrize(
    ("label", "phrase"), [("dog", "cat"), ("", "cat"), ("category", "cat"), ("blue cat", "red cat")]
)
def test_labels_of_other_things_are_recognised(label, phrase):
    assert not is_about(label, phrase)


def test_an_answer_of_empty_polygons_gives_nothing():
    assert read_answer({"bboxes": [], "bboxes_labels": [], "polygons": [[[]], []], "polygons_labels": ["a", "b"]}) == []


# Masks, from the real SAM 2.


def test_each_box_gets_its_own_mask_of_the_picture_s_size(segment):
    rgb = noise(60, 80)
    masks = list(segment(rgb, [CAT, DOG, PAW]))
    assert [mask.shape for mask in masks] == [(60, 80)] * 3
    assert all(mask.dtype == bool for mask in masks)
    for box, mask in zip([CAT, DOG, PAW], masks, strict=True):
        (alone,) = segment(rgb, [box])
        assert np.array_equal(alone, mask)
    assert not np.array_equal(masks[0], masks[1])


def test_without_a_box_the_model_is_not_asked(segment):
    asked = []
    hook = segment.model.register_forward_pre_hook(lambda *_: asked.append(1))
    assert list(segment(noise(20, 20), [])) == []
    hook.remove()
    assert asked == []


def test_a_picture_of_48_megapixels_gets_a_mask_of_its_size(segment):
    (mask,) = segment(np.full((6000, 8000, 3), 128, np.uint8), [(800, 600, 4000, 3000)])
    assert mask.shape == (6000, 8000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precisions_run(florence2_folder, sam2_folder, dtype):
    rgb = noise(60, 80)
    assert Florence2.load(florence2_folder, dtype=dtype)(rgb, "cat")[0].label == "cat"
    segment = Sam2.load(sam2_folder, dtype=dtype)
    assert segment.model.dtype == dtype
    assert next(segment(rgb, [CAT])).shape == (60, 80)


# From phrases to one mask.


def test_the_real_models_give_the_union_of_the_masks_of_the_answered_boxes(tmp_path, sam2_folder, segment):
    answer = "cat" + boxed(100, 200, 500, 600) + boxed(900, 900, 700, 600)
    folder = write_florence2(tmp_path / "florence2", answer=answer)
    maker = florence2_sam2_maker(Florence2Sam2Settings(phrases="cat"), florence2=folder, sam2=sam2_folder)
    shown = picture()
    finding = maker(shown)
    expected = np.any(list(segment(shown.rgb, [(8, 12, 40, 36), (56, 36, 72, 54)])), axis=0)
    assert finding.note == "2 × cat"
    assert finding.mask.dtype == np.float32
    assert 0 < expected.mean() < 1
    assert np.array_equal(finding.mask, expected.astype(np.float32))


def test_a_real_model_that_answers_of_something_else_finds_nothing(florence2_folder, sam2_folder):
    maker = florence2_sam2_maker(Florence2Sam2Settings(phrases="dog"), florence2=florence2_folder, sam2=sam2_folder)
    finding = maker(picture())
    assert finding.mask is None
    assert finding.note == 'no dog (left out: "cat")'


def test_all_boxes_of_all_phrases_are_united():
    script = Script(cat=[CAT, PAW], dog=[DOG])
    assert np.array_equal(script.mask(phrases="cat\ndog"), box_mask(CAT, PAW, DOG))
    assert script.prompts == [[CAT, PAW, DOG]]


def test_a_phrase_that_is_not_there_does_not_spoil_the_others():
    finding = Script(cat=[CAT]).maker(phrases="cat\nunicorn")(picture())
    assert np.array_equal(finding.mask, box_mask(CAT))
    assert finding.note == "1 × cat, no unicorn"


@pytest.mark.parametrize("invert", [False, True])
def test_without_a_box_nothing_is_found_and_nothing_segmented(invert):
    script = Script()
    finding = script.maker(phrases="cat", exclude="paw", invert=invert)(picture())
    assert finding.mask is None
    assert finding.note == "no cat"
    assert script.prompts == []


@pytest.mark.parametrize("invert", [False, True])
def test_empty_masks_are_nothing_found(invert):
    script = Script(cat=[CAT])
    script.segment = lambda rgb, boxes: (np.zeros(rgb.shape[:2], bool) for _ in boxes)
    finding = script.maker(phrases="cat", invert=invert)(picture())
    assert finding.mask is None
    assert "SAM 2 drew nothing" in finding.note


def test_a_mask_over_everything_leaves_nothing_when_it_is_inverted_and_says_so():
    finding = Script(cat=[(0, 0, 80, 60)]).maker(phrases="cat", invert=True)(picture())
    assert finding.mask is None
    assert finding.note.endswith("the mask is the whole picture, so inverted nothing is left")


def test_what_is_excluded_is_cut_out_of_the_grown_mask():
    mask = Script(cat=[CAT], paw=[PAW]).mask(phrases="cat", exclude="paw", dilation=4)
    expected = grow_mask(box_mask(CAT), radius=4) * (1 - box_mask(PAW))
    assert np.array_equal(mask, expected)


def test_holes_that_are_excluded_stay_open_where_holes_are_filled():
    script = Script(frame=[(10, 10, 50, 50)], hole=[(20, 20, 30, 30)])
    mask = script.mask(phrases="frame", exclude="hole", fill_holes=True)
    assert not mask[20:30, 20:30].any()


def test_excluding_everything_is_nothing_found_also_inverted():
    finding = Script(cat=[CAT], paw=[CAT]).maker(phrases="cat", exclude="paw", invert=True)(picture())
    assert finding.mask is None
    assert finding.note.startswith("1 × cat; excluded: 1 × paw; nothing is left")


@pytest.mark.parametrize("dilation", [-3, 5])
def test_dilation_grows_or_shrinks_by_pixels(dilation):
    mask = Script(cat=[CAT]).mask(phrases="cat", dilation=dilation)
    assert np.array_equal(mask, grow_mask(box_mask(CAT), radius=dilation))
    assert mask[20].sum() == 20 + 2 * dilation


def test_feather_softens_the_grown_mask_and_invert_comes_last():
    script = Script(cat=[CAT])
    soft = feather_mask(grow_mask(box_mask(CAT), radius=4), sigma=2.5)
    assert np.allclose(script.mask(phrases="cat", dilation=4, feather=2.5), soft)
    assert np.allclose(script.mask(phrases="cat", dilation=4, feather=2.5, invert=True), 1 - soft)


def test_enclosed_holes_are_filled_on_demand():
    script = Script(ring=[(10, 10, 40, 15), (10, 35, 40, 40), (10, 10, 15, 40), (35, 10, 40, 40)])
    assert script.mask(phrases="ring")[25, 25] == 0
    assert np.array_equal(script.mask(phrases="ring", fill_holes=True), box_mask((10, 10, 40, 40)))


def test_the_picture_is_not_changed():
    shown = picture()
    before = shown.rgb.copy()
    Script(cat=[CAT]).maker(phrases="cat", feather=2)(shown)
    assert np.array_equal(shown.rgb, before)


def test_a_cancel_between_phrases_ends_the_search():
    class Cancelled(BaseException):
        pass

    script = Script(cat=[CAT], dog=[DOG])

    def check_cancel():
        if script.phrases:
            raise Cancelled

    with pytest.raises(Cancelled):
        script.maker(phrases="cat\ndog", check_cancel=check_cancel)(picture())
    assert script.phrases == ["cat"]


def test_models_are_loaded_with_the_first_picture_and_once():
    script = Script(cat=[CAT])
    maker = script.maker(phrases="cat")
    assert script.loads == 0
    maker(picture())
    maker(picture())
    assert script.loads == 1


def test_closing_frees_both_models(florence2_folder, sam2_folder):
    maker = florence2_sam2_maker(Florence2Sam2Settings(phrases="cat"), florence2=florence2_folder, sam2=sam2_folder)
    maker(picture())
    kept = [weakref.ref(tool.model) for tool in maker._loaded]
    maker.close()
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


def test_a_closed_maker_loads_its_models_again(florence2_folder, sam2_folder):
    maker = florence2_sam2_maker(Florence2Sam2Settings(phrases="cat"), florence2=florence2_folder, sam2=sam2_folder)
    before = maker(picture()).mask
    maker.close()
    assert np.array_equal(maker(picture()).mask, before)


def test_closing_frees_both_models_after_a_cancel(florence2_folder, sam2_folder):
    class Cancelled(BaseException):
        pass

    asked = []

    def check_cancel():
        asked.append(1)
        if len(asked) > 3:
            raise Cancelled

    folders = {"florence2": florence2_folder, "sam2": sam2_folder}
    maker = florence2_sam2_maker(Florence2Sam2Settings(phrases="cat\ndog"), **folders, check_cancel=check_cancel)
    with pytest.raises(Cancelled):
        maker(picture())
    kept = [weakref.ref(tool.model) for tool in maker._loaded]
    maker.close()
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


# Settings.


def test_phrases_are_separated_by_lines_and_come_once():
    text = 'cat\n the "red",  dog \n\n Cat\r\n 🐱'
    assert parse_phrases(text, widget="phrases") == ("cat", 'the "red", dog', "🐱")


def test_a_phrase_cannot_be_wanted_and_excluded():
    with pytest.raises(ConfigError, match="exclude: cat is in phrases too"):
        check_florence2_sam2(Florence2Sam2Settings(phrases="dog\ncat", exclude="Cat"))


@pytest.mark.parametrize("text", ["", " \n\r\n \t"])
def test_no_phrase_is_an_error_that_names_the_widget(text):
    with pytest.raises(ConfigError, match="phrases: expected at least one phrase"):
        check_florence2_sam2(Florence2Sam2Settings(phrases=text))


@pytest.mark.parametrize("phrase", ["<OD>", "cat <loc_5>", "I <3 you", "<image>", "</s>"])
@pytest.mark.parametrize("widget", ["phrases", "exclude"])
def test_commands_of_florence_2_are_refused_in_phrases(widget, phrase):
    settings = dataclasses.replace(Florence2Sam2Settings(), **{widget: phrase})
    with pytest.raises(ConfigError, match=f"{widget}: .* holds < or >"):
        check_florence2_sam2(settings)


def test_whole_captions_and_broken_signs_are_refused():
    with pytest.raises(ConfigError, match="at most 100 signs, got 101"):
        parse_phrases("x" * 101, widget="phrases")
    with pytest.raises(ConfigError, match="half of a sign"):
        parse_phrases("cat \ud83d", widget="phrases")


@pytest.mark.parametrize(
    ("widget", "value"),
    [
        ("task", "guess"),
        ("precision", "int8"),
        ("max_boxes", -1),
        ("dilation", 513),
        ("feather", -1.0),
        ("feather", 257.0),
    ],
)
def test_settings_out_of_range_name_their_widget(widget, value):
    with pytest.raises(ConfigError, match=widget):
        check_florence2_sam2(Florence2Sam2Settings(**{widget: value}))


def test_every_task_is_one_of_the_library_s(florence2_folder):
    known = Florence2.load(florence2_folder).processor.task_prompts_with_input
    assert set(TASKS.values()) <= set(known)


# Local folders.


def test_no_network_is_reached_for(monkeypatch, florence2_folder, sam2_folder):
    def refuse(*args, **kwargs):
        raise AssertionError("something reached for the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    maker = florence2_sam2_maker(Florence2Sam2Settings(phrases="cat"), florence2=florence2_folder, sam2=sam2_folder)
    assert maker(picture()).mask is not None


def test_folders_as_they_are_published_load(tmp_path, sam2_folder):
    florence2 = write_florence2(tmp_path / "florence2", answer="cat" + boxed(100, 200, 500, 600))
    settings = json.loads((florence2 / "processor_config.json").read_text(encoding="utf-8"))
    (florence2 / "preprocessor_config.json").write_text(json.dumps(settings.pop("image_processor")), encoding="utf-8")
    (florence2 / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    video = write_sam2(tmp_path / "sam2", video=True)
    assert json.loads((video / "config.json").read_text(encoding="utf-8"))["model_type"] == "sam2_video"
    maker = florence2_sam2_maker(Florence2Sam2Settings(phrases="cat"), florence2=florence2, sam2=video)
    assert maker(picture()).note == "1 × cat"


def test_a_missing_folder_tells_which_files_go_where(tmp_path, sam2_folder):
    missing = tmp_path / "models" / "florence2" / "large"
    with pytest.raises(DataError) as caught:
        florence2_sam2_maker(Florence2Sam2Settings(), florence2=missing, sam2=sam2_folder)
    told = str(caught.value)
    assert str(missing) in told
    for name in (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "Florence-2-large",
    ):
        assert name in told


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = write_florence2(tmp_path / "florence2")
    (folder / name).rename(folder / f"{name}.bin")
    with pytest.raises(DataError, match=f"florence2: .* lacks {name}"):
        Florence2.load(folder)


def test_weights_under_other_names_are_refused_instead_of_left_random(tmp_path):
    florence2, sam2 = write_florence2(tmp_path / "florence2"), write_sam2(tmp_path / "sam2")
    for folder in (florence2, sam2):
        weights = load_file(folder / "model.safetensors")
        renamed = {f"other.{name}" if "0" in name else name: value for name, value in weights.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"florence2: .* weights of Florence-2 are missing"):
        Florence2.load(florence2)
    with pytest.raises(DataError, match=r"sam2: .* weights of SAM 2 are missing"):
        Sam2.load(sam2)


def test_weights_of_another_size_are_refused(tmp_path):
    folder = write_sam2(tmp_path / "sam2")
    weights = load_file(folder / "model.safetensors")
    weights["no_memory_embedding"] = torch.zeros(1, 1, 7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="sam2"):
        Sam2.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_cut_off_file_is_an_error_that_names_the_folder(tmp_path, name):
    folder = write_florence2(tmp_path / "florence2")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"florence2: .*cannot be loaded as Florence-2"):
        Florence2.load(folder)


def test_a_folder_of_the_other_model_is_refused(florence2_folder, sam2_folder):
    with pytest.raises(DataError, match=r"florence2: .* lacks generation_config\.json"):
        Florence2.load(sam2_folder)
    with pytest.raises(DataError, match="holds a model of type 'florence2', expected sam2 or sam2_video"):
        Sam2.load(florence2_folder)


def test_a_processor_that_cannot_read_answers_is_refused(tmp_path):
    folder = write_florence2(tmp_path / "florence2")
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["post_processor_config"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(DataError, match="how answers are read"):
        Florence2.load(folder)


def test_code_in_a_folder_is_never_run(tmp_path):
    folder = write_florence2(tmp_path / "florence2", answer="cat" + boxed(1, 2, 3, 4))
    trace = tmp_path / "trace"
    code = f"from pathlib import Path\nPath({str(trace)!r}).touch()\nclass Mine: pass\n"
    for name, entry in (
        ("config", "AutoConfig"),
        ("processor_config", "AutoProcessor"),
        ("tokenizer_config", "AutoTokenizer"),
    ):
        (folder / "mine.py").write_text(code, encoding="utf-8")
        path = folder / f"{name}.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["auto_map"] = {entry: "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
        path.write_text(json.dumps(settings), encoding="utf-8")
    assert Florence2.load(folder)(noise(30, 30), "cat")[0].label == "cat"
    assert not trace.exists()


def test_a_missing_library_tells_what_to_install():
    with pytest.raises(MaskLoraError, match=r'pip install -U "no_such_library>=4\.56"'):
        library_classes("Sam2Model", package="no_such_library")


def test_a_library_without_the_classes_is_too_old():
    with pytest.raises(MaskLoraError, match=r"newer is needed, installed is \S+ .*NoSuchModel.*pip install -U"):
        library_classes("NoSuchModel")
