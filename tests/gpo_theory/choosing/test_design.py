"""Inverse design: what is found is checked by numbers of its own, and what is excluded holds of no real loss."""

from fractions import Fraction
from itertools import pairwise

import mpmath as mp
import pytest

from gpo_theory import InputError
from gpo_theory.choosing.design import find_design
from gpo_theory.choosing.matching import match_beta
from gpo_theory.choosing.wishes import TailWish, Wish, exclusions, read_number
from tests.support.oracle import TRUTHS, evaluate, number, real
from tests.support.oracle import Tail as TrueTail

F = Fraction
tail = TailWish.read

FOUND = [
    Wish(convex=True),
    Wish(target=F(2)),
    Wish(target="none", convex=True),
    Wish(strength=F(1, 2), target=F(2), convex=True),
    Wish(strength=F(1), target=F(3), convex=True),
    Wish(strength=F(1, 3), target=F(1), convex=True, right=tail("zero")),
    Wish(strength=F(5, 3), target=F(7, 2), convex=True, right=tail("linear"), left=tail("linear")),
    Wish(strength=F(0), target=F(2), convex=True, right=tail("zero"), left=tail("polynomial:3")),
    Wish(strength=F(1), target=F(2), convex=True, right=tail("constant")),
    Wish(strength=F(3), target=F(1), right=tail("zero"), left=tail("zero")),
    Wish(strength=F(3), target=F(1), left=tail("exponential:2")),
    Wish(strength=F(3), target=F(1), left=tail("power:2")),
    Wish(strength=F(1, 2), target=F(2), left=tail("power")),
    Wish(left=tail("power")),
    Wish(left=tail("power:1/2"), right=tail("power")),
    Wish(left=tail("polynomial")),
    Wish(strength=F(2), target="none", right=tail("exponential:1/3"), convex=True),
    Wish(strength=F(0), target="none", right=tail("exponential:3"), left=tail("linear"), convex=True),
    Wish(strength=F(2), right=tail("exponential:3"), left=tail("exponential_growth:1"), convex=True),
    Wish(strength=F(1, 2), right=tail("power:3"), left=tail("exponential_growth:1"), convex=True),
    Wish(strength=F(0), right=tail("power:2"), left=tail("exponential_growth:2"), convex=True),
    Wish(strength=F(2), right=tail("power:1"), convex=True),
    Wish(strength=F(3), right=tail("constant"), convex=True),
    Wish(exactness=F(2)),
    Wish(exactness=F(1), strength=F(1, 2), convex=True, left=tail("constant")),
    Wish(exactness=F(1), right=tail("exponential:1/3"), convex=True),
    Wish(exactness=F(1), right=tail("exponential:2"), left=tail("exponential:1")),
    Wish(exactness=F(1, 2), right=tail("constant"), left=tail("exponential_growth:2"), convex=True),
    Wish(exactness=F(1), left=tail("exponential:3")),
]  # fmt: skip


def check_tail(f, wished: TailWish, side: int) -> None:
    """The class of -f' by its values far out: growth per unit of x, or per doubling of x."""
    def push(x):
        return -side * (f(side * (x + h)) - f(side * x)) / h

    h, near = mp.mpf(10) ** -200, mp.mpf(200 if "exponential" in wished.kind else 20_000)
    with mp.workdps(1000):
        a, b, far = push(near), push(2 * near), push(2 * near + 1)
        if wished.kind == "zero":
            assert a == b == 0
        elif wished.kind in ("exponential", "exponential_growth"):
            rate = mp.log(far / b) * (1 if "growth" in wished.kind else -1)
            assert rate > 0
            assert wished.number is None or abs(rate - real(wished.number)) < 0.01
        else:
            order = {"constant": 0, "linear": 1}.get(wished.kind, wished.number)
            found = mp.log(b / a, 2) * (-1 if wished.kind == "power" else 1)
            assert found > 0.05 if order is None else abs(found - real(Fraction(order))) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("wish", FOUND, ids=lambda wish: str([v for v in wish.as_dict().values() if v]))
def test_what_is_found_has_what_was_wished(wish: Wish) -> None:
    found = find_design(wish)
    assert not found.excluded_by
    assert found.analysis is not None
    loss = found.analysis.loss
    f = lambda x: evaluate(loss.formula, x, loss.parameters)  # noqa: E731
    with mp.workdps(60):
        h = mp.mpf(10) ** -15
        down, up = (f(mp.mpf(0)) - f(-h)) / h, (f(h) - f(mp.mpf(0))) / h
        assert up < 0
        assert abs(up - down) < 1e-12 * abs(up)
        second = (f(h) + f(-h) - 2 * f(mp.mpf(0))) / h**2  # the mean of the one-sided second derivatives
        if wish.strength is not None:
            assert abs(abs(second / up) - real(wish.strength)) < 1e-10
        grid = [mp.mpf(k) / 8 for k in range(-160, 161)]
        values = [f(x) for x in grid]
        if wish.strength:
            assert all(a + b > 2 * values[160] for a, b in zip(values[:160], values[:160:-1], strict=True))
            matched = match_beta("logistic", loss.formula, 0.1).beta_to
            assert matched == pytest.approx(0.05 / float(wish.strength), rel=1e-12)  # R = 1/2 of the logistic loss
        if isinstance(wish.target, Fraction):
            best = f(real(wish.target))
            assert all(best <= y for y in values)
            assert all(best < f(real(wish.target) - gap) for gap in (mp.mpf(10) ** -6, mp.mpf(1) / 3, 20))
        elif wish.target == "none":
            assert all(b < a for a, b in pairwise(values))
        if wish.convex:
            assert all(a + c - 2 * b >= -mp.mpf(10) ** -50 * abs(b)
                       for a, b, c in zip(values, values[1:], values[2:], strict=False))  # fmt: skip
        if wish.exactness is not None:
            for x in (mp.mpf("0.3"), mp.mpf(2), mp.mpf(7)):
                ratio = (f(-x + h) - f(-x)) / (f(x + h) - f(x))
                assert abs(mp.log(ratio) - x / real(wish.exactness)) < 1e-10
    for wished, side in ((wish.right, 1), (wish.left, -1)):
        if wished is not None:
            check_tail(f, wished, side)


