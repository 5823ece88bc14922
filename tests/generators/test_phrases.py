"""Phrases of every odd kind: searched as typed, or refused with the widget's name and what to do."""

import numpy as np
import pytest

from harness.grounding_models import boxed, write_florence2, write_sam2
from harness.odd_pictures import scene, tells_what_to_do
from harness.segmentation_models import core_node, load_sam3, write_sam3
from masklora.errors import ConfigError
from masklora.generators.finding import Picture
from masklora.generators.florence2_sam2 import Florence2Sam2Settings, florence2_sam2_maker
from masklora.generators.phrases import check_phrases, split_phrases
from masklora.host.finders.sam3 import TextMasks, TextSettings

ODD = {
    '"cat"': 1,
    "it's a cat": 1,
    "“cat” «chat»": 1,
    "🐈": 1,
    "🐈‍⬛ cat": 1,
    "(cat:1.2)": 1,
    "\\(cat\\)": 1,
    "cat:5": 1,
    "cat, dog": 1,
    ",": 1,
    "()": 1,
    "قطة سوداء": 1,
    "\u200f\u05d7\u05ea\u05d5\u05dc\u200f": 1,
    "猫 と 犬": 1,
    "embedding:cat": 1,
    "{cat|dog} __cat__ %s {0}": 1,
    "cat\r\ndog\rbird\n": 3,
    "cat\u2028dog": 2,
    "\ufeffcat": 1,
    "Straße\nSTRASSE\ncat": 2,
}
NOTHING = ["", "   ", "\n\r\n\t", "\ufeff", "\u200b \u00a0\n\u200d", "\u202e"]
REFUSED = {
    "ca\0t": "control character (U+0000)",
    "\0": "control character (U+0000)",
    "cat\x1b[31m": "control character (U+001B)",
    "cat\n\x7f": "control character (U+007F)",
    "cat \ud83d": "half of a sign",
    "cat " * 200: "cat cat cat cat cat cat cat cat cat cat '…",
    "x" * 3000: "xxx'…",
}


@pytest.fixture(scope="module")
def searches(comfy_host, tmp_path_factory):
    """A function that makes the search of a node: `make(node, phrases, exclude)`; nothing answers by rule."""
    core_node("SAM3_Detect", "nodes_sam3.py")
    folder = tmp_path_factory.mktemp("models")
    sam3 = load_sam3(write_sam3(folder / "random.safetensors"))
    florence2 = write_florence2(folder / "florence2", answer=boxed(100, 200, 500, 600))
    sam2 = write_sam2(folder / "sam2")

    def make(node, phrases, exclude=""):
        if node == "sam3":
            settings = TextSettings(phrases=phrases, exclude=exclude, threshold=0.0, refine=0, instances=1)
            return TextMasks(*sam3, settings)
        settings = Florence2Sam2Settings(phrases=phrases, exclude=exclude)
        return florence2_sam2_maker(settings, florence2=florence2, sam2=sam2)

    return make


@pytest.mark.parametrize("text", ODD, ids=ascii)
@pytest.mark.parametrize("node", ["sam3", "florence2"])
def test_a_phrase_of_odd_signs_is_searched_and_told_as_typed(searches, node, text):
    finding = searches(node, text)(Picture("a.png", scene()))
    phrases = split_phrases(text, widget="phrases")
    assert len(phrases) == ODD[text]
    assert all(phrase in finding.note for phrase in phrases)
    assert finding.mask is None or (finding.mask.shape == (40, 48) and np.isfinite(finding.mask).all())


@pytest.mark.parametrize("text", NOTHING, ids=ascii)
@pytest.mark.parametrize("node", ["sam3", "florence2"])
def test_a_text_in_which_nothing_can_be_seen_is_no_phrase(searches, node, text):
    with pytest.raises(ConfigError, match=r"^phrases: expected at least one phrase, got none\. Write") as caught:
        searches(node, text)
    assert tells_what_to_do(str(caught.value))
    assert searches(node, "cat", exclude=text)(Picture("a.png", scene())).note.count("excluded") == 0


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize("widget", ["phrases", "exclude"])
@pytest.mark.parametrize("node", ["sam3", "florence2"])
def test_a_phrase_that_cannot_be_read_is_refused_in_a_short_message(searches, node, widget, text):
    with pytest.raises(ConfigError) as caught:
        searches(node, **{"phrases": "bird", widget: text})
    message = str(caught.value)
    assert message.startswith(f"{widget}: ")
    assert REFUSED[text] in message
    assert len(message) < 200
    assert tells_what_to_do(message)


def test_phrases_are_lines_without_blanks_and_repeats():
    text = " a  cat\r\n\n\tdog, wet\nA Cat\n "
    assert split_phrases(text, widget="phrases") == ("a cat", "dog, wet")


def test_a_phrase_is_not_wanted_and_excluded_whatever_its_case():
    with pytest.raises(ConfigError, match="exclude: Cat is in phrases too"):
        check_phrases(("Cat", "dog"), ("bird", "cat"))
    check_phrases(("Cat",), ("dog",))
