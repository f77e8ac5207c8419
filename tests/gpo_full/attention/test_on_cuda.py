"""One variable-length call for all pairs: the dense mask's values and gradients, whatever runs the segments."""

import math
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from gpo_full.attention import mask as pair_mask
from gpo_full.attention import on_cuda as segments
from gpo_full.data.pairs import Pair
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import plan
from gpo_full.engine.packing import pack
from tests.gpo_full.attention.test_pair_mask import dense
from tests.gpo_full.engine.test_packing import SOME
from tests.support.pairs import distance, gradients, some_pairs
from tests.support.tiny_models import tiny_model
from tests.support.two_sequences import response_sums

CUDA = torch.device("cuda")


def slow_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seq_q: torch.Tensor, cu_seq_k: torch.Tensor,
    max_q: int, max_k: int, *, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:  # fmt: skip
    """What `torch.nn.attention.varlen.varlen_attn` is documented to compute, written out; it refuses grouped heads."""
    assert window_size == (-1, 0), "causal"
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert query.shape[1] == key.shape[1]
    assert (cu_seq_q.diff().max(), cu_seq_k.diff().max()) == (max_q, max_k)
    parts = []
    for s in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[s] : cu_seq_q[s + 1]].transpose(0, 1)
        k, v = (each[cu_seq_k[s] : cu_seq_k[s + 1]].transpose(0, 1) for each in (key, value))
        scores = q @ k.transpose(1, 2) * (scale or 1 / math.sqrt(q.shape[-1]))
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1 + k.shape[1] - q.shape[1])
        parts.append((scores.masked_fill(later, -math.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def in_one_call(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the slow kernel run everywhere; the list grows by one with each call."""
    calls: list[int] = []

    def kernel(*tensors: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return slow_kernel(*tensors, **options)

    monkeypatch.setattr(pair_mask, "one_call", lambda *_: True)
    monkeypatch.setattr(segments, "_kernel", lambda: (kernel, frozenset({"scale", "window_size"})))
    return calls


@settings(deadline=None, max_examples=60)
@given(SOME)
def test_segments_attend_as_the_dense_mask_does(some: list[Pair]) -> None:
    batch = pack(some, "line")
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, batch.input_ids.shape[1], 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=dense(some))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "_kernel", lambda: (slow_kernel, frozenset()))
        whole = batch.mask.segments.attention(*inputs)  # type: ignore[attr-defined]
        partly = batch.mask_at_sources.segments.attention(*inputs)  # type: ignore[attr-defined]
    torch.testing.assert_close(whole, expected)
    sources = batch.distinct_sources
    torch.testing.assert_close(partly[:, :, sources], expected[:, :, sources])
    weight = torch.randn_like(expected)
    slopes = [torch.autograd.grad((each * weight).sum(), inputs, retain_graph=True) for each in (whole, expected)]
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_in_one_call_a_layer_equals_two_separate_sequences(family: str, in_one_call: list[int]) -> None:
    # Two key heads for four query heads: this kernel knows no grouped heads, so they are repeated.
    model, some = tiny_model(family, dtype=torch.float64), some_pairs()
    found = response_log_probabilities(model, pack(some, "line"))
    assert len(in_one_call) == model.config.num_hidden_layers
    expected = response_sums(model, some)
    assert distance(found.detach(), expected.detach()) < 1e-10
    # Llama's norms compute in float32 in a float64 model too.
    assert distance(gradients(model, found), gradients(model, expected)) < 1e-6


def test_dropout_is_not_lost(in_one_call: list[int]) -> None:
    mask, query = pack(some_pairs(), "line").mask, torch.ones(1, 2, sum(each.size for each in some_pairs()), 8)
    F.scaled_dot_product_attention(query, query, query, attn_mask=mask, dropout_p=0.5)
    assert not in_one_call
    F.scaled_dot_product_attention(query, query, query, attn_mask=mask)
    assert in_one_call


def test_the_kernel_is_asked_only_what_it_takes() -> None:
    cpu = torch.device("cpu")
    assert not segments.one_call(cpu, torch.bfloat16, 64)
    assert not segments.one_call(CUDA, torch.float32, 64)
    assert not segments.one_call(CUDA, torch.bfloat16, 12)
    assert not segments.one_call(CUDA, torch.bfloat16, 264)


def test_torch_has_the_kernel_that_is_meant() -> None:
    kernel, understood = segments._kernel()
    asked = {"query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k", "scale", "window_size"}
    assert kernel is None or asked <= understood


def top_left(*tensors: Any, **options: Any) -> torch.Tensor:
    """A causal mask that aligns the first query with the first key."""
    query, key, value, ends_q, ends_k, *_ = tensors
    parts = []
    for s in range(len(ends_q) - 1):
        q = query[ends_q[s] : ends_q[s + 1]].transpose(0, 1)
        k, v = (each[ends_k[s] : ends_k[s + 1]].transpose(0, 1) for each in (key, value))
        scores = q @ k.mT * (options["scale"] or q.shape[-1] ** -0.5)
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        parts.append((scores.masked_fill(hidden, -math.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


def not_causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends_q: Any, ends_k: Any, *_: int, scale: float, **__: Any) -> torch.Tensor:
    return torch.cat([
        (torch.einsum("qhd,khd->hqk", query[a:b], key[c:d]) * scale).softmax(-1).matmul(value[c:d].transpose(0, 1)).transpose(0, 1)
        for a, b, c, d in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False)])  # fmt: skip


def unscaled(*tensors: Any, scale: float, **options: Any) -> torch.Tensor:
    return slow_kernel(*tensors, scale=None, **options)


def one_key_late(*tensors: Any, **options: Any) -> torch.Tensor:
    """The segments' keys begin one token late."""
    return slow_kernel(tensors[0], tensors[1].roll(-1, 0), *tensors[2:], **options)


def grouped(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, enable_gqa: bool = False, tiled: bool = False, **options: Any) -> torch.Tensor:
    times = query.shape[1] // key.shape[1]
    key, value = (each.repeat(1, times, 1) if tiled else each.repeat_interleave(times, 1) for each in (key, value))
    return slow_kernel(query, key, value, *rest, **options)


PLAIN, GROUPED = frozenset({"scale", "window_size"}), frozenset({"scale", "window_size", "enable_gqa"})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("kernel", "understood", "right"), [
    (slow_kernel, PLAIN, True), (grouped, GROUPED, True), (top_left, PLAIN, False), (not_causal, PLAIN, False), (unscaled, PLAIN, False),
    (one_key_late, PLAIN, False), (partial(grouped, tiled=True), GROUPED, False),
])  # fmt: skip
def test_the_probe_tells_a_wrong_kernel_from_the_right_one(
    kernel: Any, understood: frozenset[str], right: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_kernel", lambda: (kernel, understood))
    for width, heads, key_heads in ((16, 4, 2), (64, 6, 2), (128, 4, 2)):
        assert segments.kernel_agrees.__wrapped__(torch.device("cpu"), dtype, width, heads, key_heads) is right


def check_near_float64(family: str, device: torch.device, autocast: Any) -> None:
    """The sums and gradients of rows in one call are no further from the exact ones than those under the dense mask, up to 2."""
    some = some_pairs(8, scale=8)
    exact = tiny_model(family, dtype=torch.float64, hidden_size=64, n_embd=64, head_dim=16)
    model = tiny_model(family, hidden_size=64, n_embd=64, head_dim=16)
    model.load_state_dict({name: each.float() for name, each in exact.state_dict().items()})
    model, found = model.to(device), {}
    expected = response_sums(exact, some)
    slopes = gradients(exact, expected)
    with autocast():
        for layout in ("line", "rows"):
            sums = response_log_probabilities(model, pack(some, layout).to(device))
            found[layout] = distance(sums.detach().cpu().double(), expected.detach())
            found[f"{layout}, gradient"] = distance(gradients(model, sums).cpu().double(), slopes)
    assert found["line"] <= max(2 * found["rows"], 1e-3), found
    assert found["line, gradient"] <= max(2 * found["rows, gradient"], 1e-2), found


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_on_the_device_bfloat16_is_near_float64(family: str) -> None:
    autocast, model = partial(torch.autocast, "cuda", torch.bfloat16), tiny_model(family, hidden_size=64, n_embd=64, head_dim=16).to(CUDA)
    assert (plan(model, 256).layout, plan(model, 256, autocast).layout) == ("rows", "line")
    check_near_float64(family, CUDA, autocast)


@pytest.mark.parametrize("kernel", [slow_kernel, top_left])
def test_that_comparison_finds_a_wrong_alignment(kernel: Any, in_one_call: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_kernel", lambda: (kernel, PLAIN))
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    if kernel is slow_kernel:
        check_near_float64("llama", torch.device("cpu"), autocast)
    else:
        with pytest.raises(AssertionError, match="gradient"):
            check_near_float64("llama", torch.device("cpu"), autocast)
