"""Attention as products of blocks: the softmax of high precision, gradients of finite differences, and where it is used."""

from contextlib import nullcontext
from typing import Any

import mpmath
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_log_probabilities import some_pairs
from tiny_models import tiny_model

from gpo_full import batched_attention as module
from gpo_full import pair_mask
from gpo_full.batched_attention import LONGEST, attend, is_faster, kept_scores
from gpo_full.log_probabilities import token_log_probabilities
from gpo_full.packing import pack


def some_tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """As layers have them: heads beside one another in memory."""
    torch.manual_seed(0)
    return [torch.randn(1, rows, heads, width, dtype=dtype).transpose(1, 2).requires_grad_() for heads, rows, width in shapes]


def test_it_is_the_softmax_of_arbitrary_precision() -> None:
    query, key, value = some_tensors((1, 2, 3), (1, 4, 3), (1, 4, 2))
    visible = torch.tensor([[True, False, True, False], [True, True, False, True]])
    expected = []
    with mpmath.workdps(40):
        q, k, v = (mpmath.matrix(each[0, 0].tolist()) for each in (query, key, value))
        for i in range(2):
            weights = [mpmath.exp(mpmath.mpf("0.7") * (q[i, :] * k[j, :].T)[0]) if visible[i, j] else mpmath.mpf(0)
                       for j in range(4)]  # fmt: skip
            expected.append([float(sum(w * v[j, n] for j, w in enumerate(weights)) / sum(weights)) for n in range(2)])
    found = attend(query, key, value, visible, 0.7)
    assert found[0, 0].tolist() == [pytest.approx(row, rel=1e-13) for row in expected]


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("causal", [True, False])
def test_gradients_are_those_of_finite_differences(
    rows: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of four: less than one, whole ones, and one more query."""
    monkeypatch.setattr(module, "QUERIES", 4)
    keys = rows if causal else 6
    visible = None if causal else torch.rand(rows, keys) < 0.6
    if visible is not None:
        visible[:, 0] = True
    tensors = some_tensors((2, rows, 3), (2, keys, 3), (2, keys, 2))
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, visible), tensors)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.integers(1, 3), st.sampled_from([None, 0.3]), st.booleans())
def test_it_equals_torchs_kernel(rows: int, heads: int, scale: float | None, causal: bool) -> None:
    tensors = some_tensors((heads, rows, 8), (heads, rows + 5 * (not causal), 8), (heads, rows + 5 * (not causal), 8))
    visible = None if causal else torch.ones(rows, rows + 5, dtype=torch.bool).tril_(5)
    found = attend(*tensors, visible, scale)
    expected = F.scaled_dot_product_attention(*tensors, visible, 0.0, causal, scale=scale)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((each * weight).sum(), tensors) for each in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert found.transpose(1, 2).is_contiguous()  # so that reshaping after it costs no copy


def test_large_scores_stay_finite() -> None:
    query, key, value = (1e4 * each.detach() for each in some_tensors((1, 70, 4), (1, 70, 4), (1, 70, 4)))
    tensors = [each.float().requires_grad_() for each in (query, key, value)]
    found = attend(*tensors, None)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(each.grad.isfinite().all() for each in tensors)


def test_where_it_is_used() -> None:
    def shaped(rows: int, heads: int = 2, **options: object) -> torch.Tensor:
        return torch.empty(1, heads, rows, 4, **options)

    assert is_faster(shaped(LONGEST), shaped(LONGEST))
    assert is_faster(shaped(1, dtype=torch.float64), shaped(LONGEST, dtype=torch.float64))
    assert not is_faster(shaped(1), shaped(LONGEST + 1))
    assert not is_faster(shaped(2, 4), shaped(2, 2))  # heads that share keys
    assert not is_faster(shaped(2, dtype=torch.bfloat16), shaped(2, dtype=torch.bfloat16))
    assert not is_faster(shaped(2, device="meta"), shaped(2, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_faster(shaped(2), shaped(2))


def uses(way: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Queries of the parts that were answered here, and of all parts."""
    mask, calls = pack(some_pairs(), "line").mask, []
    monkeypatch.setattr(pair_mask, "attend", lambda *args: (calls.append(args[0].shape[2]), attend(*args))[1])
    (query,) = some_tensors((2, mask.shape[-1], 4))
    F.scaled_dot_product_attention(query, query, query, attn_mask=mask, dropout_p=0.5 if way == "dropout" else 0.0)
    return calls, [part.size for block in mask.blocks for part in block]


def test_a_row_of_pairs_goes_one_way_or_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    here, parts = uses("here", monkeypatch)
    assert here == parts
    assert uses("dropout", monkeypatch)[0] == []
    monkeypatch.setattr(module, "LONGEST", 9)
    assert 0 < len(uses("long", monkeypatch)[0]) < len(parts)


def test_what_it_keeps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three layers of four heads, all of each computed; some blocks have more queries than go together."""
    monkeypatch.setattr("gpo_full.log_probabilities.only_where_read", lambda *_: nullcontext())
    batch, model, kept = pack(some_pairs(scale=20), "line"), tiny_model(num_hidden_layers=3), []
    assert max(size.prefix + size.tails[0] for size in batch.sizes) > 2 * module.QUERIES

    class Noted(module._Attention):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> torch.Tensor:
            with monkeypatch.context() as patch:
                patch.setattr(type(ctx), "save_for_backward", lambda _, *saved: kept.extend(saved[3:]), raising=False)
                return module._Attention.forward(ctx, *inputs)

    monkeypatch.setattr(pair_mask, "attend", lambda q, k, v, seen, scale: Noted.apply(q[0], k[0], v[0], seen, scale)[None])
    token_log_probabilities(model, batch)
    assert sum(each.numel() for each in kept) == 3 * 4 * pair_mask.kept_by_attention(batch.sizes)
    assert kept_scores(1, LONGEST + 1, causal=False) == 0
