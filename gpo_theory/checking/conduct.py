"""Tests of a user's function as torch code: shapes, dtypes, batches, memory, state, upstream gradients."""

__all__ = ["CONDUCT", "STAGES", "Batches", "compared", "repeats", "settings_kept", "slack"]

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpo_theory.checking.calling import Finding, Floats, Function, UserCodeError, call, evaluate
from gpo_theory.checking.margins import random_margins

Run = Callable[[Floats], tuple[Floats, ...]]
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
        """Float32 margins that are looked for in every batch: few, because each is also evaluated alone."""
        keys = np.concatenate([[0.0, 1.0, -2.5, 40.0], random_margins(20, self.seed)])
        return keys.astype(np.float32).astype(np.float64)

    def around(self, keys: Floats) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
        """Return batches of several sizes among whose random margins are some of the keys, and their places."""
        draw = np.random.default_rng(self.seed)
        for size in (size for size in _SIZES if size <= 8 * self.count):
            for _ in range(2):
                chosen = draw.permutation(keys.size)[:size]
                batch = random_margins(size, int(draw.integers(1 << 30)))
                places = np.append(draw.permutation(size - 1)[: chosen.size - 1], size - 1)  # the last is often special
                batch[places] = keys[chosen]
                at = np.full(keys.size, -1)
                at[chosen] = places
                yield batch, at


def _form(function: Function, dtype: str, _: Batches) -> Iterator[Finding]:
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


def _state(function: Function, dtype: str, batches: Batches) -> Iterator[Finding]:
    """Repeat a call, also with others before it and between it and its backward pass."""
    import torch

    keys = batches.keys
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


def repeats(function: Function, batches: Batches) -> Callable[[], Iterator[Finding]]:
    """Call the function now, and return a test that at the end the same call still gives the same."""
    import torch

    settings = _settings()
    first = evaluate(function, batches.keys, "float64")

    def test() -> Iterator[Finding]:
        now = _settings()
        torch.set_grad_enabled(settings["grad mode"])
        for name in (name for name in settings if now[name] != settings[name]):
            message = f"it changes torch's {name}: {now[name]}, {settings[name]} expected"
            yield Finding("state", "float64", None, message)
        again = evaluate(function, batches.keys, "float64")
        yield from compared("state", "float64", batches.keys, first, again, _rounding(first, "float64"),
                            "differs between calls, here the last and the first")  # fmt: skip

    return test


@contextmanager
def settings_kept() -> Iterator[None]:
    """Put torch's settings back at the end, whatever the function did to them."""
    import torch

    settings = _settings()
    try:
        yield
    finally:
        torch.set_grad_enabled(settings["grad mode"])
        torch.set_default_dtype(settings["default dtype"])


def _settings() -> dict[str, Any]:
    import torch

    return {"grad mode": torch.is_grad_enabled(), "default dtype": torch.get_default_dtype()}


def _input(function: Function, dtype: str, batches: Batches) -> Iterator[Finding]:
    import torch

    for wants in (True, False):
        given = torch.tensor(batches.keys, dtype=getattr(torch, dtype), requires_grad=wants)
        kept = given.detach().clone()
        x = given.clone() if wants else given
        try:
            call(function, x)
        except UserCodeError:  # without a gradient, that is: the finding of another test
            return
        changed = (x.detach() != kept).numpy().nonzero()[0]
        if changed.size:
            i = int(changed[0])
            yield Finding("input", dtype, float(kept[i]), f"it changes the margins that it is given: {x[i].item():.6g} "
                          f"afterwards, {kept[i].item():.6g} expected")  # fmt: skip
            return
        if x.requires_grad != wants:
            yield Finding("input", dtype, None, "it changes whether the margins that it is given require a gradient")


def _no_grad(function: Function, dtype: str, batches: Batches) -> Iterator[Finding]:
    """Without a gradient the value is the same, as an evaluation needs it."""
    import torch

    keys = batches.keys
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


def _batches(function: Function, dtype: str, batches: Batches) -> Iterator[Finding]:
    """A margin's value and gradient are those that it has alone, whatever stands beside it and wherever it stands."""
    keys = batches.keys
    alone = _one_by_one(function, keys, dtype)
    allowed = slack(lambda x: _one_by_one(function, x, dtype), keys, alone, float(np.finfo(dtype).eps) ** 0.5)
    for batch, at in batches.around(keys):
        some = at >= 0
        result = tuple(part[at[some]] for part in evaluate(function, batch, dtype))
        found = list(compared("elementwise", dtype, keys[some], tuple(part[some] for part in alone), result,
                               tuple(part[some] for part in allowed),
                               f"depends on the other margins or their order, here in a batch of {batch.size} and "
                               "alone"))  # fmt: skip
        if found:
            yield from found
            return
    for test, how, layout in _layouts():
        found = list(compared(test, dtype, keys, alone, evaluate(function, keys, dtype, layout=layout), allowed,
                              f"depends on the {how}"))  # fmt: skip
        yield from found
        if found:
            return


def _one_by_one(function: Function, x: Floats, dtype: str) -> tuple[Floats, ...]:
    each = [evaluate(function, x[i : i + 1], dtype) for i in range(x.size)]
    return tuple(np.concatenate(part) for part in zip(*each, strict=True))


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
    with np.errstate(invalid="ignore", over="ignore"):
        expected = weights * plain
        error = abs(weighted - expected)
    fits = np.isfinite(plain) & ((abs(expected) < float(info.max) / 2**30) | (abs(weights) <= 1))
    slack = 64 * float(info.eps) * abs(expected) + float(info.tiny) / float(info.eps) * 2**20
    bad = np.flatnonzero(fits & ~(error <= slack))
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
            yield Finding(test, dtype, float(x[i]), f"the {name} {how}: {got[i]:.9g}, {right[i]:.9g} expected"
                          f"{_also(bad.size)}")  # fmt: skip
            return


def _also(count: int) -> str:
    return f"; also at {count - 1} other margins" if count > 1 else ""


def _rounding(of: tuple[Floats, ...], dtype: str) -> tuple[Floats, ...]:
    return tuple(_EXACT * float(np.finfo(dtype).eps) * np.where(np.isfinite(part), abs(part), 0) for part in of)


def slack(run: Run, x: Floats, at: tuple[Floats, ...], half: float) -> tuple[Floats, ...]:
    """Return `half`, half the digits, of the results `at` x and how far they move while x moves by that.

    x begins with 0 and 1, which set the scale.
    The vectorised and the scalar form of a kernel round differently, which a cancellation can blow up.
    """
    step = half * np.maximum(1, abs(x))
    beside = [run(x + move) for move in (-step, step)]
    with np.errstate(invalid="ignore"):
        return tuple(2 * np.maximum(*(abs(near[k] - at[k]) for near in beside)) + half * abs(at[k])
                     + 64 * half**2 * np.nan_to_num(abs(at[k][:2])).sum() for k in range(2))  # fmt: skip


# In this order: what raises, or has state, is not tested further.
STAGES: dict[tuple[str, ...], Callable[[Function, str, Batches], Iterator[Finding]]] = {
    ("runs", "shape", "dtype"): _form, ("state",): _state, ("input",): _input, ("no_grad",): _no_grad,
    ("elementwise", "layout"): _batches, ("upstream",): _upstream,
}  # fmt: skip
CONDUCT = tuple(test for tests in STAGES for test in tests)
