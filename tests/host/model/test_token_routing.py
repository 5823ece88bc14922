"""Tokens that skip blocks and tokens that are not seen, in ComfyUI's own networks, against the same done by hand."""

import dataclasses
import functools
import math

import einops
import pytest
import torch
from comfy.ldm.flux.layers import timestep_embedding

from benchmarks.gradients import MODES
from harness.models import small_model, small_text, with_padding
from harness.small import small_models, tried
from masklora.dataset.geometry import Geometry
from masklora.errors import ConfigError, FamilyError
from masklora.host.families import families
from masklora.host.model.blocks import read_slot
from masklora.host.model.sampling_schedule import told_level
from masklora.host.model.token_attention import pinned_attention
from masklora.host.model.token_routing import PlannedNetwork
from masklora.host.model.trainable import TrainableModel
from masklora.loss.tokens import Passage, TokenPlan
from masklora.settings import AdapterSettings

# Rows and columns of tokens, and how many there are, of the text too; masks that hide keys belong to no route.
ROWS, COLUMNS = 4, 6
TOKENS, TEXT = ROWS * COLUMNS, 9
SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
CASES = {
    "flux": ("flux", {"double": 3, "single": 3}),
    "sd3": ("sd3", {"depth": 4}),
    "sd3.5": ("sd3", {"depth": 4, "self_attention": 3}),
}
# Families whose networks are not taken apart by hand: the laws below hold them.
HAVE_TOKENS = {family.name for family in families() if family.has_tokens}
OTHERS = [name for name in tried() if small_models()[name].family in HAVE_TOKENS and name not in CASES]
LAWS = {**CASES, **{name: (name, {}) for name in OTHERS}}
# Whose text has padding that can be told apart.
PADDED = [*CASES, "chroma"]
# First and last block: within the double blocks, from double to single ones, within the single ones.
WAYS = [("flux", 0, 1), ("flux", 1, 4), ("flux", 2, 3), ("flux", 4, 5), ("flux", 0, 5), ("sd3", 1, 2), ("sd3.5", 0, 3)]


class Bench:
    """A small model with an adapter and a batch of two unlike samples."""

    def __init__(self, case):
        family, sizes = LAWS[case]
        self.case, self.trainable = case, TrainableModel(small_model(family, **sizes))
        self.network = self.trainable.network
        self.adapters = self.trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)
        g = torch.Generator().manual_seed(3)
        for name, p in self.adapters.parameters().items():
            if name.endswith("lora_B"):
                p.data.normal_(0, 0.02, generator=g)
        _, self.tall, self.wide = self.trainable.family.patch
        grid = ROWS * self.tall, COLUMNS * self.wide
        self.noisy = torch.randn(2, self.trainable.channels, *grid, generator=g)
        self.u = torch.tensor([0.3, 0.8])
        self.texts = [with_padding(small_text(family, tokens=TEXT, seed=s), real=4 + s) for s in (0, 1)]

    def conditioning(self, texts=None):
        texts = texts or self.texts
        return self.trainable.collate(texts, [SQUARE] * len(texts), self.noisy.shape[1:])

    def predict(self, plan=None, *, noisy=None, mode="off", texts=None):
        with self.trainable.session(self.adapters, checkpointing=mode), torch.no_grad():
            noisy = self.noisy if noisy is None else noisy
            return self.trainable.denoise(noisy, self.u, self.conditioning(texts), tokens=plan)

    def gradients(self, plan=None, *, mode):
        with self.trainable.session(self.adapters, checkpointing=mode), self.trainable.autograd_scope():
            loss = self.trainable.denoise(self.noisy, self.u, self.conditioning(), tokens=plan).square().mean()
            parameters = list(self.adapters.parameters().values())
            # Nothing reads the text tokens of Qwen-Image's last block.
            return loss.detach(), torch.autograd.grad(loss, parameters, materialize_grads=True)

    def by_hand(self, passage=None, *, visible=None):
        """The prediction with the blocks called one by one on the kept tokens."""
        run = {"flux": flux_by_hand}.get(self.case, sd3_by_hand)
        with self.trainable.session(self.adapters, checkpointing="off"), torch.no_grad():
            c = self.conditioning()
            conds = {k: torch.cat([one[k] for one in c]) for k in c[0]}
            model = self.trainable.model
            told = told_level(self.u, model.model_sampling, self.trainable.schedule)
            t = model.process_timestep(told, x=self.noisy)
            return run(self.network, self.noisy, t, conds, passage, visible)


