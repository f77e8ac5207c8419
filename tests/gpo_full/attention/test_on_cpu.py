"""Attention as products of blocks: the softmax of high precision, gradients of finite differences, and where it is used."""

import weakref
from contextlib import nullcontext
from typing import Any

import mpmath
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.attention import on_cpu as module
from gpo_full.attention.mask import PairMask, _is_multiplied, kept_by_attention
from gpo_full.attention.on_cpu import RowAttention, copies
from gpo_full.attention.prompt_blocks import BlockSizes
from gpo_full.engine.log_probabilities import token_log_probabilities
from gpo_full.engine.packing import pack
from tests.support.pairs import some_pairs
from tests.support.tiny_models import tiny_model

CPU = torch.device("cpu")
# Tails that are masked, copied after a masked one, empty, and none but the first.
SOME = [
    BlockSizes(3, 4, (2, 1, 3)), BlockSizes(1, 1, (9, 1, 5)), BlockSizes(2, 5, (0, 4)), BlockSizes(2, 2, (3, 0)),
    BlockSizes(1, 2, (1,)),
]


def some_tensors(rows: int, *shapes: tuple[int, int], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """As layers have them: heads beside one another in memory."""
    torch.manual_seed(0)
    return [torch.randn(1, rows, heads, width, dtype=dtype).transpose(1, 2).requires_grad_() for heads, width in shapes]


def length(sizes: list[BlockSizes]) -> int:
    return sum(each.size for each in sizes)


def sees(sizes: list[BlockSizes]) -> torch.Tensor:
    """By naming the place of each token: same block, not later, and in the prefix or in one's own tail."""
    names = [(b, t) for b, each in enumerate(sizes) for t, n in enumerate((each.prefix, *each.tails)) for _ in range(n)]
    block, tail = torch.tensor(names).T
    same = (block[:, None] == block) & ((tail == 0) | (tail[:, None] == tail))
    return same & (torch.arange(len(names))[:, None] >= torch.arange(len(names)))


@pytest.mark.parametrize("copied", [0, 1, 20])
def test_it_is_the_softmax_of_arbitrary_precision(copied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COPIED", copied)
    monkeypatch.setattr(module, "QUERIES", 4)
    sizes = [BlockSizes(1, 3, (2, 2)), BlockSizes(1, 1, (1, 1))]
    query, key, value = some_tensors(length(sizes), (1, 3), (1, 3), (1, 2))
    expected = []
    with mpmath.workdps(40):
        q, k, v = (mpmath.matrix(each[0, 0].tolist()) for each in (query, key, value))
        for i in range(length(sizes)):
            weights = [mpmath.exp(mpmath.mpf("0.7") * (q[i, :] * k[j, :].T)[0]) if sees(sizes)[i, j] else mpmath.mpf(0)
                       for j in range(length(sizes))]  # fmt: skip
            expected.append([float(sum(w * v[j, n] for j, w in enumerate(weights)) / sum(weights)) for n in range(2)])
    found = RowAttention(sizes, CPU, sources_only=False)(query, key, value, 0.7)
    assert found[0, 0].tolist() == [pytest.approx(row, rel=1e-13) for row in expected]


@pytest.mark.slow
@pytest.mark.parametrize("longest", [0, 6, 768])
@pytest.mark.parametrize("sources_only", [True, False])
def test_gradients_are_those_of_finite_differences(sources_only: bool, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of at most four queries: less, as many, more; with probabilities kept, in part, not at all."""
    monkeypatch.setattr(module, "QUERIES", 4)
    monkeypatch.setattr(module, "LONGEST", longest)
    monkeypatch.setattr(module, "COPIED", 1)
    row = RowAttention(SOME, CPU, sources_only=sources_only)
    assert {len(part.spans) for part in row.parts} == {1, 2}
    assert torch.autograd.gradcheck(row, some_tensors(length(SOME), (2, 3), (2, 3), (2, 2)))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.builds(lambda prompt, more, tails: BlockSizes(prompt, prompt + more, tuple(tails)), st.integers(1, 150),
                       st.integers(0, 9), st.lists(st.integers(0, 90), min_size=1, max_size=4)), min_size=1, max_size=3),
    st.integers(1, 3), st.sampled_from([None, 0.3]),
)  # fmt: skip
def test_it_equals_torchs_kernel(sizes: list[BlockSizes], heads: int, scale: float | None) -> None:
    tensors = some_tensors(length(sizes), *[(heads, 8)] * 3)
    seen = sees(sizes)
    found = RowAttention(sizes, CPU, sources_only=False)(*tensors, scale)
    expected = F.scaled_dot_product_attention(*tensors, seen, scale=scale)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((each * weight).sum(), tensors) for each in (found, expected)]
    torch.testing.assert_close(*gradients)
    # So that reshaping after it costs no copy.
    assert all(each.transpose(1, 2).is_contiguous() for each in (found, *gradients[0]))


def test_large_scores_stay_finite() -> None:
    tensors = [(1e4 * each.detach()).float().requires_grad_() for each in some_tensors(70, *[(1, 4)] * 3)]
    found = RowAttention([BlockSizes(60, 60, (5, 5))], CPU, sources_only=False)(*tensors)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(each.grad.isfinite().all() for each in tensors)


def test_what_is_not_read_is_not_computed() -> None:
    """From the last token of the prompt on: 2 + 6, 1 + 15, 4 + 4, 1 + 3, 2 + 1 of 10, 16, 9, 5, 3."""
    asked = [sum(c.size for part in RowAttention([each], CPU, sources_only=True).parts for c in part.chunks) for each in SOME]
    assert asked == [8, 16, 8, 4, 3]
    (query,) = some_tensors(length(SOME), (1, 2))
    values = RowAttention(SOME, CPU, sources_only=True)(query, query, query)[0, 0]
    assert values.any(1).logical_not().nonzero().flatten().tolist() == [0, 1, 26, 35]


def test_a_block_is_no_larger_than_a_group_and_the_groups_are_even() -> None:
    (part,) = RowAttention([BlockSizes(150, 150, (20,))], CPU, sources_only=False).parts
    assert [chunk.size for chunk in part.chunks] == [56, 57, 57]
    assert [chunk.keys for chunk in part.chunks] == [56, 113, 170]


@pytest.mark.parametrize(("tails", "spans"), [((35, 35), 1), ((150, 150), 2), ((300, 1, 300, 1), 3)])
def test_long_tails_are_copied(tails: tuple[int, ...], spans: int) -> None:
    """A short one is masked; one after a copied one is copied too, so that the masked ones lie together."""
    row = RowAttention([BlockSizes(300, 300, tails)], CPU, sources_only=False)
    assert len(row.parts) == spans
    assert copies(300, 300 + tails[0], tails[-1] if spans < 3 else tails[2]) == (spans > 1)


def test_where_it_is_used() -> None:
    def shaped(**options: Any) -> torch.Tensor:
        return torch.empty(1, 2, 3, 4, **options)

    assert _is_multiplied(shaped())
    assert _is_multiplied(shaped(dtype=torch.float64))
    assert not _is_multiplied(shaped(dtype=torch.bfloat16))
    assert not _is_multiplied(shaped(device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not _is_multiplied(shaped())


@pytest.mark.parametrize(("way", "here"), [("here", True), ("dropout", False), ("fewer heads of keys", False)])
def test_a_row_of_pairs_goes_one_way_or_the_other(way: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mask, calls = pack(some_pairs(), "line").mask, []
    own = RowAttention.__call__
    monkeypatch.setattr(RowAttention, "__call__", lambda *args: (calls.append(way), own(*args))[1])
    query, key = some_tensors(mask.shape[-1], (2, 4), (1 if way == "fewer heads of keys" else 2, 4))
    F.scaled_dot_product_attention(query, key, key, attn_mask=mask, dropout_p=0.5 * (way == "dropout"),
                                   enable_gqa=key.shape[1] == 1)  # fmt: skip
    assert calls == [way] * here


def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    own, made, alive = module._probabilities, [], []

    def noted(*args: Any) -> torch.Tensor:
        alive.append(sum(each() is not None for each in made))
        found = own(*args)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(module, "_probabilities", noted)
    tensors = some_tensors(500, *[(1, 4)] * 3)
    row = RowAttention([BlockSizes(400, 400, (50, 50))], CPU, sources_only=False)
    with torch.no_grad():
        row(*[each.detach() for each in tensors])
    assert len(alive) == 8
    assert max(alive) == 1  # the one that is being used


def test_it_is_planned_once() -> None:
    mask = pack(some_pairs(), "line").mask
    assert isinstance(mask, PairMask)
    assert mask.row is mask.row


@pytest.mark.parametrize("longest", [768, 100])
def test_what_it_keeps_is_counted(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three layers of four heads, all of each computed; some blocks have more queries than go together."""
    monkeypatch.setattr("gpo_full.engine.log_probabilities.last_layer_at_sources", lambda *_: nullcontext())
    monkeypatch.setattr(module, "LONGEST", longest)
    batch, model, kept = pack(some_pairs(scale=20), "line"), tiny_model(num_hidden_layers=3), []
    assert max(size.prefix + size.tails[0] for size in batch.sizes) > 2 * module.QUERIES

    own = module._Attention

    class Noted(own):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
            with monkeypatch.context() as patch:
                patch.setattr(type(ctx), "save_for_backward", lambda _, *saved: kept.extend(saved[3:]), raising=False)
                return own.forward(ctx, *inputs)

    monkeypatch.setattr(module, "_Attention", Noted)
    token_log_probabilities(model, batch)
    assert sum(each.numel() for each in kept) == 3 * 4 * kept_by_attention(batch.sizes) > 0
    assert max(each.shape[-1] for each in kept) <= longest < 769
