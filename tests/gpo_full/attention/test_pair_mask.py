"""The structured mask equals the dense one, in values and in gradients, for every operation that meets it."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.attention import mask as pair_mask
from gpo_full.attention import on_cpu as batched_attention
from gpo_full.attention.mask import PairMask
from gpo_full.data.pairs import Pair
from gpo_full.engine.packing import pack
from tests.gpo_full.engine.test_packing import SOME as ANY_PAIRS

SOME = [Pair((1, 2, 3), (4, 5), (6,), 2), Pair((1,), (2,), (3, 4, 5), 1), Pair((1, 2), (), (5,), 1)]


def dense(some: list[Pair]) -> torch.Tensor:
    line = pack(some, "line")
    same = line.block[0][:, None] == line.block[0]
    own = (line.branch[0] == 0) | (line.branch[0][:, None] == line.branch[0])
    return (same & own).tril()[None, None]


@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize("sources_only", [False, True])
@settings(deadline=None, max_examples=60)
@given(
    ANY_PAIRS, st.sampled_from([0, 1, batched_attention.COPIED]), st.sampled_from([1, 2, 64]),
    st.sampled_from([0, 4, 768]),
)
def test_attention_equals_that_of_the_dense_mask(
    multiplied: bool, sources_only: bool, some: list[Pair], copied: int, queries: int, longest: int
) -> None:
    """By torch's kernel and as products, with keys masked and with keys copied, at source positions only or everywhere.

    As products: in blocks of one query, two, all; with no probabilities kept, some, all.
    """
    batch = pack(some, "line")
    mask = batch.mask_at_sources if sources_only else batch.mask
    assert isinstance(mask, PairMask)
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, mask.shape[-1], 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("COPIED", copied), ("QUERIES", queries), ("LONGEST", longest)):
            patch.setattr(batched_attention, name, value)
        patch.setattr(pair_mask, "_is_multiplied", lambda _: multiplied)
        found = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=dense(some))
    outputs = [each[:, :, batch.distinct_sources] if sources_only else each for each in (found, expected)]
    torch.testing.assert_close(outputs[0], outputs[1])
    weight = torch.randn_like(outputs[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched_attention, "LONGEST", longest)
        gradients = [torch.autograd.grad((output * weight).sum(), inputs) for output in outputs]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_other_operations_see_the_ordinary_tensor() -> None:
    mask, expected = pack(SOME, "line").mask, dense(SOME)
    assert (mask.shape, mask.dtype, mask.ndim, mask.device) == (expected.shape, expected.dtype, 4, expected.device)
    assert torch.equal(~mask, ~expected)
    assert torch.equal(torch.zeros(1).masked_fill(mask, 1.0), torch.zeros(1).masked_fill(expected, 1.0))
    assert torch.equal(mask[0, 0, 3], expected[0, 0, 3])
    length = mask.shape[-1]
    assert isinstance(mask[:, :, :, :length], PairMask)  # what transformers slices to the number of keys
    assert not isinstance(mask[:, :, :, : length - 1], PairMask)


def test_it_costs_no_memory_of_its_size() -> None:
    mask = pack([Pair(tuple(range(3000)), (1,), (2,), 3000)], "line").mask
    with torch._C.DisableTorchFunctionSubclass():
        assert mask.untyped_storage().nbytes() == 1


@pytest.mark.parametrize("scale", [None, 0.3])
def test_scale_is_passed_on(scale: float | None) -> None:
    mask = pack(SOME, "line").mask
    query = torch.randn(1, 2, mask.shape[-1], 4)
    found = F.scaled_dot_product_attention(query, query, query, attn_mask=mask, scale=scale)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, query, query, dense(SOME), scale=scale))