@pytest.fixture(scope="module")
def benches():
    return functools.cache(Bench)


def some_tokens(count=10, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(2, TOKENS, generator=g).topk(count, dim=1).indices.sort(dim=1).values


def some_visible(seed=0):
    return torch.rand(2, TOKENS, generator=torch.Generator().manual_seed(seed)) > 0.4


def everyone():
    return torch.arange(TOKENS).expand(2, -1)


def blocks_of(bench):
    return len(bench.trainable.token_blocks)


def pick(x, kept):
    return torch.stack([x[b, kept[b]] for b in range(len(x))])


def put(x, kept, values):
    out = x.clone()
    for b in range(len(x)):
        out[b, kept[b]] = values[b]
    return out


def options_for(visible, kept, *, text=TEXT):
    """Attention options that hide keys, written with loops: a query sees visible keys, the text and itself."""
    if visible is None:
        return {"optimized_attention_override": pinned_attention}

    def attention(function, q, k, v, heads, **kwargs):
        length = q.shape[2 if kwargs.get("skip_reshape") else 1]
        here = visible if kept is None else pick(visible, kept)
        in_front = length - here.shape[1]
        mask = torch.zeros(2, 1, length, length, dtype=torch.bool)
        for b in range(2):
            for key in range(length):
                mask[b, 0, :, key] = key < in_front or bool(here[b, key - in_front])
                mask[b, 0, key, key] = True
        kwargs["mask"] = mask
        return pinned_attention(function, q, k, v, heads, **kwargs)

    return {"optimized_attention_override": attention}


def flux_by_hand(n, noisy, t, conds, passage, visible):
    kept = None if passage is None else passage.kept
    img, ids = n.process_img(noisy)
    img, txt = n.img_in(img), n.txt_in(conds["c_crossattn"])
    vec = n.time_in(timestep_embedding(t, 256)) + n.vector_in(conds["y"])
    vec = vec + n.guidance_in(timestep_embedding(conds["guidance"], 256))
    text_ids = torch.zeros(2, TEXT, 3)
    for i, block in enumerate([*n.double_blocks, *n.single_blocks]):
        inside = passage is not None and passage.first <= i <= passage.last
        if inside and i == passage.first:
            behind, img = img, pick(img, kept)
        # The table is made anew from the positions of the tokens that are there.
        pe = n.pe_embedder(torch.cat([text_ids, pick(ids, kept) if inside else ids], dim=1))
        given = {"vec": vec, "pe": pe, "transformer_options": options_for(visible, kept if inside else None)}
        if i < len(n.double_blocks):
            img, txt = block(img=img.clone(), txt=txt.clone(), **given)
        else:
            x = block(torch.cat([txt, img], dim=1), **given)
            txt, img = x[:, :TEXT], x[:, TEXT:]
        if inside and i == passage.last:
            img = put(behind, kept, img)
    out = n.final_layer(img, vec)
    return einops.rearrange(out, "b (h w) (c p q) -> b c (h p) (w q)", h=ROWS, p=2, q=2)


def sd3_by_hand(n, noisy, t, conds, passage, visible):
    kept = None if passage is None else passage.kept
    x = n.x_embedder(noisy) + n.cropped_pos_embed(noisy.shape[2:])
    c = n.t_embedder(t, dtype=x.dtype) + n.y_embedder(conds["y"])
    context = n.context_embedder(conds["c_crossattn"])
    for i, block in enumerate(n.joint_blocks):
        inside = passage is not None and passage.first <= i <= passage.last
        if inside and i == passage.first:
            behind, x = x, pick(x, kept)
        options = options_for(visible, kept if inside else None)
        context, x = block(context, x, c=c, use_checkpoint=False, transformer_options=options)
        if inside and i == passage.last:
            x = put(behind, kept, x)
    return n.unpatchify(n.final_layer(x, c), hw=noisy.shape[2:])


@pytest.mark.parametrize("case", CASES)
def test_the_blocks_by_hand_are_the_network(case, benches):
    bench = benches(case)
    assert any(name.endswith("attn2.qkv.weight") for name in bench.network.state_dict()) == (case == "sd3.5")
    assert torch.allclose(bench.predict(), bench.by_hand(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("case", "first", "last"), WAYS)
@pytest.mark.parametrize("hides", [False, True])
def test_a_routed_network_equals_its_blocks_called_by_hand_on_the_kept_tokens(case, first, last, hides, benches):
    bench, passage = benches(case), Passage(first, last, some_tokens())
    visible = some_visible() if hides else None
    expected = bench.by_hand(passage, visible=visible)
    assert not torch.allclose(expected, bench.by_hand(visible=visible), atol=1e-3), "the route had no effect"
    for mode in MODES:
        found = bench.predict(TokenPlan(TOKENS, (passage,), visible), mode=mode)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5), mode


@pytest.mark.parametrize("case", LAWS)
def test_two_routes_are_one_after_the_other_and_keep_their_own_tokens(case, benches):
    bench = benches(case)
    last = blocks_of(bench) - 1
    one, other = Passage(0, 1, some_tokens(10, 1)), Passage(2, last, some_tokens(7, 2))
    both = bench.predict(TokenPlan(TOKENS, (one, other)))
    for single in (one, other):
        assert not torch.allclose(both, bench.predict(TokenPlan(TOKENS, (single,))), atol=1e-4)
    joined = bench.predict(TokenPlan(TOKENS, (Passage(0, 1, one.kept), Passage(2, last, one.kept))))
    assert torch.equal(joined, bench.predict(TokenPlan(TOKENS, (Passage(0, last, one.kept),))))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", LAWS)
def test_keeping_every_token_is_bit_identical_in_loss_and_equal_in_gradients(case, mode, benches):
    bench = benches(case)
    loss, gradients = bench.gradients(mode=mode)
    last = blocks_of(bench) - 1
    for passages in ([Passage(0, last, everyone())], [Passage(0, 1, everyone()), Passage(2, last, everyone())]):
        again, found = bench.gradients(TokenPlan(TOKENS, tuple(passages)), mode=mode)
        assert torch.equal(loss, again)
        # LTX-Video's arrive in another layout of memory, in which matrices are multiplied with another rounding.
        assert all((a - b).norm() <= 1e-6 * a.norm() for a, b in zip(gradients, found, strict=True))


@pytest.mark.parametrize("case", LAWS)
def test_gradients_of_a_routed_and_masked_network_agree_between_the_checkpointing_modes(case, benches):
    bench = benches(case)
    plan = TokenPlan(TOKENS, (Passage(1, blocks_of(bench) - 2, some_tokens()),), some_visible(), text_padding=True)
    truth = torch.cat([g.flatten() for g in bench.gradients(plan, mode="off")[1]])
    for mode in MODES[1:]:
        found = torch.cat([g.flatten() for g in bench.gradients(plan, mode=mode)[1]])
        assert (found - truth).norm() <= 1e-5 * truth.norm()


@pytest.mark.parametrize("case", ["flux", "sd3"])
def test_dropped_tokens_leave_a_routed_run_of_blocks_as_they_came(case, benches):
    bench, seen = benches(case), {}
    blocks = bench.trainable.token_blocks
    kept, text = some_tokens(), TEXT
    plan = TokenPlan(TOKENS, (Passage(1, len(blocks) - 2, kept),))

    def note(number, given, x):
        x = x[:, -TOKENS:] if x.shape[1] in (TOKENS, TOKENS + text) else None
        seen[number, given] = None if x is None else x.clone()

    def watch(number, block, kind):
        inner = type(block).forward.__get__(block)

        def forward(*args, **kwargs):
            note(number, True, read_slot(block, kind.image, args, kwargs))
            out = inner(*args, **kwargs)
            note(number, False, out if kind.result.at is None else out[kind.result.at])
            return out

        block.forward = forward

    try:
        for number, (block, kind) in enumerate(blocks):
            watch(number, block, kind)
        bench.predict(plan)
    finally:
        for block, _ in blocks:
            block.__dict__.pop("forward")
    assert all(seen[i, given] is None for i in range(1, len(blocks) - 1) for given in (True, False))
    before, after = seen[0, False], seen[len(blocks) - 1, True]
    dropped = torch.ones(2, TOKENS, dtype=torch.bool).scatter(1, kept, False)
    assert torch.equal(before[dropped], after[dropped])
    assert not torch.isclose(before[~dropped], after[~dropped]).all(dim=-1).any()


def joined_length(bench):
    """Tokens of text and picture together, each filled up to what the family fills it to."""
    small = small_models()[LAWS[bench.case][0]]
    pad = max(kind.pad for _, kind in bench.trainable.token_blocks)
    return small.text_front + TEXT + -TEXT % small.text_multiple + TOKENS + -TOKENS % pad


@pytest.mark.parametrize("case", LAWS)
def test_backward_keeps_the_kept_tokens_only(case, benches):
    bench, kept = benches(case), some_tokens(4)

    def stored(plan):
        shapes = []
        with (
            bench.trainable.session(bench.adapters, checkpointing="per block"),
            torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t),
        ):
            bench.trainable.denoise(bench.noisy, bench.u, bench.conditioning(), tokens=plan)
        # Anima's tokens have axes for frames, rows and columns; those of a sample that goes alone only theirs.
        tokens = [math.prod(s[1:-1]) for s in shapes if len(s) in (3, 5) and s[0] == 2]
        tokens += [s[0] for s in shapes if len(s) == 2 and bench.trainable.family.alone]
        return [n for n in tokens if n in (TOKENS, joined_length(bench))]

    last = blocks_of(bench) - 1
    assert len(stored(None)) >= last + 1
    # What is left is the final layer's.
    assert len(stored(TokenPlan(TOKENS, (Passage(0, last, kept),)))) <= len(stored(None)) - last - 1


