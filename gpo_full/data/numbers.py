"""What a row says of its pair in numbers: its weight, how sure its label is, and what the reference makes of it."""

__all__ = ["NOTHING_SAID", "PairNumbers", "numbers_of_row"]

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpo_full.data.files import NUMBERS, REFERENCES, BadRow
from gpo_theory.errors import InputError


class PairNumbers(NamedTuple):
    """`weight` w and `p` make the pair's loss w (p f(x) + (1-p) f(-x)); `reference` is log pi_ref of both responses.

    `p` is the probability that the chosen response is the better one. `reference` is in nats, summed over tokens,
    chosen first; NaN where it is not given. InputError for numbers that cannot be meant.

    >>> PairNumbers(weight=2, p=0.9).checked()
    PairNumbers(weight=2, p=0.9, reference=None)
    """

    weight: float = 1.0
    p: float = 1.0
    reference: tuple[float, float] | None = None

    def checked(self) -> "PairNumbers":
        """Return the numbers; InputError if the loss they make cannot be meant."""
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight {self.weight!r} is not a finite number of at least 0")
        if not 0 <= self.p <= 1:
            raise InputError(f"p {self.p!r} is not a probability")
        for name, value in zip(REFERENCES, self.reference or (), strict=False):
            if not -math.inf < value <= 0:
                raise InputError(f"{name} {value!r} is not the logarithm of a probability")
        return self


NOTHING_SAID = PairNumbers()


def numbers_of_row(row: Mapping[str, Any]) -> PairNumbers:
    """Return the numbers of a row, those of a table being texts; what is not there, empty or null is as if not said."""
    found = {name: value for name in NUMBERS if (value := _number(row, name)) is not None}
    both = [found.pop(name) for name in REFERENCES if name in found]
    if len(both) == 1:
        raise BadRow(f"{' and '.join(REFERENCES)} go together")
    try:
        return PairNumbers(**found, reference=(both[0], both[1]) if both else None).checked()
    except InputError as error:
        raise BadRow(str(error)) from None


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadRow(f"{name!r} must be a number, not {value!r:.60}") from None
