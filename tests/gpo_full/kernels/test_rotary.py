"""Rotary positions in few passes: a turn in the plane, the gradients of it, and only where models compute that."""

import sys
from typing import Any

import mpmath
import pytest
import torch

from gpo_full.engine.packing import pack
from gpo_full.kernels import rotary as module
from gpo_full.kernels.rotary import _agrees, _fused, _Turn, fused_rotary
from tests.support.pairs import distance, some_pairs, values_and_gradient
from tests.support.tiny_models import tiny_model


def half_turned(x: torch.Tensor) -> torch.Tensor:
    return torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1)


def written_out(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return q * cos + half_turned(q) * sin, k * cos + half_turned(k) * sin


def interleaved(q: Any, k: Any, cos: Any, sin: Any) -> Any:
    """Pairs neighbours, as GPT-J does."""

    def turn(x: torch.Tensor) -> torch.Tensor:
        return x * cos[:, None] + torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) * sin[:, None]

    return turn(q), turn(k)


def some_tensors(dtype: torch.dtype = torch.float32, heads: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    states = [torch.randn(1, 5, n, 6, dtype=dtype).transpose(1, 2) for n in (heads, 1)]
    return states + [torch.randn(1, 5, 6, dtype=dtype) for _ in range(2)]


def test_a_turn_multiplies_complex_numbers() -> None:
    """(x1 + i x2) exp(i t), for t = 0.7 and 2."""
    angles, x1, x2 = [mpmath.mpf("0.7"), mpmath.mpf(2)], [1.5, -3.0], [0.25, 8.0]
    cos, sin = (torch.tensor([float(f(t)) for t in angles * 2], dtype=torch.float64) for f in (mpmath.cos, mpmath.sin))
    found = _Turn.apply(torch.tensor([*x1, *x2], dtype=torch.float64), cos, sin)
    turned = [mpmath.mpc(a, b) * mpmath.expj(t) for a, b, t in zip(x1, x2, angles, strict=True)]
    assert found.tolist() == pytest.approx([float(z.real) for z in turned] + [float(z.imag) for z in turned], rel=1e-14)


def test_gradients_are_those_of_finite_differences() -> None:
    """Of any cos and sin: nothing is taken for granted of their halves."""
    query, _, cos, sin = some_tensors(torch.float64)
    assert torch.autograd.gradcheck(lambda x: _Turn.apply(x, cos[:, None], sin[:, None]), query.requires_grad_())


def test_memory_stays_as_the_layers_have_it() -> None:
    query, _, cos, sin = some_tensors()
    found = _Turn.apply(query, cos[:, None], sin[:, None])
    assert found.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_model_computes_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, found, calls = tiny_model(family), pack(some_pairs(), "line"), [], []
    own = _Turn.apply
    monkeypatch.setattr(_Turn, "apply", lambda *args: (calls.append(1), own(*args))[1])
    for _ in range(2):
        found.append(values_and_gradient(model, batch))
        monkeypatch.setattr(module, "_agrees", lambda _: False)
    assert len(calls) == 4  # queries and keys of two layers, in one of the two passes
    (values, gradient), (own_values, own_gradient) = found
    assert distance(values, own_values) < 1e-5
    assert distance(gradient, own_gradient) < 1e-5


def test_only_that_turn_is_replaced() -> None:
    assert _agrees(written_out)
    assert not _agrees(interleaved)
    assert not _agrees(lambda q, k, cos, sin: (written_out(q, k, cos, sin)[0], k))
    assert not _agrees(lambda q, k, cos, sin: (*written_out(q, k, cos, sin), q))
    assert not _agrees(lambda q, k: (q, k))


def test_it_is_there_for_the_call_alone() -> None:
    home = sys.modules["transformers.models.llama.modeling_llama"]
    own, model = home.apply_rotary_pos_emb, tiny_model("llama")
    with fused_rotary(model):
        assert home.apply_rotary_pos_emb is not own
        with fused_rotary(model):
            pass
        assert home.apply_rotary_pos_emb is not own
    assert home.apply_rotary_pos_emb is own
    with pytest.raises(ZeroDivisionError), fused_rotary(model):
        raise ZeroDivisionError
    assert home.apply_rotary_pos_emb is own


def test_the_last_of_overlapping_contexts_puts_the_own_back() -> None:
    home = sys.modules["transformers.models.llama.modeling_llama"]
    own, contexts = home.apply_rotary_pos_emb, [fused_rotary(tiny_model("llama")) for _ in range(2)]
    for each in contexts:
        each.__enter__()
    for each in contexts:
        assert home.apply_rotary_pos_emb is not own
        each.__exit__(None, None, None)
    assert home.apply_rotary_pos_emb is own
    assert not module._open


def test_models_without_one_and_checkpointed_ones_are_left_alone() -> None:
    home = sys.modules["transformers.models.llama.modeling_llama"]
    own = home.apply_rotary_pos_emb
    with fused_rotary(tiny_model("gpt2")):
        assert home.apply_rotary_pos_emb is own
    model = tiny_model("llama")
    model.activation_checkpointing_enable({"use_reentrant": False})
    with fused_rotary(model):
        assert home.apply_rotary_pos_emb is own


@pytest.mark.parametrize("way", ["half", "mixed", "narrow", "odd", "unsqueeze_dim", "trained"])
def test_other_calls_get_what_they_got(way: str) -> None:
    query, key, cos, sin = some_tensors(torch.bfloat16 if way == "half" else torch.float32)
    options = {}
    if way == "mixed":
        cos = cos.double()
    if way == "trained":
        cos.requires_grad_()
    if way == "unsqueeze_dim":
        query, key, options = query.transpose(1, 2), key.transpose(1, 2), {"unsqueeze_dim": 2}
    if way == "narrow":
        cos, sin = cos[..., :1], sin[..., :1]
    if way == "odd":
        query, key, cos, sin = (each[..., :5] for each in (query, key, cos, sin))
    calls = []
    if way == "odd":
        found = _fused(lambda *args, **_: (calls.append(way), args[:2])[1])(query, key, cos, sin)
        assert calls == [way]
        return
    found = _fused(written_out)(query, key, cos, sin, **options)
    expected = written_out(query, key, cos, sin, **options)
    assert all(torch.equal(*each) for each in zip(found, expected, strict=True))
    assert all(each.grad_fn is None or "Turn" not in type(each.grad_fn).__name__ for each in found)


def test_a_layer_of_a_module_that_is_gone_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hub's own code defines may lie in a module that nothing can look up."""
    model = tiny_model("llama")
    monkeypatch.setattr(type(model.model.layers[0]), "__module__", "nowhere")
    with fused_rotary(model):
        pass
