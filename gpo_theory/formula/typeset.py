"""A formula in LaTeX, its terms and factors in the order in which they were written."""

__all__ = ["latex"]

from fractions import Fraction

from gpo_theory.formula.expression import Expr, quotient
from gpo_theory.formula.operations import operation

_RELATIONS = {"<": "<", "<=": r"\le", ">": ">", ">=": r"\ge", "and": r"\wedge", "or": r"\vee"}
_GREEK = {"alpha", "beta", "gamma", "delta", "tau", "lambda", "mu", "sigma"}


def latex(node: Expr) -> str:
    r"""Return LaTeX for a formula.

    >>> from gpo_theory.formula.grammar import parse_formula
    >>> print(latex(parse_formula("log(1+exp(-x))")))
    \log\left(1 + e^{-x}\right)
    >>> print(latex(parse_formula("max(0, 1-x)**2/2")))
    \frac{\max\left(0, 1 - x\right)^{2}}{2}
    """
    return _latex(node, 0)


def _latex(node: Expr, binding: int) -> str:
    """`binding` says where the formula stands: 0 alone, 1 a term of a sum, 2 a factor, 4 the base of a power."""
    head, args = node.head, node.args
    match head:
        case "number":
            return _number(args[0], binding)
        case "x" | "e":
            return head
        case "pi":
            return r"\pi"
        case "parameter":
            return _parameter(args[0])
        case "+":
            return _wrap("".join(_term(t, i == 0) for i, t in enumerate(args)), binding >= 2)
        case "*":
            return _product(args, binding)
        case "**":
            return _power(node, binding)
        case "where":
            condition, yes, no = (_latex(a, 0) for a in args)
            return rf"\begin{{cases}} {yes} & {condition} \\ {no} & \text{{otherwise}} \end{{cases}}"
    inside = [_latex(a, 0) for a in args]
    if head in _RELATIONS:
        return f" {_RELATIONS[head]} ".join(inside)
    written = operation(head).latex or rf"\operatorname{{{head}}}"
    return (written if "%s" in written else rf"{written}\left(%s\right)") % ", ".join(inside)


def _wrap(body: str, needed: bool) -> str:
    return rf"\left({body}\right)" if needed else body


def _number(value: Fraction, binding: int) -> str:
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    body = f"{sign}{top}" if bottom == 1 else rf"{sign}\frac{{{top}}}{{{bottom}}}"
    return _wrap(body, (bool(sign) and binding >= 1) or (bottom != 1 and binding >= 3))


def _parameter(name: str) -> str:
    if name == "eps":
        return r"\varepsilon"
    return rf"\{name}" if name in _GREEK else name if len(name) == 1 else rf"\mathrm{{{name}}}".replace("_", r"\_")


def _negative(node: Expr) -> bool:
    first = node.args[0] if node.head == "*" else node
    return first.number is not None and first.number < 0


def _term(term: Expr, first: bool) -> str:
    if _negative(term):
        return ("-" if first else " - ") + _latex(-term, 1)
    return _latex(term, 1) if first else f" + {_latex(term, 1)}"


def _product(factors: tuple[Expr, ...], binding: int) -> str:
    negative, above, below = quotient(factors)
    top = r" \, ".join(_latex(f, 2 if len(above) > 1 else 0 if below else 2) for f in above) or "1"
    bottom = r" \, ".join(_latex(f, 2 if len(below) > 1 else 0) for f in below)
    body = rf"\frac{{{top}}}{{{bottom}}}" if below else top
    return _wrap("-" * negative + body, binding >= 3 or (negative and binding >= 1))


def _power(node: Expr, binding: int) -> str:
    base, exponent = node.args
    if node.power is not None and node.power < 0:
        return rf"\frac{{1}}{{{_latex(base**-exponent, 0)}}}"
    return _wrap(rf"{_latex(base, 4)}^{{{_latex(exponent, 0)}}}", binding >= 4)