@pytest.mark.parametrize("case", LAWS)
def test_what_a_hidden_token_holds_changes_no_other_token_s_prediction(case, benches):
    bench, hidden = benches(case), 13
    visible = torch.ones(2, TOKENS, dtype=torch.bool)
    visible[0, hidden] = False
    row, column = bench.tall * (hidden // COLUMNS), bench.wide * (hidden % COLUMNS)
    rows, columns = slice(row, row + bench.tall), slice(column, column + bench.wide)
    other = bench.noisy.clone()
    other[0, :, rows, columns] += 1.0
    kept = everyone()[:, 3:]
    for passages in ((), (Passage(1, blocks_of(bench) - 2, kept),)):
        plan = TokenPlan(TOKENS, passages, visible)
        changed = (bench.predict(plan) - bench.predict(plan, noisy=other)).abs()
        own = changed[0, :, rows, columns].clone()
        changed[0, :, rows, columns] = 0
        assert own.max() > 1e-2 and changed.max() == 0
    assert (bench.predict() - bench.predict(noisy=other)).abs()[0, :, :2, :2].max() > 1e-5


@pytest.mark.parametrize("case", LAWS)
def test_a_sample_without_weight_beside_a_masked_one_is_predicted_bit_for_bit_as_without_a_mask(case, benches):
    bench = benches(case)
    visible = some_visible()
    visible[1] = True
    plain, masked = bench.predict(), bench.predict(TokenPlan(TOKENS, visible=visible))
    assert torch.equal(plain[1], masked[1])
    assert not torch.allclose(plain[0], masked[0], atol=1e-4)
    visible[0] = True
    assert torch.equal(plain, bench.predict(TokenPlan(TOKENS, visible=visible)))


@pytest.mark.parametrize("case", PADDED)
def test_padding_of_the_text_is_not_looked_at_when_its_switch_is_on_and_only_then(case, benches):
    bench = benches(case)
    other = [{**t, "cond": torch.where(t["text_mask"][..., None], t["cond"], t["cond"] + 1.0)} for t in bench.texts]
    for passages in ((), (Passage(1, blocks_of(bench) - 2, some_tokens()),)):
        hidden = TokenPlan(TOKENS, passages, text_padding=True)
        assert torch.equal(bench.predict(hidden), bench.predict(hidden, texts=other))
        seen = TokenPlan(TOKENS, passages)
        assert not torch.allclose(bench.predict(seen), bench.predict(seen, texts=other), atol=1e-4)


@pytest.mark.parametrize("case", LAWS)
def test_a_stored_text_mask_changes_nothing_while_the_switch_is_off(case, benches):
    bench = benches(case)
    bare = [{k: v for k, v in t.items() if k != "text_mask"} for t in bench.texts]
    assert torch.equal(bench.predict(), bench.predict(texts=bare))
    with pytest.raises(ConfigError, match=r"text_padding_mask.*Cache Dataset"):
        bench.predict(TokenPlan(TOKENS, text_padding=True), texts=bare)


@pytest.mark.parametrize("case", LAWS)
def test_samples_of_unequal_text_length_follow_their_own_part_of_the_plan(case, benches):
    bench = benches(case)
    texts = [bench.texts[0], with_padding(small_text(LAWS[case][0], tokens=TEXT + 5, seed=7), real=6)]
    plan = TokenPlan(TOKENS, (Passage(1, blocks_of(bench) - 2, some_tokens()),), some_visible(), text_padding=True)
    both = bench.predict(plan, texts=texts)
    with bench.trainable.session(bench.adapters), torch.no_grad():
        for i in range(2):
            alone = bench.trainable.denoise(
                bench.noisy[i : i + 1], bench.u[i : i + 1], bench.conditioning([texts[i]]), tokens=plan.rows([i])
            )
            assert torch.allclose(both[i], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["flux", "sd3"])
def test_samples_come_back_in_their_order_where_texts_of_one_length_surround_another(case, benches):
    bench = benches(case)
    longer = with_padding(small_text(LAWS[case][0], tokens=TEXT + 5, seed=7), real=6)
    texts, rows = [bench.texts[0], longer, bench.texts[1]], [0, 1, 1]
    noisy, u = bench.noisy[rows] * torch.tensor([1.0, 1.0, 0.5]).view(3, 1, 1, 1), bench.u[rows]
    with bench.trainable.session(bench.adapters), torch.no_grad():
        together = bench.trainable.denoise(noisy, u, bench.conditioning(texts))
        for i in range(3):
            alone = bench.trainable.denoise(noisy[i : i + 1], u[i : i + 1], bench.conditioning([texts[i]]))
            assert torch.allclose(together[i], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["flux", "sd3"])
def test_no_block_remembers_a_route_after_a_pass_or_an_error(case, mode, benches, monkeypatch):
    bench = benches(case)
    plan = TokenPlan(TOKENS, (Passage(0, 2, some_tokens()),))
    t = bench.trainable
    expected = bench.predict()
    with t.session(bench.adapters, checkpointing=mode):
        before = [block.__dict__.get("forward") for block, _ in t.token_blocks]
        t.denoise(bench.noisy, bench.u, bench.conditioning(), tokens=plan)
        assert [block.__dict__.get("forward") for block, _ in t.token_blocks] == before
        third = t.token_blocks[2][0]

        def fail(*args, **kwargs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(type(third), "forward", fail)
            with pytest.raises((KeyboardInterrupt, RuntimeError)), t.autograd_scope():
                third.__dict__.pop("forward", None)
                t.denoise(bench.noisy, bench.u, bench.conditioning(), tokens=plan)
        for (block, _), forward in zip(t.token_blocks[:2], before, strict=False):
            assert block.__dict__.get("forward") == forward
    assert torch.equal(bench.predict(), expected)


def test_tokens_of_another_number_than_planned_are_refused(benches):
    bench = benches("sd3")
    with pytest.raises(FamilyError, match=r"24 tokens where 20 of the picture"):
        bench.predict(TokenPlan(20, (Passage(0, 1, torch.arange(10).expand(2, -1)),)))
    with pytest.raises(FamilyError, match="Switch both off"):
        bench.predict(TokenPlan(40, visible=torch.zeros(2, 40, dtype=torch.bool)))


@pytest.mark.parametrize(("case", "at"), [("flux", "attn_mask"), ("wan", "itself")])
def test_a_table_of_positions_that_a_call_leaves_out_is_an_error(case, at, benches, monkeypatch):
    """The tokens that are kept would be taken for those at the first places."""
    bench = benches(case)
    trainable, plan = bench.trainable, TokenPlan(TOKENS, (Passage(0, 1, torch.arange(7).expand(2, -1)),))
    with trainable.session(bench.adapters, checkpointing="off"), torch.no_grad():
        changed = [
            (block, dataclasses.replace(kind, rotary=(dataclasses.replace(kind.rotary[0], at=at),)))
            for block, kind in trainable.blocks
        ]
        monkeypatch.setitem(trainable.__dict__, "blocks", changed)
        with pytest.raises(FamilyError, match=rf"ComfyUI calls \w+ without '{at}'.*empty routes"):
            trainable.denoise(bench.noisy, bench.u, bench.conditioning(), tokens=plan)


def test_attention_masks_are_made_once_a_pass_for_each_set_of_kept_tokens(benches, monkeypatch):
    from masklora.host.model import token_routing

    bench, made = benches("flux"), []
    plain = token_routing.KeyMask._make
    monkeypatch.setattr(token_routing.KeyMask, "_make", lambda self, n: made.append(n) or plain(self, n))
    kept = some_tokens()
    plan = TokenPlan(TOKENS, (Passage(0, 1, kept), Passage(3, 4, kept)), some_visible())
    bench.predict(plan)
    assert sorted(made) == [TEXT + kept.shape[1], TEXT + TOKENS]


def test_a_network_without_routes_or_masks_gets_the_plain_options(benches):
    bench = benches("flux")
    plan, seen = TokenPlan(TOKENS), bench.texts[0]["text_mask"]
    assert not isinstance(bench.trainable._following(plan, seen, None, references=0), PlannedNetwork)
    assert isinstance(bench.trainable._following(plan, None, seen), PlannedNetwork)


@pytest.mark.parametrize(("case", "looking"), [("wan", 3), ("z_image", 4), ("flux", 6)])
def test_an_attention_that_is_as_long_by_chance_follows_no_mask(case, looking, benches, monkeypatch):
    """Wan's cross-attention and a text of as many tokens as the picture has; Z-Image's refiner of the text."""
    from masklora.host.model import token_attention

    bench, asked = benches(case), []
    plain = token_attention.KeyMask.of
    monkeypatch.setattr(token_attention.KeyMask, "of", lambda self, *n: asked.append(n) or plain(self, *n))
    texts = [small_text(LAWS[case][0], tokens=TOKENS, seed=s) for s in (0, 1)]
    bench.predict(TokenPlan(TOKENS, visible=some_visible()), texts=texts)
    assert len(asked) == looking


def test_a_mask_that_no_attention_asks_for_is_an_error(benches, monkeypatch):
    """As of a ComfyUI that no longer hands its options on to the model's attention."""
    from masklora.host.model import trainable

    bench = benches("flux")
    monkeypatch.setattr(trainable, "pinned_attention", lambda function, *args, **kwargs: function(*args, **kwargs))
    with pytest.raises(FamilyError, match=r"^attention_mask, text_padding_mask, batch_size: .*does not hand the masks"):
        bench.predict(TokenPlan(TOKENS, visible=some_visible()))
