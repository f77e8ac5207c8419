"""How large the controlled experiment is: every number that defines a scale, in one place."""

__all__ = ["LOSS_NAMES", "SCALES", "Scale", "find_scale"]

from dataclasses import dataclass, replace

from gpo_theory.errors import InputError, nearest

LOSS_NAMES = ("logistic", "hinge", "squared", "exponential", "truncated_squared", "savage")
# Right tails that the six do not have: -f' falls like 1/x^2; faster than any exponential; to a negative constant.
MORE_TAILS = ("canonical_boosting", "probit", "cdpo")


@dataclass(frozen=True)
class Scale:
    """The settings of one scale, all fixed before its final runs."""

    name: str
    longest_prompt: int  # tokens; longer tasks are left out
    longest_response: int  # tokens; sampling stops there
    sft_steps: int
    sft_batch: int
    sft_layers: int
    sft_learning_rate: float
    pair_prompts: int
    pairs: int
    steps: int
    pairs_per_step: int
    trained_layers: int
    learning_rates: tuple[float, ...]  # tried by a pilot in this order; one alone is taken as it is, without a pilot
    beta: float  # of the logistic loss, to which the others are matched
    pilot_prompts: int
    test_prompts: int
    precision: str  # in which policies are trained, over float32 weights; they are judged in float32
    budget_seconds: float | None  # runs of `extra` are dropped to fit; None: no run is, and a forecast is made instead
    real: bool = True  # else a random network on made-up texts
    losses: tuple[str, ...] = LOSS_NAMES
    factors: tuple[float, ...] = (1.0,)  # the betas of a loss, over its matched one
    extra: tuple[tuple[str, float], ...] = ()  # runs beyond those, (loss, factor), the last of them dropped first
    repeats: int = 1  # seeds at the matched beta
    seed: int = 0
    label_slope: float | None = 20.0  # k of P(y1 preferred) = sigmoid(k (r1 - r2)); None: 4 over the mean of |r1 - r2|
    certainty: float = 0.9  # p at which a loss with R = 0 is matched by its target margin
    reached: float = 1.0  # mean beta rho that ends the pilot


# The learning rate is the one that the pilot of the published run chose (scale full, at beta 0.2).
_CPU = Scale(
    "cpu", longest_prompt=96, longest_response=32, sft_steps=60, sft_batch=8, sft_layers=12,
    sft_learning_rate=1e-4, pair_prompts=260, pairs=256, steps=128, pairs_per_step=4, trained_layers=8,
    learning_rates=(5e-5,), beta=0.1, pilot_prompts=64, test_prompts=160, precision="bfloat16",
    budget_seconds=1320.0, extra=(("logistic", 0.5), ("logistic", 4.0)),
)  # fmt: skip
_SMOKE = Scale(
    "smoke", longest_prompt=64, longest_response=8, sft_steps=3, sft_batch=4, sft_layers=2, sft_learning_rate=1e-3,
    pair_prompts=24, pairs=16, steps=6, pairs_per_step=4, trained_layers=1, learning_rates=(3e-2,), beta=0.5,
    pilot_prompts=6, test_prompts=12, precision="float32", budget_seconds=3600.0, real=False, extra=_CPU.extra,
)  # fmt: skip
# More pairs rather than more passes over them: on few pairs a policy learns the pairs by heart.
_FULL = replace(
    _CPU, name="full", pair_prompts=700, pairs=640, steps=320, learning_rates=(2.5e-5, 5e-5, 1e-4), beta=0.2,
    pilot_prompts=96, test_prompts=280, budget_seconds=None, losses=(*LOSS_NAMES, *MORE_TAILS),
    factors=(0.25, 0.5, 1.0, 2.0, 4.0), repeats=3, extra=(),
)  # fmt: skip
SCALES = {scale.name: scale for scale in (_SMOKE, _CPU, _FULL)}


def find_scale(name: str) -> Scale:
    """Return the scale called `name`, or raise InputError."""
    if name not in SCALES:
        raise InputError(f"unknown scale {name!r}; allowed: {', '.join(SCALES)}{nearest(name, SCALES)}")
    return SCALES[name]
