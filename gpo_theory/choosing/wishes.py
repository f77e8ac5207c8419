"""The properties that a user may wish of a loss, and which of them exclude each other."""

__all__ = ["TailWish", "Wish", "exclusions", "read_number"]

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import Any

from gpo_theory.errors import InputError, nearest

NUMBERED = ("exponential", "exponential_growth", "power", "polynomial")
FADING = ("zero", "super_exponential", "exponential", "power")
RISING = ("logarithmic", "linear", "polynomial", "exponential_growth", "super_exponential_growth")
# At most 20 digits: a longer number says nothing more, and would slow the exact arithmetic.
_NUMBER = re.compile(r"-?\d{1,20}(\.\d{1,20}|/\d{1,20})?", re.ASCII)
CLASSES = (*FADING, "constant", *RISING)


@dataclass(frozen=True)
class TailWish:
    """The class of -f' at one end, with its rate (exponentials) or order (powers) where that is wished too.

    Raises InputError for a class that does not exist, and for a number that is not positive or not allowed there.

    >>> TailWish.read("exponential:1/2")
    TailWish(kind='exponential', number=Fraction(1, 2))
    """

    kind: str
    number: Fraction | None = None

    def __post_init__(self) -> None:
        if self.kind not in CLASSES:
            raise InputError(f"tail {self.kind!r} is no class{nearest(self.kind, CLASSES)}; allowed: "
                             f"{', '.join(CLASSES)}")  # fmt: skip
        if self.number is not None and (self.kind not in NUMBERED or self.number <= 0):
            raise InputError(f"tail {self.kind}:{self.number}: a positive number is allowed for {', '.join(NUMBERED)}")

    @staticmethod
    def read(text: str) -> "TailWish":
        """Return the wish written as CLASS or CLASS:NUMBER."""
        kind, colon, number = text.partition(":")
        return TailWish(kind, read_number("tail", number) if colon else None)

    @property
    def exponent(self) -> Fraction | float | None:
        """The e with -f' = exp(e |x|) up to slower factors; -inf for a tail of zero, None where no rate is wished."""
        if self.kind in ("exponential", "exponential_growth"):
            return None if self.number is None else self.number if "growth" in self.kind else -self.number
        return {"zero": -inf, "super_exponential": -inf, "super_exponential_growth": inf}.get(self.kind, Fraction(0))


