"""Attention with hidden keys: our pinned path against every attention function that ComfyUI offers on the CPU."""

import comfy.ldm.modules.attention as core
import pytest
import torch

from masklora.errors import FamilyError
from masklora.host.model.token_attention import KEY_MASK, KeyMask, TextMask, combined_masks, pinned_attention

FUNCTIONS = {
    "basic": core.attention_basic,
    "sub_quad": core.attention_sub_quad,
    "split": core.attention_split,
    "pytorch": core.attention_pytorch,
}
HEADS, WIDTH, TEXT, IMAGE = 2, 8, 5, 11
LENGTH = TEXT + IMAGE


def qkv(*, length=LENGTH, skip_reshape=False, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    shape = (2, HEADS, length, WIDTH) if skip_reshape else (2, length, HEADS * WIDTH)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=requires_grad) for _ in "qkv"]


def key_mask(*, image=True, text=True):
    generator = torch.Generator().manual_seed(1)
    seen = torch.rand(2, IMAGE, generator=generator) > 0.5
    padding = torch.arange(TEXT) < torch.tensor([[3], [4]])
    return KeyMask(IMAGE, image=seen if image else None, text=padding if text else None)


def additive(mask):
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, float("-inf"))


def ours(keys, *args, **kwargs):
    return pinned_attention(core.attention_basic, *args, transformer_options={KEY_MASK: keys}, **kwargs)


