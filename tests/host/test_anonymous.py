"""Nothing that a person owns or is stays in a text that goes to somebody else."""

import pytest

from masklora.host.anonymous import anonymous

# In two parts: no file of this repository names a place on a real machine.
HOME = "/" + "home"

OWN = [
    f"{HOME}/anna smith/Träume und Pläne/cat 1.png",
    f"C:{chr(92)}Users" + r"\Anna Smith\my pictures\cat (1).png",
    r"\\server\share\anna\x.png",
    "~/anna/pictures",
    "D:/train/anna",
    "input/anna/cat 1.png",
    "anna/masks",
    "my anna cat.webp",
    "anna.v2.final.safetensors",
    '"anna in the garden"',
    "'anna in the garden'",
    "«anna au jardin»",
]
SENTENCES = [
    "{}: the mask is 512×512 but the image is 1024×768.",
    "Cannot read {}; try again.",
    "It lies in {}, which is gone ({}).",
]


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("own", OWN)
def test_paths_names_of_files_and_quotations_go_by_their_form(own, sentence):
    shown = anonymous(sentence.format(own, own), [])
    for part in ("anna", "Anna", "Smith", "smith", "Träume", "cat", "server", "share", "garden", "jardin"):
        assert part not in shown, shown
    assert "<" in shown


def test_what_is_known_to_be_somebody_s_own_goes_wherever_it_stands():
    secrets = ["Anna", "a zibble in a red hat", "IMG 20, best", "x"]
    shown = anonymous("Anna: A Zibble in a red hat, with IMG 20, best and ANNA. Susanna is x.", secrets)
    assert shown == "<own>: <own>, with <own> and <own>. Susanna is x."


@pytest.mark.parametrize(
    "text",
    [
        "3 of 10 pictures have no mask; they teach all of the picture.",
        "step 10/20: the loss isn't a finite number, and the picture's mask isn't either.",
        "Allocation on device failed. Lower the resolution to 512 or set swap_blocks to -1.",
        "warmup_steps: 100 are more than the 12 steps of the run.",
    ],
)
def test_a_sentence_without_anything_of_one_s_own_stays_as_it_is(text):
    assert anonymous(text, ["anna"]) == text
