"""The demo's drawn world, its hashed text table and the checkpoint that is put together from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from demo import assemble, captions, draw_pictures, judge, scenes, text

SIGNS_OF_A = [-1, 1, 1, -1, 1, -1, 1, 1, 1, -1, 1, 1]
SUM_OF_SIGNS = -8882


def every_tenth_combination():
    return scenes.combinations()[::10]


def test_the_same_seed_draws_the_same_scene():
    first, second = (scenes.draw_scene(np.random.default_rng(4), "star", "red", "pink dots") for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.mask, second.mask)


@pytest.mark.parametrize("thing", scenes.OBJECTS)
def test_an_object_fills_a_good_part_of_the_picture_and_stays_inside(thing):
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = scenes.draw_scene(rng, thing, "blue", "white paper").mask
        assert 0.1 < mask.mean() < 0.5
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.max() == 0


def test_edges_are_anti_aliased_and_the_inside_is_the_colour():
    scene = scenes.draw_scene(np.random.default_rng(2), "ball", "red", "white paper")
    soft = (scene.mask > 0) & (scene.mask < 1)
    assert 50 < soft.sum() < 1000
    inside = scene.image[scene.mask == 1].astype(float)
    assert np.abs(inside.mean(0) - scenes.COLOURS["red"]).max() < 8


def test_held_out_combinations_are_never_trained_on_but_all_their_words_are():
    trained, held = set(scenes.combinations()), set(scenes.combinations(held_out=True))
    assert held and not trained & held
    assert len(trained | held) == len(scenes.OBJECTS) * len(scenes.COLOURS) * len(scenes.BACKGROUNDS)
    for place in range(3):
        assert {c[place] for c in held} <= {c[place] for c in trained}


def test_the_backdrop_and_the_subject_are_in_none_of_the_base_scenes():
    rng = np.random.default_rng(3)
    shares = [judge.backdrop_share(scenes.draw_scene(rng, *c).image) for c in every_tenth_combination()]
    assert max(shares) < 0.01
    assert judge.backdrop_share(scenes.draw_subject(rng).image) > 0.4
    assert scenes.BACKDROP not in scenes.BACKGROUNDS
    assert scenes.TRIGGER not in " ".join(scenes.OBJECTS + scenes.BACKGROUNDS + tuple(scenes.COLOURS))


def test_the_subject_mask_covers_exactly_what_differs_from_its_background():
    pose = scenes.Pose(64, 64, 42, 0.1)
    scene = scenes.draw_subject(np.random.default_rng(5), pose=pose)
    ground = scenes.to_uint8(scenes.draw_background(np.random.default_rng(5), scenes.BACKDROP))
    changed = np.abs(scene.image.astype(int) - ground).max(-1) > 1
    assert not (changed & (scene.mask == 0)).any()
    assert changed[scene.mask == 1].all()


def test_every_caption_word_is_one_known_token():
    for thing, colour, background in scenes.combinations() + scenes.combinations(held_out=True):
        ids = captions.caption_ids(f"a {colour} {thing} on {background}")
        assert ids[0] == text.START_TOKEN and ids[-1] == text.END_TOKEN and len(ids) == captions.WORDS


def test_the_trigger_word_shares_no_token_with_the_captions():
    assert not set(captions.TRIGGER_IDS) & set(captions.WORD_IDS.values())
    assert len(set(captions.WORD_IDS.values())) == len(captions.WORD_IDS)


def test_hashed_signs_never_change():
    signs = text.hashed_signs(text.VOCABULARY, salt=1)
    assert signs[320, :12].tolist() == SIGNS_OF_A
    assert int(signs.astype(np.int64).sum()) == SUM_OF_SIGNS


def test_prompt_features_take_only_the_five_promised_values():
    ids = torch.tensor([captions.caption_ids("a red star on blue stripes") + [text.END_TOKEN] * 64])
    features = text.prompt_features(ids, tokens=text.token_table(), places=text.place_table())
    assert features.shape == (1, 77, 768)
    assert set(features.unique().tolist()) == {-1.5, -0.5, 0.0, 0.5, 1.5}
    assert features[0, 12:].abs().max() == 0


def test_unlike_words_are_nearly_orthogonal():
    rows = text.token_table()[list(captions.WORD_IDS.values())].float()
    cosines = rows @ rows.T / text.WIDTH
    assert (cosines - torch.eye(len(rows))).abs().max() < 0.16


def test_the_checkpoint_is_complete_reused_and_leaves_no_partial_file(tmp_path):
    path = assemble.build_checkpoint(tmp_path / "models")
    written = path.stat().st_mtime_ns
    assert assemble.build_checkpoint(tmp_path / "models") == path
    assert path.stat().st_mtime_ns == written
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert assemble.content_hash() in path.name
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        assert file.get_slice("model.diffusion_model.context_embedder.weight").get_shape() == [256, 4096]
        assert file.get_slice("first_stage_model.taesd_decoder.1.weight").get_shape() == [64, 16, 3, 3]
    assert set(text.encoder_tensors()) <= names
    assert len([n for n in names if n.startswith("text_encoders.")]) == 2 + 1 + 2 + 12 * 16


def test_the_shipped_files_fit_the_promised_size():
    folder = assemble.HERE
    shipped = [p for p in folder.rglob("*") if p.is_file() and ".work" not in p.parts and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in shipped) < 40e6


def test_the_judge_knows_drawn_scenes_and_the_subject():
    rng = np.random.default_rng(6)
    asked = every_tenth_combination()
    verdicts = judge.judge(np.stack([scenes.draw_scene(rng, *c).image for c in asked]))
    right = [(v.thing, v.colour, v.background) == c for v, c in zip(verdicts, asked, strict=True)]
    assert np.mean(right) > 0.9
    subjects = [scenes.draw_subject(rng, ground) for ground in scenes.BACKGROUNDS]
    verdicts = judge.judge(np.stack([s.image for s in subjects]))
    assert np.mean([v.shows_subject and not v.shows_backdrop for v in verdicts]) > 0.8
    assert all(v.shows_backdrop for v in judge.judge(np.stack([scenes.draw_subject(rng).image for _ in range(4)])))


def test_the_judge_refuses_pictures_of_another_size():
    with pytest.raises(ValueError, match="128"):
        judge.judge(np.zeros((1, 64, 64, 3), np.uint8))


def test_the_committed_pictures_are_what_the_script_draws():
    rng = np.random.default_rng(12)
    for i, (pose, caption) in enumerate(draw_pictures.subject_poses()):
        scene, name = scenes.draw_subject(rng, pose=pose), f"zibble_{i + 1:02}"
        masks = draw_pictures.PICTURES / "masks"
        with Image.open(draw_pictures.PICTURES / "alpha" / f"{name}.png") as picture:
            rgba = np.asarray(picture)
        with Image.open(masks / "images" / f"{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), rgba[..., :3])
        with Image.open(masks / "masks" / f"{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), rgba[..., 3])
        assert np.array_equal(rgba[..., :3], scene.image)
        assert (masks / "images" / f"{name}.txt").read_text(encoding="utf-8").strip() == caption


def test_captions_of_the_subject_never_name_the_backdrop():
    for path in (draw_pictures.PICTURES / "alpha").glob("*.txt"):
        assert path.read_text(encoding="utf-8").split() == ["a", "zibble"]


def test_caption_ids_are_those_of_comfyuis_own_tokenizer():
    from comfy.sd1_clip import SDTokenizer

    from demo.captions import TRIGGER_IDS, caption_ids
    from demo.scenes import BACKGROUNDS, TRIGGER

    tokenizer = SDTokenizer()
    for caption in ("", *(f"a red star on {background}" for background in BACKGROUNDS)):
        ids = [token for token, *_ in tokenizer.tokenize_with_weights(caption)[0]]
        ours = caption_ids(caption)
        assert ids[: len(ours)] == ours, caption
    trigger = [token for token, *_ in tokenizer.tokenize_with_weights(TRIGGER)[0]]
    assert tuple(trigger[1:3]) == TRIGGER_IDS