@pytest.mark.parametrize("skip_reshape", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_pinned_attention_equals_each_core_function_with_the_same_mask_as_numbers_to_add(name, skip_reshape):
    mask, inputs = key_mask(), qkv(skip_reshape=skip_reshape)
    found = ours(mask, *inputs, HEADS, skip_reshape=skip_reshape)
    expected = FUNCTIONS[name](*inputs, HEADS, mask=additive(mask.of(LENGTH, LENGTH)), skip_reshape=skip_reshape)
    assert (found - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("name", FUNCTIONS)
def test_pinned_attention_has_the_gradients_of_each_core_function_too(name):
    mask, found, expected = key_mask(), qkv(requires_grad=True), qkv(requires_grad=True)
    ours(mask, *found, HEADS).square().sum().backward()
    FUNCTIONS[name](*expected, HEADS, mask=additive(mask.of(LENGTH, LENGTH))).square().sum().backward()
    for a, b in zip(found, expected, strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-12


def test_only_pytorch_s_attention_takes_our_boolean_mask_as_what_it_means():
    """Guards the reason for pinning: the others add it to the scores, or fail on its shape."""
    mask, inputs = key_mask().of(LENGTH, LENGTH), qkv()
    wrong = {}
    for name, function in FUNCTIONS.items():
        expected = function(*inputs, HEADS, mask=additive(mask))
        try:
            wrong[name] = float((function(*inputs, HEADS, mask=mask) - expected).abs().max())
        except RuntimeError:
            wrong[name] = "fails"
    assert wrong["pytorch"] <= 1e-12
    assert wrong["basic"] == "fails"
    assert wrong["sub_quad"] > 0.1 and wrong["split"] > 0.1


def test_a_row_without_any_visible_key_is_no_number_or_nothing_in_core_and_ours_has_none():
    nothing = additive(torch.zeros(2, 1, LENGTH, LENGTH, dtype=torch.bool))
    found = {name: function(*qkv(), HEADS, mask=nothing) for name, function in FUNCTIONS.items()}
    assert all(found[name].isnan().all() for name in ("basic", "sub_quad", "split"))
    assert not found["pytorch"].any()
    hidden = KeyMask(IMAGE, image=torch.zeros(2, IMAGE, dtype=torch.bool), text=torch.zeros(2, TEXT, dtype=torch.bool))
    v = qkv()[2]
    # Each token sees itself alone.
    assert torch.allclose(ours(hidden, *qkv(), HEADS), v)


def test_every_token_sees_itself_and_every_visible_one_and_no_other():
    mask = key_mask()
    made = mask.of(LENGTH, LENGTH)
    seen = torch.cat([mask.text, mask.image], dim=1)
    for row in range(2):
        for query in range(LENGTH):
            for key in range(LENGTH):
                assert bool(made[row, 0, query, key]) == (bool(seen[row, key]) or query == key)


def test_image_tokens_alone_and_tokens_before_the_text_are_told_by_the_length():
    mask = key_mask()
    assert torch.equal(mask.of(IMAGE, IMAGE)[:, 0], mask.of(LENGTH, LENGTH)[:, 0, TEXT:, TEXT:])
    longer = mask.of(LENGTH + 3, LENGTH + 3)
    assert torch.equal(longer[:, :, 3:, 3:], mask.of(LENGTH, LENGTH)) and longer[..., :3].all()
    only_text = key_mask(image=False)
    assert only_text.of(IMAGE, IMAGE) is None
    assert only_text.of(LENGTH, LENGTH)[..., TEXT:].all() and not only_text.of(LENGTH, LENGTH)[..., :TEXT].all()
    assert key_mask(text=False).of(LENGTH, LENGTH)[..., :TEXT].all()
    for length in (IMAGE - 1, IMAGE + TEXT - 1):
        with pytest.raises(FamilyError, match=f"attends to {length} tokens, expected {IMAGE}"):
            mask.of(length, length)


def test_a_mask_is_made_once_for_all_blocks():
    mask = key_mask()
    assert mask.of(LENGTH, LENGTH) is mask.of(LENGTH, LENGTH)


def test_cross_attention_is_left_alone():
    q, _, _ = qkv()
    _, k, v = qkv(length=4)
    assert torch.equal(ours(key_mask(), q, k, v, HEADS), core.attention_pytorch(q, k, v, HEADS))


@pytest.mark.parametrize("positional", [True, False])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
@pytest.mark.parametrize("kind", ["bool", "bias", "hiding bias"])
def test_a_mask_that_the_block_passes_counts_too(kind, dimensions, positional):
    generator = torch.Generator().manual_seed(4)
    shape = {2: (LENGTH, LENGTH), 3: (2, LENGTH, LENGTH), 4: (2, HEADS, LENGTH, LENGTH)}[dimensions]
    allowed = torch.rand(shape, generator=generator) > 0.3
    bias = torch.randn(shape, generator=generator, dtype=torch.float64)
    theirs = {"bool": allowed, "bias": bias, "hiding bias": bias.masked_fill(~allowed, float("-inf"))}[kind]
    mask, inputs = key_mask(), qkv()
    given = [inputs, [HEADS, theirs], {}] if positional else [inputs, [HEADS], {"mask": theirs}]
    found = ours(mask, *given[0], *given[1], **given[2])
    bias_of_theirs = additive(theirs) if kind == "bool" else theirs
    bias_of_theirs = bias_of_theirs[:, None] if dimensions == 3 else bias_of_theirs
    total = (additive(mask.of(LENGTH, LENGTH)) + bias_of_theirs).expand(2, HEADS, LENGTH, LENGTH)
    lost = total.isneginf().all(dim=-1)
    expected = core.attention_split(*inputs, HEADS, mask=total.masked_fill(lost[..., None], 0))
    rows = ~lost.any(dim=1)
    assert rows.sum() > 10
    assert (found - expected)[rows].abs().max() <= 1e-12
    assert found.isfinite().all()


@pytest.mark.parametrize("numbers", [False, True])
def test_where_both_masks_together_leave_a_token_nothing_the_block_s_own_counts(numbers):
    eye = torch.eye(3, dtype=torch.bool)[None, None]
    theirs = ~eye
    given = additive(theirs) if numbers else theirs
    both = combined_masks(eye, given)
    assert torch.equal(both, given)
    assert combined_masks(None, given) is given and combined_masks(eye, None) is eye


def test_a_text_all_of_which_is_padding_does_not_see_what_fills_it_up():
    """Such masks of text encoders hide by the lowest number there is, after which every key counts alike."""
    lowest = torch.full((1, 1, 1, 5), torch.finfo(torch.float64).min, dtype=torch.float64)
    queries, keys, values = (torch.randn(1, 5, HEADS * WIDTH, dtype=torch.float64) for _ in "qkv")
    wanted = core.attention_pytorch(queries, keys[:, :3], values[:, :3], HEADS, mask=lowest[..., :3])
    seen = TextMask(torch.arange(5)[None] < 3)
    options = {"transformer_options": {KEY_MASK: seen}}
    found = pinned_attention(core.attention_split, queries, keys, values, HEADS, mask=lowest, **options)
    assert (found - wanted).abs().max() <= 1e-12


def test_without_a_key_mask_attention_is_as_before():
    inputs = qkv()
    expected = core.attention_pytorch(*inputs, HEADS)
    for options in ({}, {"transformer_options": {}}, {"transformer_options": {KEY_MASK: None}}):
        assert torch.equal(pinned_attention(core.attention_split, *inputs, HEADS, **options), expected)
