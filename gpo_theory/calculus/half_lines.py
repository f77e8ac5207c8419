"""Half-lines on which a formula keeps one sign, as its leading term there shows."""

__all__ = ["STARTS", "HalfLine", "half_line", "shifts_of"]

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from gpo_theory.budget import spend
from gpo_theory.calculus.piece import Section
from gpo_theory.calculus.rational import as_rational, fraction
from gpo_theory.calculus.samples import unit
from gpo_theory.formula.expression import Expr
from gpo_theory.kernel.horizon import UnresolvedError, lead_beyond

# Distances at which a half-line may start, the nearest first; the verifier accepts none below 8.
STARTS = tuple(map(Fraction, (8, 16, 32, 64, 256, 1024, 2**14)))


@dataclass(frozen=True)
class HalfLine:
    """From `start` outwards a formula has one sign (0: it vanishes), as its leading term in x - shift shows."""

    start: Fraction
    shift: Fraction
    sign: int


def half_line(piece: Section, side: int, first: Fraction = Fraction(0)) -> HalfLine | None:
    """Return a half-line of an infinite piece on which its formula has a known sign; the shift `first` is preferred."""
    step = max(Fraction(1), unit(piece.f))
    for start in (step * start for start in STARTS):
        for shift in dict.fromkeys((first, Fraction(0), *shifts_of(piece.f))):
            spend()
            at = shift + side * start
            if not piece.contains(at):
                continue
            try:
                lead = lead_beyond(piece.f, side, start, shift)
            except UnresolvedError:
                continue
            if lead is None or lead.sign:
                return HalfLine(at, shift, lead.sign if lead else 0)
    return None


@lru_cache(maxsize=1024)
def shifts_of(g: Expr) -> tuple[Fraction, ...]:
    """Return up to four zeros or vertices of the arguments of exponentials and of erfc.

    In x minus such a point the coefficients of an expansion are rational, so that terms which cancel do so exactly.
    """
    out: list[Fraction] = []
    for node in g.walk():
        form = as_rational(node.args[0]) if node.head in ("exp", "erfc") and node.depends_on_x else None
        if form is None or form.slope is not None or form.denominator.degree() or form.numerator.degree() not in (1, 2):
            continue
        p = form.numerator
        out.append(fraction(-p[0] / p[1] if p.degree() == 1 else -p[1] / (2 * p[2])))
    return tuple(dict.fromkeys(out))[:4]
