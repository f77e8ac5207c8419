"""The margins at which a user's function is tested: a fixed ladder, and random ones on all scales."""

__all__ = ["LADDER", "random_margins"]

import numpy as np
from numpy.typing import NDArray

# Near 0, around the kinks of the usual losses, where exp overflows (88.7 in float32, 709.8 in float64), and up to 1e6.
_STEPS = (1e-6, 1e-3, 0.1, 0.3, 0.5, 0.9, 1.0, 1.1, 2.0, 3.3, 5.0, 8.0, 13.0, 19.9, 20.1, 34.0, 50.0, 80.0, 88.5, 89.0,
          104.0, 150.0, 400.0, 709.0, 711.0, 746.0, 1e3, 1e4, 1e5, 1e6)  # fmt: skip
LADDER = (*(-x for x in reversed(_STEPS)), 0.0, *_STEPS)


def random_margins(count: int, seed: int) -> NDArray[np.float64]:
    """Return `count` margins, |x| <= 1e6: even near 0, on all scales from 1e-30, and numbers that people type.

    >>> x = random_margins(1000, seed=0)
    >>> len(x), bool(abs(x).max() <= 1e6), bool((abs(x) < 1e-9).any()), 0.25 in x
    (1000, True, True, True)
    """
    draw = np.random.default_rng(seed)
    sign = draw.choice([-1.0, 1.0], count)
    kinds = (draw.uniform(0, 4, count), draw.uniform(0, 40, count), draw.uniform(0, 800, count),
             10 ** draw.uniform(-3, 6, count), 10 ** draw.uniform(-30, 0, count), draw.integers(0, 200, count) / 16.0,
             draw.integers(0, 200, count) / 10.0)  # fmt: skip
    return sign * np.choose(draw.integers(0, len(kinds), count), kinds)
