"""The code of f, f' and f'': the form that is measured to be accurate, with Taylor polynomials where needed."""

__all__ = ["LIMIT", "program_of"]

from functools import lru_cache

import numpy as np

from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr
from gpo_theory.lowering.cancellation import polynomials_for
from gpo_theory.lowering.derivatives import derivative, simplified
from gpo_theory.lowering.exact_values import Measure
from gpo_theory.lowering.normal_form import Branch, direct, to_normal_form
from gpo_theory.lowering.program import Program, compiled, operations

GOOD = 2.5  # ulp: a form with no larger error is taken without a look at others
POOR = 3.0  # ulp: a larger error calls for a Taylor polynomial
LIMIT = 4.0  # ulp: with a larger error a second derivative is refused
_COUNTS = {np.float64: 80, np.float32: 40}  # of the points on each side
Form = tuple[Branch, ...]


@lru_cache(maxsize=512)
def program_of(f: Expr, order: int) -> Program:
    """Return the program of a primitive formula (order 0) or of its first or second derivative.

    Raises InputError for a third derivative, and for a second one that is not within 4 ulp where it is measured.
    """
    if order > 2:
        raise InputError(f"third derivatives of a loss are not supported: {str(f)!r}")
    forms = _forms(f, order)  # first, because it refuses what cannot be measured
    measures = [Measure.of(f, order, dtype, count) for dtype, count in _COUNTS.items()]
    best: tuple[float, Program] | None = None
    for form in forms:
        program = compiled(form)
        error = max(float(np.max(_errors(program, measure), initial=0)) for measure in measures)
        if best is None or error < best[0]:
            best = error, program
        if error <= GOOD:
            break
    assert best is not None
    error, program = best
    if error > POOR:
        poor = [each.x[_errors(program, each) > POOR].astype(np.float64) for each in measures]
        program = compiled(program.branches, tuple(polynomials_for(f, order, np.concatenate(poor))))
        error = max(float(np.max(_errors(program, measure), initial=0)) for measure in measures)
    if order == 2 and error > LIMIT:
        raise InputError(f"second derivatives of {str(f)!r} are not supported: errors of {error:.0f} ulp were measured")
    return program


def _errors(program: Program, measure: Measure) -> np.ndarray:
    with np.errstate(all="ignore"):
        return measure.errors(program.run(measure.x, operations(np)))


@lru_cache(maxsize=512)
def _forms(f: Expr, order: int) -> tuple[Form, ...]:
    """Return the forms of a derivative, the cheapest first: direct, and the normal form as it is and simplified."""
    if order == 0:
        return tuple(form for form in (direct(f), to_normal_form(f)) if form)
    slopes = [tuple(map(derivative, form)) for form in _forms(f, order - 1)]
    return tuple(dict.fromkeys(form for slope in slopes for form in (slope, tuple(map(simplified, slope)))))