@dataclass(frozen=True)
class Wish:
    """The properties wished of f, None where they do not matter; f'(0) < 0 is always wished.

    `strength` R = |f''(0)/f'(0)|; `target` x*(1), the least minimiser of f, or "none" where f is to have none; `right`
    and `left` describe -f'; `exactness` is the c of Bradley-Terry exactness. Raises InputError outside R >= 0,
    target > 0, c > 0.
    """

    strength: Fraction | None = None
    target: Fraction | str | None = None
    right: TailWish | None = None
    left: TailWish | None = None
    convex: bool = False
    exactness: Fraction | None = None

    def __post_init__(self) -> None:
        if not self.convex and all(wished is None for wished in (self.strength, self.target, self.right, self.left,
                                                                 self.exactness)):  # fmt: skip
            raise InputError("nothing is wished: give at least one property")
        if self.strength is not None and self.strength < 0:
            raise InputError(f"strength {self.strength} is below 0")
        if isinstance(self.target, str) and self.target != "none":
            raise InputError(f"target {self.target!r} is neither a number above 0 nor 'none'")
        if isinstance(self.target, Fraction) and self.target <= 0:
            raise InputError(f"target {self.target} is not above 0")
        if self.exactness is not None and self.exactness <= 0:
            raise InputError(f"constant of Bradley-Terry exactness {self.exactness} is not above 0")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; numbers are exact text."""
        def shown(value: Any) -> str | None:
            return None if value is None else str(value)

        tails = {side: tail and {"class": tail.kind, "number": shown(tail.number)}
                 for side, tail in (("right_tail", self.right), ("left_tail", self.left))}  # fmt: skip
        return {"strength": shown(self.strength), "target": shown(self.target), **tails, "convex": self.convex,
                "bradley_terry_exact": shown(self.exactness)}  # fmt: skip


def read_number(name: str, text: str) -> Fraction:
    """Return the exact number written as 0.5 or 1/2; raises InputError, which starts with `name`, for other text."""
    if not _NUMBER.fullmatch(text) or set(text.partition("/")[2]) == {"0"}:
        raise InputError(f"{name} {text!r} is not a number such as 0.5 or 1/2")
    return Fraction(text)


def exclusions(wish: Wish) -> list[tuple[str, str]]:
    """Return (proposition, why) for every part of a wish that no f can have.

    >>> exclusions(Wish(strength=Fraction(1), exactness=Fraction(1)))[0]
    ('P3', "f'(-x) = exp(x/c) f'(x) with c = 1 makes R = 1/(2c) = 1/2, not 1")
    >>> exclusions(Wish(target=Fraction(2), convex=True))
    []
    """
    return [*_bradley_terry(wish), *_convexity(wish)]


def _bradley_terry(wish: Wish) -> Iterator[tuple[str, str]]:
    c = wish.exactness
    if c is None:
        return
    if wish.strength is not None and wish.strength != 1 / (2 * c):
        yield "P3", f"f'(-x) = exp(x/c) f'(x) with c = {c} makes R = 1/(2c) = {1 / (2 * c)}, not {wish.strength}"
    if isinstance(wish.target, Fraction):
        yield "P6", f"exactness needs f' < 0 everywhere: the link is c logit p, so x*(1) is infinite, not {wish.target}"
    for side, tail in (("right", wish.right), ("left", wish.left)):
        if tail and tail.kind == "zero":
            yield "P3", f"exactness needs f' < 0 everywhere, so the {side} tail of -f' is not zero"
    right, left = (None if tail is None else tail.exponent for tail in (wish.right, wish.left))
    if right is not None and left is not None and left != right + 1 / c and not (left == right and abs(right) == inf):
        yield "P3", (f"f'(-x) = exp(x/c) f'(x) with c = {c} makes the exponent of -f' on the left 1/c + {right}, "
                     f"not {left}")  # fmt: skip
    if wish.convex:
        bounds = f"f convex and exact with c = {c}: |f'(0)| exp(-x/c) <= -f'(x) <= |f'(0)| for x > 0"
        if wish.right and (wish.right.kind in RISING or (right is not None and not -1 / c <= right <= 0)):
            yield "P5", f"{bounds}, which a right tail {_shown(wish.right)} leaves"
        if wish.left and (wish.left.kind in FADING or (left is not None and not 0 <= left <= 1 / c)):
            yield "P5", f"{bounds}, and exp(x/c) times that at -x, which a left tail {_shown(wish.left)} leaves"


def _convexity(wish: Wish) -> Iterator[tuple[str, str]]:
    """Yield what contradicts convexity (-f' never rises) and f'(0) < 0."""
    if not wish.convex:
        return
    if wish.left and wish.left.kind in FADING:
        yield "convexity", f"-f' never rises, so a left tail {_shown(wish.left)} makes -f' <= 0 everywhere: f'(0) >= 0"
    if wish.right and isinstance(wish.target, Fraction) and wish.right.kind in FADING[1:]:
        yield "convexity", (f"beyond its minimiser {wish.target} -f' <= 0 never rises, so it can tend to 0 only as 0: "
                            f"the right tail is not {_shown(wish.right)}")  # fmt: skip
    if wish.right and wish.target == "none" and wish.right.kind in ("zero", *RISING):
        yield "convexity", (f"-f' never rises, so a right tail {_shown(wish.right)} makes f' >= 0 from some point on: "
                            "f has a minimiser")  # fmt: skip


def _shown(tail: TailWish | None) -> str:
    return "" if tail is None else tail.kind if tail.number is None else f"{tail.kind}:{tail.number}"
