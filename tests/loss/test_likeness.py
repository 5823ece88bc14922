"""Three figures of sample pictures from features: what must hold of them whatever network made these."""

import math

import pytest
import torch

from masklora.loss.likeness import FIGURES, Likeness, alike, compare

SIZE = 12
ALL, NONE = [True] * 3, [False] * 3


def features(count=3, seed=0):
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed))


def measured(samples, base=None, **changes):
    given = {"subjects": features(4, 1), "backgrounds": features(4, 2), "asking": ALL, "plain": ALL}
    return compare(samples, features(len(samples), 3) if base is None else base, **given | changes)


def test_identical_pictures_are_wholly_alike_and_have_not_drifted():
    one = features(1)
    same = one.expand(3, -1)
    found = measured(same, same, subjects=one)
    assert found.likeness == pytest.approx(1, abs=1e-12) and found.drift == 0
    assert measured(same, subjects=-one).likeness == pytest.approx(-1, abs=1e-12)
    assert measured(same, -same).drift == pytest.approx(2)


def test_likeness_and_drift_are_mean_cosines():
    samples, base, subjects = features(3, 4), features(3, 5), features(2, 6)
    found = measured(samples, base, subjects=subjects)
    cosine = torch.nn.functional.cosine_similarity
    assert found.likeness == pytest.approx(float(cosine(samples[:, None], subjects[None], dim=2).mean()), abs=1e-6)
    assert found.drift == pytest.approx(1 - float(cosine(samples, base, dim=1).mean()), abs=1e-6)


def test_the_length_of_features_does_not_count():
    samples, base = features(3, 4), features(3, 5)
    scaled = measured(samples * 7.5, base * 0.01, subjects=features(4, 1) * 3, backgrounds=features(4, 2) / 9)
    for name, value in measured(samples, base).row.items():
        assert scaled.row[name] == pytest.approx(value, abs=1e-6)


def test_pictures_of_the_base_model_leak_nothing_to_the_bit():
    assert measured(features(), features()).leak == 0.0
    assert measured(features() * 2, features() * 2).leak == 0.0


def test_the_training_background_leaks_more_than_the_subject_before_another():
    """A picture's direction is made of its subject's and its background's."""
    subject, background, beach, other = features(4, 8)
    base = torch.stack([other + beach] * 3)
    known = {"subjects": subject[None], "backgrounds": background[None]}
    copied, right = (measured(torch.stack([one] * 3), base, **known) for one in (subject + background, subject + beach))
    assert copied.leak > 0.3 and copied.leak > right.leak + 0.3
    # What the help page warns of: the likeness alone does not tell the two apart.
    assert copied.likeness == pytest.approx(right.likeness, abs=0.25)


def test_what_is_unknown_is_absent_and_not_zero():
    none = torch.zeros(0, SIZE)
    assert measured(features(), subjects=none).row.keys() == {"picture_leak", "picture_drift"}
    assert measured(features(), backgrounds=none).row.keys() == {"picture_likeness", "picture_drift"}
    gone = torch.full((3, SIZE), math.nan)
    assert measured(features(), gone).row.keys() == {"picture_likeness"}
    assert measured(gone).row == {} and measured(none, none, asking=[], plain=[]).row == {}
    assert measured(features(), asking=NONE).row.keys() == {"picture_drift"}
    assert measured(features(), plain=NONE).row.keys() == {"picture_likeness", "picture_leak"}
    assert Likeness().row == {} and tuple(Likeness(1.0, 0.0, 0.0).row) == FIGURES


def test_pictures_that_are_not_there_change_nothing_of_the_others():
    samples, base = features(3, 4), features(3, 5)
    holed = samples.clone()
    holed[1] = math.nan
    two = measured(samples[[0, 2]], base[[0, 2]], asking=ALL[:2], plain=ALL[:2])
    assert measured(holed, base) == two
    holed = base.clone()
    holed[1, 0] = math.inf
    assert measured(samples, holed).drift == two.drift


def test_each_picture_counts_for_what_its_prompt_asks():
    samples, base = features(3, 4), features(3, 5)
    found = measured(samples, base, asking=[True, False, False], plain=[False, True, True])
    asked = measured(samples[:1], base[:1], asking=[True], plain=[True])
    rest = measured(samples[1:], base[1:], asking=[True] * 2, plain=[True] * 2)
    assert (found.likeness, found.leak, found.drift) == (asked.likeness, asked.leak, rest.drift)


def test_references_are_like_themselves_as_far_as_they_are_alike():
    own = torch.eye(2)
    known = {"backgrounds": torch.zeros(0, 2), "asking": [True, True], "plain": [False, False]}
    assert compare(own, own, subjects=own, **known).likeness == pytest.approx(0.5)
    assert compare(own[:1], own[:1], subjects=own[:1], **(known | {"asking": [True], "plain": [False]})).likeness == 1


def test_how_alike_pictures_are_among_themselves():
    one = features(1)
    assert alike(one) is None and alike(one[:0]) is None
    assert alike(one.expand(5, -1)) == pytest.approx(1)
    assert alike(torch.cat([one, -one])) == pytest.approx(-1)
    three = features(3)
    pairs = [float(torch.cosine_similarity(three[i], three[j], dim=0)) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert alike(three) == pytest.approx(sum(pairs) / 3, abs=1e-6)
