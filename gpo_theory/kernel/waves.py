"""A formula along points that are whole periods of its sines and cosines apart."""

__all__ = ["along"]

from collections.abc import Callable
from fractions import Fraction

from gpo_theory.formula.expression import Expr, fold, rebuild, substitute
from gpo_theory.kernel.expansion import cancelled

X = Expr.x()


def along(g: Expr, start: Fraction) -> Expr:
    """Return g with each sin and cos fixed at the number that it has at `start`; g itself where periods have no ratio.

    For slopes a_1, ..., a_k of their arguments with rational ratios there is a P such that each a_i P is a multiple of
    2 pi. So g is equal to the result at all points start + n P with whole n, which tend to both infinities.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> str(along(parse_formula("exp(-x)*cos(x+1) + sin(2*x)"), Fraction(3)))
    'exp(-x)*cos(4) + sin(6)'
    """
    slopes = list[Expr]()

    def value(part: Expr, of: Callable[[Expr], Expr]) -> Expr:
        part = rebuild(part, tuple(map(of, part.children)))
        if part.head not in ("sin", "cos") or not part.depends_on_x:
            return part
        slopes.append(part.args[0].diff())
        return substitute(part, {X: Expr.of(start)})

    fixed = fold(g, value)
    whole = all(slope.number != 0 and cancelled(slope / slopes[0]).number is not None for slope in slopes)
    return fixed if whole and not any(slope.depends_on_x for slope in slopes) else g