EXCLUDED = [
    (Wish(exactness=F(1), strength=F(1)), {"P3"}),
    (Wish(exactness=F(1), target=F(2)), {"P6"}),
    (Wish(exactness=F(1), right=tail("zero")), {"P3"}),
    (Wish(exactness=F(1), left=tail("zero")), {"P3"}),
    (Wish(exactness=F(1), right=tail("exponential:1"), left=tail("exponential_growth:1")), {"P3"}),
    (Wish(exactness=F(1), right=tail("power"), left=tail("linear")), {"P3"}),
    (Wish(exactness=F(2), right=tail("exponential:1"), convex=True), {"P5"}),
    (Wish(exactness=F(2), right=tail("linear"), convex=True), {"P5"}),
    (Wish(exactness=F(2), right=tail("super_exponential"), convex=True), {"P5"}),
    (Wish(exactness=F(2), left=tail("exponential_growth:1"), convex=True), {"P5"}),
    (Wish(exactness=F(2), left=tail("power:1"), convex=True), {"P5", "convexity"}),
    (Wish(left=tail("exponential"), convex=True), {"convexity"}),
    (Wish(target=F(1), right=tail("power:2"), convex=True), {"convexity"}),
    (Wish(target="none", right=tail("zero"), convex=True), {"convexity"}),
    (Wish(target="none", right=tail("linear"), convex=True), {"convexity"}),
    (Wish(exactness=F(1), strength=F(2), target=F(1)), {"P3", "P6"}),
]  # fmt: skip


@pytest.mark.parametrize(("wish", "propositions"), EXCLUDED)
def test_what_excludes_itself(wish: Wish, propositions: set[str]) -> None:
    found = find_design(wish)
    assert found.analysis is None
    assert {name for name, _ in found.excluded_by} == propositions
    assert all(len(because) > 20 for _, because in found.excluded_by)


def wished_tail(true: TrueTail) -> TailWish | None:
    """What a user would have had to wish for the tail of -f' of a known loss; rates that are not rational are left out."""
    numbered = true.kind in ("exponential", "exponential_growth", "power", "polynomial")
    rational = numbered and true.number is not None and set(true.number) <= set("0123456789/")
    return TailWish(true.kind, Fraction(true.number) if rational else None)


FALLING = [name for name, truth in TRUTHS.items() if len(truth.taylor) > 1 and number(truth.taylor[1]) < 0]


@pytest.mark.parametrize("name", FALLING)
def test_no_real_loss_is_excluded(name: str) -> None:
    """Wishing exactly what the oracle knows of a loss with f'(0) < 0 must never be called impossible."""
    truth = TRUTHS[name]
    rational = set("0123456789/")
    strength = None
    if truth.strength is not None and all(set(text) <= rational for text in truth.strength):
        strength = sum(map(Fraction, truth.strength)) / len(truth.strength)
    least = truth.target
    target = None if least is None else "none" if least == "inf" else Fraction(least) if set(least) <= rational else None
    wish = Wish(strength, target, wished_tail(truth.tails[3]), wished_tail(truth.tails[1]), truth.holds("convex"),
                None if truth.c is None else Fraction(truth.c))  # fmt: skip
    assert exclusions(wish) == []


def test_neither_found_nor_excluded_is_said() -> None:
    found = find_design(Wish(right=tail("super_exponential"), strength=F(1)))
    assert found.analysis is None
    assert found.excluded_by == ()
    assert found.as_dict()["loss"] is found.as_dict()["excluded_by"] is None


def test_a_strength_is_granted_only_where_it_is_one() -> None:
    """Down to x = -1 the push is 1 or a little more: f climbs less than it falls on the way to 2, where C_(1/2) is lower."""
    found = find_design(Wish(strength=F(1, 2), target=F(2), left=tail("zero")))
    assert found.analysis is None
    assert found.excluded_by == ()
    assert found.refusal is not None
    formula, _, reason = found.refusal.partition(": ")
    assert "0 alone minimises" in reason
    with mp.workdps(30):
        low, zero, high = (evaluate(formula, mp.mpf(x), {}) for x in (-2, 0, 2))
        assert low + high < 2 * zero
    assert match_beta("logistic", formula, 0.1).beta_to is None
    assert found.as_dict()["refusal"] == found.refusal
    assert find_design(Wish(target=F(2), left=tail("zero"))).analysis is not None  # without a strength it is no matter


def test_bad_wishes_are_refused() -> None:
    for text in ("x", "1e9", "1/0", "1/00", "", "nan", "1" * 30, "0x1", "1_0"):
        with pytest.raises(InputError, match="is not a number"):
            read_number("strength", text)
    assert read_number("strength", "0.25") == read_number("strength", "1/4") == F(1, 4)
    with pytest.raises(InputError, match="nothing is wished"):
        Wish()
    for bad in ({"strength": F(-1)}, {"target": F(0)}, {"target": "some"}, {"exactness": F(0)}):
        with pytest.raises(InputError, match=r"above 0|below 0"):
            Wish(**bad)
    with pytest.raises(InputError, match="exponential"):
        tail("exponentil:1")
    for text in ("zero:1", "power:0", "exponential:-1", "linear:2"):
        with pytest.raises(InputError, match="positive number is allowed"):
            tail(text)
