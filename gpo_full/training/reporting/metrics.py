"""The metrics of a logging interval: exact means over its pairs, with one transfer from the device."""

__all__ = ["Meter", "NonFiniteLoss", "pair_metrics"]

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Below this share of |f'(0)| a pair hardly moves the policy: the definition of flat_right, a convention.
FLAT = 0.01
# One column per pair; `pairs` counts them.
COLUMNS = ("pairs", "loss", "margin", "regularizer", "log_ratio_chosen", "log_ratio_rejected", "accuracy", "weight",
           "saturated_left", "saturated_right", "flat_right", "regularizer_share")  # fmt: skip
# Metrics of a Meter that held-out pairs do not have.
OF_TRAINING = ("grad_norm", "tokens", "cpu_seconds")


class NonFiniteLoss(ArithmeticError):
    """The loss or its gradient became NaN or infinite, and training cannot continue."""


def pair_metrics(
    loss: Tensor,
    slope: Tensor,
    x: Tensor,
    log_ratios: Tensor,
    *,
    knees: tuple[float | None, float | None] = (None, None),
    slope_at_zero: Any = None,
    curvature_at_zero: Any = None,
) -> Tensor:
    """Return the sums of COLUMNS over P pairs, [12] in float64; nothing leaves the device.

    `loss` is f(x), `slope` f'(x), `x` = beta rho, each [P], a pair's own weight and `p` included; `log_ratios` is
    log(pi/pi_ref) of the two responses, [P, 2] in nats, rho their difference. The column `weight` sums -f'(x), and
    `regularizer` rho^2 / 2; `saturated_left` and `saturated_right` count x beyond the `knees`; `flat_right` counts
    x > 0 with -f'(x) < |f'(0)| / 100. `regularizer_share` is what the squared loss has of the gradient to second order,
    f'(0) + f''(0) x: |f''(0) x| / (|f'(0)| + |f''(0) x|). `slope_at_zero` is f'(0), `curvature_at_zero` f''(0), each
    a number or [P].

    >>> import torch
    >>> ratios = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    >>> x = ratios[:, 0] - ratios[:, 1]
    >>> pair_metrics((1 - x) ** 2, -2 * (1 - x), x, ratios, slope_at_zero=-2.0, curvature_at_zero=2.0).tolist()
    [2.0, 1.0, 1.0, 0.5, 2.0, 1.0, 1.5, 2.0, 0.0, 0.0, 1.0, 0.5]
    """
    rho = log_ratios[:, 0] - log_ratios[:, 1]
    left, right = knees
    none = torch.zeros_like(x)
    columns = (
        torch.ones_like(x), loss, rho, rho.square() / 2, log_ratios[:, 0], log_ratios[:, 1],
        (rho > 0) + (rho == 0) * 0.5, -slope,
        none if left is None else x < left, none if right is None else x > right,
        none if slope_at_zero is None else (x > 0) & (-slope < FLAT * abs(slope_at_zero)),
        none if None in (slope_at_zero, curvature_at_zero) else _share(curvature_at_zero * x, slope_at_zero + none),
    )  # fmt: skip
    return torch.stack([column.detach().double() for column in columns]).sum(1)


def _share(pull: Tensor, push: Tensor) -> Tensor:
    """|pull| / (|pull| + |push|), and 0 where both are 0."""
    return pull.abs() / (pull.abs() + push.abs()).clamp(min=torch.finfo(pull.dtype).tiny)


class Meter:
    """Sums since the last `drain`, on the device; `drain` and `state` transfer them to the host."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # COLUMNS, then tokens, gradient norms, optimizer steps.
        self._sums = torch.zeros(len(COLUMNS) + 3, dtype=torch.float64, device=device)
        self.steps = 0  # in the sums, at the last transfer
        self._tokens_before = 0.0
        self._cpu_offset = -time.process_time()

    def add(self, sums: Tensor, tokens: Tensor | int) -> None:
        """Add a batch: the sums of COLUMNS and the number of tokens processed."""
        self._sums[: len(COLUMNS)] += sums
        self._sums[-3] += tokens

    def add_gradient_norm(self, norm: Tensor | float, steps: Tensor | int = 1) -> None:
        """Add the gradient norm of one optimizer step, before clipping; or of none, if it is not applied."""
        self._sums[-2] += norm
        self._sums[-1] += steps

    def drain(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Return the means and start again at zero; `reduce` returns the sums over all ranks.

        Raises NonFiniteLoss instead of averaging a NaN in.
        """
        *columns, tokens, norms, steps = self._finite(reduce(self._sums))
        values = dict(zip(COLUMNS, columns, strict=True))
        pairs = values.pop("pairs")
        means = {name: total / pairs for name, total in values.items()} if pairs else dict.fromkeys(values, 0.0)
        spread = math.sqrt(max(0.0, 2 * means["regularizer"] - means["margin"] ** 2))
        self._tokens_before += tokens
        self._sums.zero_()
        return {
            "loss": means["loss"], "margin": means["margin"], "margin_std": spread,
            **{name: means[name] for name in COLUMNS[4:7]}, "regularizer": means["regularizer"],
            **{name: means[name] for name in COLUMNS[7:]},
            "grad_norm": norms / steps if steps else 0.0,
            "tokens": int(self._tokens_before), "cpu_seconds": self._cpu_offset + time.process_time(),
        }  # fmt: skip

    def state(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON; `reduce` as in `drain`."""
        return {"sums": self._finite(reduce(self._sums.clone())), "tokens": self._tokens_before,
                "cpu_seconds": self._cpu_offset + time.process_time()}  # fmt: skip

    def restore(self, state: dict[str, Any], *, first: bool = True) -> None:
        """Continue from what `state` returned; of several ranks, the first gets the sums over all of them."""
        self._sums = torch.tensor(state["sums"], dtype=torch.float64, device=self._sums.device)
        if not first:
            self._sums[:-2] = 0.0
        self._tokens_before = state["tokens"]
        self._cpu_offset += state["cpu_seconds"]

    def _finite(self, sums: Tensor) -> list[float]:
        values: list[float] = sums.tolist()
        if not all(map(math.isfinite, values)):
            names = (*COLUMNS, "tokens", "grad_norm", "steps")
            broken = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
            raise NonFiniteLoss(f"not finite: {', '.join(broken)}")
        self.steps = int(values[-1])
        return values
