"""Products by oneDNN: those of double precision, only where they are faster, and the same training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gpo_full import GPOConfig
from gpo_full.engine.packing import pack
from gpo_full.kernels import matmul as module
from gpo_full.kernels.matmul import _agrees, _kernel, _Linear, fast_products, product
from gpo_full.training.start.dry_run import forecast_needs
from tests.support.pairs import distance, some_pairs, values_and_gradient
from tests.support.tiny_models import tiny_model

needs_kernel = pytest.mark.skipif(_kernel() is None, reason="this CPU or this torch has no faster product")
# 2^25 multiplications, the least.
ROWS, WIDTH = 512, 256


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The weights' shapes of the products that the kernel is asked for, a stand-in where there is none."""
    own, found = _kernel() or nn.functional.linear, []

    def counted(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        found.append(tuple(weight.shape))
        return own(rows, weight, bias)

    monkeypatch.setattr(module, "_kernel", lambda: counted)
    return found


def some_tensors(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(ROWS,), (2, ROWS // 2), (1, ROWS)])
def test_values_and_gradients_are_those_of_double_precision(leading: tuple[int, ...], bias: bool, calls: list[tuple[int, ...]]) -> None:
    given = [some_tensors(*leading, WIDTH), some_tensors(WIDTH, WIDTH), some_tensors(WIDTH) if bias else None]
    incoming = some_tensors(*leading, WIDTH)
    found, expected = [], []
    for to, kept, function in ((torch.float32, found, _Linear.apply), (torch.float64, expected, nn.functional.linear)):
        tensors = [None if each is None else each.to(to, copy=True).requires_grad_() for each in given]
        value = function(*tensors)
        value.backward(incoming.to(to))
        kept += [value.detach(), *(each.grad for each in tensors if each is not None)]
    assert all(one.dtype == torch.float32 for one in found)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert distance(one.double(), other) < 1e-5
    assert len(calls) == 2  # forward, and the gradient of the rows


def test_gradients_that_nobody_wants_are_not_made(calls: list[tuple[int, ...]]) -> None:
    rows, weight = some_tensors(ROWS, WIDTH), some_tensors(WIDTH, WIDTH).requires_grad_()
    _Linear.apply(rows, weight, None).sum().backward()
    assert len(calls) == 1  # the first layer's input has no gradient
    torch.testing.assert_close(weight.grad, rows.sum(0).expand(WIDTH, WIDTH), atol=1e-3, rtol=0)
    rows, weight = rows.requires_grad_(), weight.detach()
    _Linear.apply(rows, weight, None).sum().backward()
    assert rows.grad is not None
    assert weight.grad is None


def test_the_input_of_a_frozen_layer_is_not_kept(calls: list[tuple[int, ...]]) -> None:
    rows, weight, kept = some_tensors(ROWS, WIDTH), some_tensors(WIDTH, WIDTH), []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    for frozen, shapes in ((True, [weight.shape]), (False, [rows.shape, weight.shape])):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda each: each):
            _Linear.apply(rows.clone().requires_grad_(), weight.clone().requires_grad_(not frozen), None)
        assert kept == shapes


def test_small_half_and_double_products_are_torchs(calls: list[tuple[int, ...]]) -> None:
    weight = some_tensors(WIDTH, WIDTH)
    product(some_tensors(ROWS - 1, WIDTH), weight)
    for dtype in (torch.bfloat16, torch.float64):
        large = some_tensors(ROWS, WIDTH).to(dtype)
        assert torch.equal(product(large, weight.to(dtype)), nn.functional.linear(large, weight.to(dtype)))
    product(torch.empty(ROWS, WIDTH, device="meta"), weight.to("meta"))
    assert calls == []
    product(some_tensors(ROWS, WIDTH), weight)
    assert calls == [(WIDTH, WIDTH)]


def test_autocast_keeps_its_own_type(calls: list[tuple[int, ...]]) -> None:
    layer, rows = nn.Linear(WIDTH, WIDTH), some_tensors(ROWS, WIDTH)
    with torch.no_grad(), fast_products(layer):
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(rows).dtype == torch.bfloat16
        assert calls == []
        assert layer(rows).dtype == torch.float32
    assert calls == [(WIDTH, WIDTH)]
    layer(rows)
    assert calls == [(WIDTH, WIDTH)]  # given back


def replaced(model: nn.Module) -> list[str]:
    with fast_products(model):
        return [name for name, each in model.named_modules() if "forward" in each.__dict__]


def test_only_plain_linear_layers_are_replaced(calls: list[tuple[int, ...]]) -> None:
    class Other(nn.Linear):
        pass

    inside = nn.Sequential(nn.Linear(2, 2))
    inside.compile(backend="eager")
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": Other(2, 2), "c": nn.Sequential(nn.Linear(2, 2)), "d": inside,
                           "e": nn.Linear(2, 2).double(), "f": nn.Linear(2, 2, device="meta")})  # fmt: skip
    assert replaced(model) == ["a", "c.0"]


