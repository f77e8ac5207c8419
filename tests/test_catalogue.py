"""The catalogue: names, aliases, parameters, and every formula against the oracle's own mpmath definition."""

from fractions import Fraction

import mpmath as mp
import pytest
from oracle import PAPER, TRUTHS, evaluate

from gpo_theory import LOSSES, InputError, Loss, find_loss, parse
from gpo_theory.transforms import robust, scaled, shifted, soft_label

POINTS = [
    mp.mpf(text) for text in ("-700", "-31.7", "-3.2", "-1", "-0.4", "0", "0.3", "1", "1.5", "2.6", "30.1", "600")
]


DIGITS = mp.mpf(10) ** -25


def same(left, right, points=POINTS, tolerance=DIGITS) -> None:
    """Two functions agree at every point, relatively where they are large, absolutely where they are small."""
    with mp.workdps(700):
        for x in points:
            a, b = left(x), right(x)
            assert abs(a - b) <= tolerance * max(abs(b), mp.mpf(10) ** -300), (
                f"at {mp.nstr(x, 6)}: {mp.nstr(a)} {mp.nstr(b)}"
            )


def meaning(loss: Loss):
    return lambda x: evaluate(loss.formula, x, loss.parameters)


def test_the_six_of_the_paper_and_the_perceptron_are_there() -> None:
    assert {*PAPER, "perceptron"} <= set(LOSSES)
    assert len(LOSSES) >= 13


@pytest.mark.parametrize("name", LOSSES)
def test_every_entry_says_what_the_literature_says(name: str) -> None:
    loss = LOSSES[name]
    assert loss.name == name
    assert loss.reference.strip()
    assert all(isinstance(value, Fraction) for value in loss.parameters.values())
    if name in TRUTHS:
        same(meaning(loss), TRUTHS[name].f)


@pytest.mark.parametrize("name", LOSSES)
def test_printing_and_parsing_is_the_identity(name: str) -> None:
    loss = LOSSES[name]
    again = parse(loss.formula, loss.parameters)
    assert again.formula == loss.formula
    assert again.f == loss.f
    same(meaning(again), meaning(loss))


def test_no_two_names_are_one_function() -> None:
    """Equal functions are aliases: any two entries differ somewhere on a grid."""
    with mp.workdps(30):
        values = {
            name: tuple(mp.nstr(meaning(loss)(mp.mpf(k) / 3), 15) for k in range(-12, 13))
            for name, loss in LOSSES.items()
        }
    assert len(set(values.values())) == len(values)


@pytest.mark.parametrize(
    ("alias", "text"),
    [("dpo", "log(1+exp(-x))"), ("slic", "max(0,1-x)"), ("ipo", "(x-1)**2"), ("ipo-tau", "(x-1/2)**2")],
)
def test_aliases(alias: str, text: str) -> None:
    same(meaning(find_loss(alias)), lambda x: evaluate(text, x))


def test_parameters_are_put_in_exactly() -> None:
    focal = find_loss("focal", {"gamma": 3})
    same(meaning(focal), lambda x: (1 + mp.exp(x)) ** -3 * mp.log1p(mp.exp(-x)))
    assert find_loss("pinball", {"tau": "0.1"}).parameters["tau"] == Fraction(1, 10)
    assert find_loss("exp(-a*x)", {"a": "1/3"}).parameters == {"a": Fraction(1, 3)}


def test_variants_are_transforms_equal_to_their_formulas() -> None:
    """P8: (1-e) L(x) + e L(-x) = L + e x, and ((1-e) L(x) - e L(-x))/(1-2e) = L - e x/(1-2e), since L(-x) = L(x) + x."""
    logistic = LOSSES["logistic"]
    e = Fraction(1, 5)
    same(meaning(soft_label(logistic, e)), lambda x: mp.log1p(mp.exp(-x)) + x / 5)
    same(meaning(robust(logistic, e)), lambda x: mp.log1p(mp.exp(-x)) - x / 3)
    same(meaning(shifted(logistic, 1)), lambda x: mp.log1p(mp.exp(1 - x)))
    same(meaning(scaled(logistic, 2)), lambda x: mp.log1p(mp.exp(-2 * x)))
    for flip in (Fraction(1, 2), Fraction(-1, 10), Fraction(1)):
        with pytest.raises(InputError):
            soft_label(logistic, flip)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"logstic.*logistic"):
        find_loss("logstic")
    with pytest.raises(InputError, match="gama"):
        find_loss("focal", {"gama": 2})
    with pytest.raises(InputError, match="gamma"):
        find_loss("logistic", {"gamma": 2})
    with pytest.raises(InputError, match=r"\ba\b"):
        find_loss("exp(-a*x)")
