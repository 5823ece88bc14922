"""Subject masks with ComfyUI's background-removal model on small files."""

import comfy.model_management
import numpy as np
import pytest
import torch

from harness.segmentation_models import core_node, load_birefnet, write_birefnet
from masklora.errors import ConfigError, FamilyError
from masklora.generators.finding import Picture
from masklora.host.finders.borrowed import as_image
from masklora.host.finders.subject import SubjectMasks, SubjectSettings, keep_largest


@pytest.fixture(scope="module")
def ruled(comfy_host, tmp_path_factory):
    """A BACKGROUND_REMOVAL whose subject is what differs from the picture's rim."""
    return load_birefnet(write_birefnet(tmp_path_factory.mktemp("bg") / "ruled.safetensors", ruled=True))


@pytest.fixture(scope="module")
def random(comfy_host, tmp_path_factory):
    """A BACKGROUND_REMOVAL with random weights."""
    return load_birefnet(write_birefnet(tmp_path_factory.mktemp("bg") / "random.safetensors"))


class Scripted:
    """A BACKGROUND_REMOVAL that gives one known answer."""

    def __init__(self, answer):
        self.answer = torch.as_tensor(answer)

    def encode_image(self, image):
        assert image.shape[0] == 1
        return self.answer


def spheres():
    """A large and a small bright disc with soft edges on black, and the discs."""
    y, x = np.mgrid[:80, :120]
    large = np.clip(25 - np.hypot(y - 40, x - 40), 0, 1)
    small = np.clip(8 - np.hypot(y - 40, x - 100), 0, 1)
    rgb = np.repeat(np.rint((large + small) * 255)[..., None], 3, -1).astype(np.uint8)
    return Picture("discs.png", rgb), large > 0.5, small > 0.5


def overlap(mask, truth):
    return ((mask > 0.5) & truth).sum() / ((mask > 0.5) | truth).sum()


def test_the_subject_is_white_with_a_soft_edge(ruled):
    picture, large, small = spheres()
    finding = SubjectMasks(ruled, SubjectSettings())(picture)
    assert finding.mask.dtype == np.float32
    assert finding.mask.min() >= 0
    assert finding.mask.max() <= 1
    assert overlap(finding.mask, large | small) > 0.95
    assert ((finding.mask > 0.01) & (finding.mask < 0.99)).any()
    assert (finding.mask == 0).mean() > 0.5
    assert finding.note == "2 parts"


def test_a_threshold_makes_it_black_and_white(ruled):
    picture, large, small = spheres()
    finding = SubjectMasks(ruled, SubjectSettings(threshold=0.7))(picture)
    assert set(np.unique(finding.mask)) == {0, 1}
    assert overlap(finding.mask, large | small) > 0.95


def test_the_largest_part_keeps_its_soft_edge_and_the_others_go(ruled):
    picture, _, _ = spheres()
    soft = SubjectMasks(ruled, SubjectSettings())(picture).mask
    finding = SubjectMasks(ruled, SubjectSettings(largest_only=True))(picture)
    np.testing.assert_array_equal(finding.mask[:, :70], soft[:, :70])
    assert finding.mask[:, 88:].max() == 0
    assert finding.note == "2 parts, the largest kept"


def test_a_plain_picture_has_no_subject(ruled):
    picture = Picture("plain.png", np.full((30, 40, 3), 90, np.uint8))
    finding = SubjectMasks(ruled, SubjectSettings())(picture)
    assert finding.mask is None
    assert finding.note.startswith("no pixel of a subject, the surest 0.0")


@pytest.mark.parametrize(("threshold", "found"), [(0.0, False), (0.3, True), (0.45, False)])
def test_what_counts_as_found_follows_the_threshold(comfy_host, threshold, found):
    answer = np.zeros((1, 6, 8), np.float32)
    answer[0, 2:4, 2:5] = 0.4
    finding = SubjectMasks(Scripted(answer), SubjectSettings(threshold=threshold))(
        Picture("faint.png", np.zeros((6, 8, 3), np.uint8))
    )
    assert (finding.mask is not None) == found


def test_the_mask_is_the_one_of_comfyui_s_own_node(random):
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    node = core_node("RemoveBackground", "nodes_bg_removal.py")
    with torch.inference_mode():
        expected = node.execute(bg_removal_model=random, image=torch.from_numpy(rgb).float()[None] / 255).result[0]
    finding = SubjectMasks(random, SubjectSettings())(Picture("noise.png", rgb))
    assert finding.mask.shape == (50, 70)
    assert 0 < (finding.mask > 0.5).mean() < 1
    np.testing.assert_allclose(finding.mask, expected[0].numpy(), atol=0.502 / 255)


def test_half_precision_answers_are_taken(comfy_host):
    answer = torch.ones(1, 5, 5, dtype=torch.bfloat16)
    finding = SubjectMasks(Scripted(answer), SubjectSettings())(Picture("a.png", np.zeros((5, 5, 3), np.uint8)))
    np.testing.assert_array_equal(finding.mask, np.ones((5, 5), np.float32))


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (900, 3)])
def test_pictures_of_any_shape_get_masks_of_their_size(random, size):
    rgb = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    finding = SubjectMasks(random, SubjectSettings(threshold=0.01))(Picture("odd.png", rgb))
    assert finding.mask.shape == size


@pytest.mark.parametrize("answer", [np.ones((1, 4, 4), np.float32), np.full((1, 6, 8), np.nan, np.float32)])
def test_an_answer_that_is_no_mask_of_the_picture_is_refused(comfy_host, answer):
    finder = SubjectMasks(Scripted(answer), SubjectSettings())
    with pytest.raises(FamilyError, match="model: expected one mask of 8×6 finite values"):
        finder(Picture("a.png", np.zeros((6, 8, 3), np.uint8)))


def test_another_model_is_refused_and_the_socket_named(comfy_host):
    with pytest.raises(FamilyError, match="model: expected a background removal model, got nothing"):
        SubjectMasks(None, SubjectSettings())
    with pytest.raises(FamilyError, match="model: expected a background removal model, got dict"):
        SubjectMasks({}, SubjectSettings())
    with pytest.raises(ConfigError, match="threshold: expected 0 to"):
        SubjectMasks(Scripted([0.0]), SubjectSettings(threshold=1.0))


def test_closing_unloads_the_model(ruled):
    finder = SubjectMasks(ruled, SubjectSettings())
    finder(spheres()[0])
    assert ruled.patcher in comfy.model_management.loaded_models()
    finder.close()
    assert ruled.patcher not in comfy.model_management.loaded_models()


def test_soft_pixels_go_with_the_part_that_is_nearest():
    mask = np.array([[0.2, 1.0, 1.0, 0.3, 0.4, 0.9, 0.1]], np.float32)
    labels = np.array([[0, 1, 1, 0, 0, 2, 0]], np.int32)
    np.testing.assert_array_equal(keep_largest(mask, labels), np.array([[0.2, 1, 1, 0.3, 0, 0, 0]], np.float32))
    single = np.where(labels == 1, 1, 0)
    assert keep_largest(mask, single) is mask


@pytest.mark.filterwarnings("error")
def test_a_picture_that_cannot_be_written_to_is_taken_without_a_warning():
    rgb = np.full((4, 5, 3), 51, np.uint8)
    rgb.flags.writeable = False
    image = as_image(rgb)
    assert image.shape == (1, 4, 5, 3)
    assert torch.allclose(image, torch.tensor(0.2))
