"""Tests of a user's function as torch code: shapes, dtypes, batches, memory, state, upstream gradients."""

__all__ = ["CONDUCT", "Batches", "conduct", "repeats"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpo_theory.lowering.calling import Finding, Floats, Function, UserCodeError, call, evaluate
from gpo_theory.lowering.margins import random_margins

if TYPE_CHECKING:
    from torch import Tensor

CONDUCT = ("runs", "shape", "dtype", "state", "input", "no_grad", "elementwise", "layout", "upstream")
_SHAPES = ((), (4,), (2, 3), (1,), (3, 1), (1, 3), (2, 3, 4), (0,), (0, 3))
_SIZES = (2, 3, 8, 33, 101, 257, 1025, 4099, 16_411, 65_539)
_EXACT = 16  # ulp by which two runs of the same code on the same tensor may differ


@dataclass(frozen=True)
class Batches:
    """The random margins: `count` of them, from `seed`."""

    count: int
    seed: int

    @property
    def keys(self) -> Floats:
        """Margins that are looked for in every batch: few, because each is also evaluated alone."""
        return np.concatenate([[0.0, 1.0, -2.5, 40.0], random_margins(20, self.seed)])

    def around(self, keys: Floats) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
        """Return batches of several sizes among whose random margins are some of the keys, and their places."""
        draw = np.random.default_rng(self.seed)
        for size in (size for size in _SIZES if size <= 8 * self.count):
            for _ in range(2):
                chosen = draw.permutation(keys.size)[:size]
                batch = random_margins(size, int(draw.integers(1 << 30)))
                places = draw.permutation(size)[: chosen.size]
                batch[places] = keys[chosen]
                at = np.full(keys.size, -1)
                at[chosen] = places
                yield batch, at


def conduct(function: Function, dtype: str, batches: Batches) -> Iterator[Finding]:
    """Yield what is wrong with the function in one dtype; a function with state is not tested further."""
    yield from _form(function, dtype)
    keys = batches.keys.astype(dtype).astype(np.float64)
    found = list(_state(function, dtype, keys))
    yield from found
    if not found:
        yield from _input(function, dtype, keys)
        yield from _no_grad(function, dtype, keys)
        yield from _batches(function, dtype, keys, batches)
        yield from _upstream(function, dtype, batches)


def _form(function: Function, dtype: str) -> Iterator[Finding]:
    import torch

    kind = getattr(torch, dtype)
    for shape in _SHAPES:
        x = torch.linspace(-1.5, 2.0, int(np.prod(shape)), dtype=kind).reshape(shape).requires_grad_()
        value = call(function, x.clone())
        if not isinstance(value, torch.Tensor):
            raise UserCodeError(f"it returns {type(value).__name__}, not a tensor", "shape")
        if value.shape != x.shape:
            raise UserCodeError(f"a tensor of shape {shape} gives {tuple(value.shape)}: one loss per margin is "
                                "needed, not yet averaged", "shape")  # fmt: skip
        if value.dtype != kind:
            yield Finding("dtype", dtype, None, f"it returns {str(value.dtype).removeprefix('torch.')}")
            return
        if not value.requires_grad:
            raise UserCodeError("its value carries no gradient with respect to x")


def _state(function: Function, dtype: str, keys: Floats) -> Iterator[Finding]:
    """Repeat a call, also with others before it and between it and its backward pass."""
    import torch

    settings = _settings()
    first = evaluate(function, keys, dtype)
    for repeat in range(2, 10):
        try:
            leaf = torch.tensor(keys, dtype=getattr(torch, dtype), requires_grad=True)
            value = call(function, leaf.clone())
            evaluate(function, keys[::-1] / 2 if repeat % 2 else keys[: repeat + 1], dtype)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        except Exception as error:
            yield Finding("state", dtype, None, f"it ran at its first call; later {error}")
            return
        again = (value.detach().double().numpy(), slope.double().numpy())
        found = list(compared("state", dtype, keys, first, again, _rounding(first, dtype),
                               f"differs between calls, here the first and number {2 * repeat - 1}"))  # fmt: skip
        yield from found
        if found:
            return
    if _settings() != settings:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(settings[1])
        yield Finding("state", dtype, None, f"after its calls (grad mode, default dtype) is {settings} no longer")


def repeats(function: Function, batches: Batches, dtype: str = "float64") -> Callable[[], Iterator[Finding]]:
    """Evaluate now, and return a test that the same call still gives the same later."""
    keys = batches.keys.astype(dtype).astype(np.float64)
    first = evaluate(function, keys, dtype)

    def test() -> Iterator[Finding]:
        return compared("state", dtype, keys, first, evaluate(function, keys, dtype), _rounding(first, dtype),
                        "differs between calls, here an early and a late one")  # fmt: skip

    return test


def _settings() -> tuple[bool, "torch.dtype"]:  # type: ignore[name-defined]  # noqa: F821
    import torch

    return torch.is_grad_enabled(), torch.get_default_dtype()


def _input(function: Function, dtype: str, keys: Floats) -> Iterator[Finding]:
    import torch

    for wants in (True, False):
        given = torch.tensor(keys, dtype=getattr(torch, dtype), requires_grad=wants)
        kept = given.detach().clone()
        x = given.clone() if wants else given
        call(function, x)
        changed = (x.detach() != kept).numpy().nonzero()[0]
        if changed.size:
            i = int(changed[0])
            yield Finding("input", dtype, float(kept[i]), f"it changes the margins that it is given: {x[i].item():.6g} "
                          f"afterwards, {kept[i].item():.6g} expected")  # fmt: skip
            return
        if x.requires_grad != wants:
            yield Finding("input", dtype, None, "it changes whether the margins that it is given require a gradient")


def _no_grad(function: Function, dtype: str, keys: Floats) -> Iterator[Finding]:
    """Without a gradient the value is the same, as an evaluation needs it."""
    import torch
    from contextlib import nullcontext

    value, _ = evaluate(function, keys, dtype)
    for name, mode in (("for margins that require no gradient", nullcontext), ("under torch.no_grad", torch.no_grad),
                       ("under torch.inference_mode", torch.inference_mode)):  # fmt: skip
        with mode():
            try:
                result = call(function, torch.tensor(keys, dtype=getattr(torch, dtype)), name)
                found = result.detach().double().numpy()
            except Exception as error:
                yield Finding("no_grad", dtype, None, str(error))
                return
        yield from compared("no_grad", dtype, keys, (value,), (found,), _rounding((value,), dtype), f"differs {name}")


def _batches(function: Function, dtype: str, keys: Floats, batches: Batches) -> Iterator[Finding]:
    """A margin's value and gradient are those that it has alone, whatever stands beside it and wherever it stands."""
    one_by_one = [evaluate(function, keys[i : i + 1], dtype) for i in range(keys.size)]
    alone = tuple(np.concatenate(part) for part in zip(*one_by_one, strict=True))
    allowed = slack(function, keys, dtype, alone)
    repeated = repeats(function, batches, dtype)
    for batch, at in batches.around(keys):
        some = at >= 0
        result = tuple(part[at[some]] for part in evaluate(function, batch, dtype))
        found = list(compared("elementwise", dtype, keys[some], tuple(part[some] for part in alone), result,
                               tuple(part[some] for part in allowed),
                               f"depends on the other margins or their order, here in a batch of {batch.size} and alone"))  # fmt: skip
        if found:
            yield from list(repeated()) or found
            return
    for test, how, layout in _layouts():
        result = evaluate(function, keys, dtype, layout=layout)
        yield from compared(test, dtype, keys, alone, result, allowed, f"depends on the {how}")


def _layouts() -> Iterator[tuple[str, str, Function]]:
    """The 24 keys in other shapes and other places of memory, in an order that reshape(-1) undoes."""
    import torch

    for shape in ((4, 6), (24, 1), (1, 24), (2, 3, 4)):
        yield "elementwise", f"shape: other in {shape}", partial(torch.reshape, shape=shape)
    name = "order in memory: other in a tensor that is not contiguous"
    yield "layout", name, lambda x: torch.stack([x, -x], dim=-1)[..., 0]
    yield "layout", name, lambda x: x.reshape(4, 6).t().contiguous().t()
    yield "layout", "offset in memory: other in a slice", lambda x: torch.cat([-x, x])[x.numel() :]


def _upstream(function: Function, dtype: str, batches: Batches) -> Iterator[Finding]:
    """The gradient is linear in the upstream one, exactly where that is a power of two."""
    draw = np.random.default_rng(batches.seed)
    x = random_margins(min(256, batches.count), batches.seed).astype(dtype).astype(np.float64)
    weights = draw.choice([-1.0, 1.0], x.size) * 2.0 ** draw.integers(-12, 17, x.size)
    weights[draw.random(x.size) < 0.2] = 0
    _, plain = evaluate(function, x, dtype)
    _, weighted = evaluate(function, x, dtype, weights)
    info = np.finfo(dtype)
    expected = weights * plain
    fits = np.isfinite(plain) & ((abs(expected) < float(info.max) / 2**30) | (abs(weights) <= 1))
    slack = 64 * float(info.eps) * abs(expected) + float(info.tiny) / float(info.eps) * 2**20
    bad = np.flatnonzero(fits & ~(abs(weighted - expected) <= slack))
    if bad.size:
        i = bad[np.argmin(abs(x[bad]))]
        yield Finding("upstream", dtype, float(x[i]), f"the gradient for the upstream gradient {weights[i]:g} is "
                      f"{weighted[i]:.6g}, {expected[i]:.6g} expected: it is not {weights[i]:g} times that for 1"
                      f"{_also(bad.size)}")  # fmt: skip


# --- comparing two runs -----------------------------------------------------------------------------------------------


def compared(test: str, dtype: str, x: Floats, expected: tuple[Floats, ...], found: tuple[Floats, ...],
              slack: tuple[Floats, ...], how: str) -> Iterator[Finding]:  # fmt: skip
    for name, right, got, allowed in zip(("value", "gradient"), expected, found, slack, strict=False):
        with np.errstate(invalid="ignore"):
            same = (abs(got - right) <= allowed) | np.isnan(allowed) | np.isinf(allowed)
        bad = np.flatnonzero(~same & (np.isfinite(got) | np.isfinite(right)))
        if bad.size:
            i = bad[np.argmin(abs(x[bad]))]
            yield Finding(test, dtype, float(x[i]), f"the {name} {how}: {got[i]:.9g}, {right[i]:.9g} expected{_also(bad.size)}")
            return


def _also(count: int) -> str:
    return f"; also at {count - 1} other margins" if count > 1 else ""


def _rounding(of: tuple[Floats, ...], dtype: str) -> tuple[Floats, ...]:
    return tuple(_EXACT * float(np.finfo(dtype).eps) * np.where(np.isfinite(part), abs(part), 0) for part in of)


def slack(function: Function, x: Floats, dtype: str, at: tuple[Floats, ...], half: float = 0.0) -> tuple[Floats, ...]:
    """Half the dtype's digits, or `half`, and how far the function moves while x moves by that; x begins with 0 and 1.

    The vectorised and the scalar form of a kernel round differently, which a cancellation can blow up.
    """
    half = half or float(np.finfo(dtype).eps) ** 0.5
    step = half * np.maximum(1, abs(x))
    beside = [evaluate(function, x + move, dtype) for move in (-step, step)]
    with np.errstate(invalid="ignore"):
        return tuple(2 * np.maximum(*(abs(near[k] - at[k]) for near in beside)) + half * abs(at[k])
                     + 64 * half**2 * np.nan_to_num(abs(at[k][:2])).sum() for k in range(2))  # fmt: skip
