"""R and f'(0) on the pages of losses with parameters: by hand for some, and at the defaults for all."""

import mpmath as mp
import pytest

from gpo_full.book.loss_pages import formulas_in_parameters
from gpo_theory import LOSSES, strength, taylor
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.formula.typeset import latex
from gpo_theory.report.symbolic import slope_in, strength_in
from tests.support.oracle import evaluate


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        # f' = -sigma(-x) (1 + eps sigma(x)), f'' = sigma(x) sigma(-x) (1 + eps (2 sigma(x) - 1)), sigma(0) = 1/2.
        ("poly1", [r"$f'(0) = -\frac{\varepsilon}{4} - \frac{1}{2}$", r"$R = \frac{1}{\varepsilon + 2}$",
                   r"$f'(0) = 0$ at $\varepsilon = -2$", r"where $f$ is defined, $f'(0) < 0$ and $R \ge 0$."]),
        # The logistic loss plus eps x: f' = eps - sigma(-x), f'' = sigma(x) sigma(-x).
        ("cdpo", [r"$f'(0) = \varepsilon - \frac{1}{2}$", r"$R = -\frac{1}{4 \, \varepsilon - 2}$",
                  r"$f'(0) = 0$ at $\varepsilon = \frac{1}{2}$"]),
        # 1 - x - gamma/2 next to 0, while 0 < 1 - gamma.
        ("gamma_hinge", ["$f'(0) = -1$", "$R = 0$", r"where $f$ is defined and $1 - \gamma > 0$."]),
    ],
)  # fmt: skip
def test_the_formulas_by_hand(name: str, shown: list[str]) -> None:
    page = formulas_in_parameters(LOSSES[name])
    assert all(text in page for text in shown), page


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.parameters])
def test_the_formulas_at_the_defaults(name: str) -> None:
    loss = LOSSES[name]
    page = formulas_in_parameters(loss)
    for symbol, formula, value in (("f'(0)", slope_in(loss), taylor(loss, 1)[1].value),
                                   ("R", strength_in(loss), strength(loss).value)):  # fmt: skip
        assert f"${symbol} = {latex(parse_formula(formula, loss.parameters))}$" in page
        assert float(evaluate(formula, mp.nan, loss.parameters)) == pytest.approx(value, rel=1e-14)