def test_checkpointed_layers_are_left_alone(calls: list[tuple[int, ...]]) -> None:
    model = tiny_model("llama")
    assert replaced(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert replaced(model) == []


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "opt"])
def test_a_model_computes_the_same(family: str, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(module, "LEAST", 1)
    model, batch = tiny_model(family), pack(some_pairs(), "line")
    found = []
    for kernel in (module._kernel, lambda: None):
        monkeypatch.setattr(module, "_kernel", kernel)
        found.append(values_and_gradient(model, batch))
    (values, gradient), (own_values, own_gradient) = found
    assert distance(values, own_values) < 1e-5
    assert distance(gradient, own_gradient) < 1e-5
    layers = [each for each in model.modules() if type(each) is nn.Linear]
    # The head multiplies twice, forward and for its slope; the others forward and backward.
    assert len(calls) == 2 * len(layers)


def test_a_kernel_that_computes_something_else_is_not_used() -> None:
    right = nn.functional.linear

    def raises(*_: Any) -> torch.Tensor:
        raise RuntimeError("no such schema")

    assert _agrees(right)
    assert not _agrees(lambda rows, weight, bias: right(rows, weight, None))
    assert not _agrees(lambda rows, weight, bias: right(rows, weight, bias) * (1 + 1e-4))
    assert not _agrees(lambda rows, weight, bias: right(rows, weight, bias)[:1])
    assert not _agrees(raises)


@pytest.mark.parametrize("absent", ["instructions", "library", "operator"])
def test_without_a_kernel_nothing_changes(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if absent == "instructions":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    elif absent == "library":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    monkeypatch.setattr(module, "_kernel", _kernel.__wrapped__)
    assert replaced(tiny_model("llama")) == []
    rows, weight = some_tensors(ROWS, WIDTH), some_tensors(WIDTH, WIDTH)
    assert torch.equal(product(rows, weight), nn.functional.linear(rows, weight))


@needs_kernel
def test_it_is_found_whatever_surrounds_the_first_call() -> None:
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"), torch.inference_mode():
        assert _kernel.__wrapped__() is not None


def test_a_dry_run_counts_every_product_and_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]]) -> None:
    """On tensors without data the kernel can neither be tried nor counted."""
    monkeypatch.setattr(module, "LEAST", 1)
    tiny_model().config.save_pretrained(tmp_path)
    args = GPOConfig(output_dir=str(tmp_path), use_cpu=True)
    found = forecast_needs(str(tmp_path), args, some_pairs())
    assert calls == []
    monkeypatch.setattr(module, "_kernel", lambda: pytest.fail("asked for"))
    assert forecast_needs(str(tmp_path), args, some_pairs()) == found


@needs_kernel
def test_the_kernel_gives_the_same_bits_again() -> None:
    rows, weight = some_tensors(ROWS + 3, WIDTH), some_tensors(WIDTH, WIDTH)
    assert torch.equal(product(rows, weight), product(rows, weight))
