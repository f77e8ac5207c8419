"""The verifier is itself tested: with any one of its checks taken out, a planted false statement gets through.

Each mutant is the verifier with one line of its source changed, in a tree of its own; a statement that only the dropped
check refuses is then accepted. The verifier as it is refuses them all.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT

PACKAGE = ROOT / "gpo_theory"
TRUSTED = ("budget.py", "certificate.py", "errors.py", "formula/__init__.py", "formula/expression.py", "formula/grammar.py", "formula/operations.py",
           "formula/spelling.py")

# False statements: claim, verdict, formula, what the certificate says, and hints by a part of the inequality's text.
def line(*numerator: str, **more: Any) -> dict[str, Any]:
    return {"by": "quotient", "numerator": [*numerator], "denominator": ["1"], "slope": None, "shift": "0", **more}


def cover(*cuts: str, **more: Any) -> dict[str, Any]:
    return {"by": "cover", "cuts": list(cuts), **more}


def lie(claim: str, verdict: str, formula: str, *, hints: Any = (), cuts: Any = (), witness: Any = None, value: Any = None,
        **choices: Any) -> dict[str, Any]:  # fmt: skip
    return {"claim": claim, "verdict": verdict, "formula": formula, "hints": [list(pair) for pair in hints],
            "cuts": list(cuts), "witness": witness, "value": value, "choices": choices}  # fmt: skip


def zero_at_log_2(formula: str, low: str, high: str, outside: Any, inside: Any = None) -> dict[str, Any]:
    """That f has the infimum 0 at log(2), convex on [low, high], by hints for f'' inside and for f outside."""
    hints = [(f"on ({low}, {high})", inside), ("", outside)]
    return lie("bounded_below", "proved", formula, value={"exact": "0", "float": 0.0}, near=[low, high, "log(2)"], hints=hints)


AFTER_8 = ("x - 8 > 0", line("-8", "1"))
CHORD = {"kind": "chord", "a": "-1", "b": "1", "t": "1/2"}
NOTHING = {"exact": "0", "float": 0.0}
LIES = {
    "a slope that falls by 1/150": lie("convex", "proved", "x**2 - abs(x-113/97)/300", cuts=["113/97"], hints=[
        ("on (-inf, 113/97)", line("113/97", "-1")), ("on (113/97, inf)", line("-113/97", "1"))]),
    "a step of 1/300": lie("convex", "proved", "where(x<113/97, x**2, x**2+1/300)", cuts=["113/97"], hints=[
        ("on (-inf, 113/97)", line("113/97", "-1")), ("on (113/97, inf)", line("-113/97", "1"))]),
    "far out f'' < 0": lie("convex", "proved", "x**2/2 - x**4/10**8", hints=[("", cover("-10", "10"))]),
    "a logarithm of a remainder": lie(
        "total", "proved", "where(x>8, log(log(1+1/x)-1/x+1/(2*x**2)-1/(3*x**3)+1/(5*x**4)), 0)", cuts=["8"],
        hints=[AFTER_8, ("on (8, inf)", cover("8")), ("on (-inf, 8)", line("8", "-1"))]),
    "a hump further out": lie("total", "proved", "where(x>8, log(10**28 - x**32*exp(-x)), 0)", cuts=["8"],
                              hints=[AFTER_8, ("on (8, inf)", cover("8")), ("on (-inf, 8)", line("8", "-1"))]),
    "small terms that are large at first": lie(
        "total", "proved", "where(x>8, log(1+1/x+1/x**2+1/x**3+1/x**4+1/x**5+1/x**6+1/x**7+1/x**8+1/x**9+1/x**10+1/x**11-10**15/x**12), 0)",
        cuts=["8"], hints=[AFTER_8, ("on (8, inf)", cover("8")), ("on (-inf, 8)", line("8", "-1"))]),
    "a zero beyond the start": lie("total", "proved", "where(x>8, log(x-100), 0)", cuts=["8"],
                                   hints=[AFTER_8, ("on (8, inf)", cover("8")), ("on (-inf, 8)", line("8", "-1"))]),
    "a dip between the points looked at": lie("total", "proved", "log((x-113/97)**2 - 1/90000)", hints=[("", cover("-20", "20"))]),
    "a dip of f'' of scale 1/300": lie("convex", "proved", "x**2/2 + (501/500)/180000/(1+90000*(x-113/97)**2)", hints=[("", cover("-20", "20"))]),
    "less than a unit in the last place": lie(
        "total", "proved", "where(x>100/97, sqrt(x-1190816005150882124151401/1155091524996355660426858), 0)", cuts=["100/97"],
        hints=[("on (-inf, 100/97)", line("100/97", "-1")), ("100/97 > 0", line("-100/97", "1"))]),
    "a zero at an inner cut": lie("total", "proved", "log((x-113/97)**2)", hints=[("", cover("-20", "113/97", "20"))]),
    "a single root": lie("total", "proved", "log(113/97-x)", hints=[("", line("113/97", "-1"))]),
    "a pole": lie("bounded_below", "proved", "where(x<0, 0, 1/(113/97-x))", cuts=["0"], value=NOTHING, near="-1", hints=[
        ("1/(", line("1", denominator=["113/97", "-1"])), ("on (-inf, 0)", line("0", "-1")),
        ("on (0, inf)", line("0", "1"))]),
    "a chord that f touches": lie("convex", "refuted", "2*x+1", witness=CHORD),
    "a chord continued": lie("convex", "refuted", "x**2", witness={**CHORD, "t": "2"}),
    "a product": lie("convex", "proved", "x*exp(x)", hints=[]),
    "another quotient": lie("total", "proved", "log(x)", hints=[("", line("1"))]),
    "an exponential turned round": lie("total", "proved", "where(x>0, log(exp(-x)-1), 0)", cuts=["0"], hints=[
        ("exp", line("-1", "1", slope="-1")), ("on (0, inf)", line("0", "1")), ("on (-inf, 0)", line("0", "-1"))]),
    "a factor of either sign": lie("total", "proved", "log(x*exp(x)+x)"),
    "a maximum that is not decided": lie("convex", "proved", "min(x,0)"),
    "a condition that is not decided": lie("convex", "proved", "where(x<113/97, x**2, -x**2)"),
    "a line": lie("strictly_convex", "proved", "where(x<0, 0, x**2)", cuts=["0"], hints=[
        ("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "an infimum that is not reached": lie("bounded_below", "proved", "exp(x)", value={"exact": None, "float": -1.0}, near="0"),
    "a kink of 1e-10": lie(
        "differentiable_at_zero", "proved", "exp(-x)+max(x,0)/10**10", cuts=["0"], value={"exact": "-1", "float": -1.0},
        hints=[("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "an exact number that is nearly right": lie(
        "lipschitz", "proved", "x", value={"exact": "1000001/1000000", "float": 1.000001}, near="0"),
    "a float beside its exact form": lie("lipschitz", "proved", "x", value={"exact": "1", "float": 1.0000001}, near="0"),
    "a bound of the other sign": lie("bounded_below", "proved", "x**2-1/10**14", value={"exact": None, "float": 1e-14}, near="0"),
    "a limit that is another": lie("bounded_below", "proved", "exp(x)", value={"exact": "-1", "float": -1.0}, near="-inf"),
    "a zero that is none": lie("bounded_below", "proved", "x**2+1", value=NOTHING, near=["-1", "1"]),
    "a value that is not 0": zero_at_log_2("(exp(x)-2-1/10**20)*(exp(x)-2+1/10**20)", "1/2", "1", outside=line(
        "1", f"-{4 * 10**40}/{4 * 10**40 - 1}", f"{10**40}/{4 * 10**40 - 1}", slope="1")),
    "a slope that is not 0": zero_at_log_2("(exp(x)-2)*(exp(x)-2+1/10**9)", "1/2", "1", outside=line(
        "1", "-3999999999/3999999998", "500000000/1999999999", slope="1")),
    "a top between two zeros": zero_at_log_2("(exp(x)-2)**2*((exp(x)-2)**2-1/4)", "2/5", "23/25", outside=line(
        "1", "-31/15", "19/12", "-8/15", "1/15", slope="1")),
    "below 0 on the right": zero_at_log_2("(exp(x)-2)**2*(8-exp(x))", "3/5", "3/4", outside=line("1", "-9/8", "3/8", "-1/32", slope="1")),
    "below 0 on the left": zero_at_log_2("(exp(x)-2)**2*(exp(x)-1)", "3/5", "3/4", outside=line("-1", "2", "-5/4", "1/4", slope="1"),
                                         inside=line("1", "-5/2", "9/8", slope="1")),
    "a zero outside its bracket": zero_at_log_2(
        "(exp(x)-2)**2*((exp(x)-4)**2-1/100)", "27/20", "71/50", inside=line("-1", "5199/2399", "-2700/2399", "400/2399", slope="1"),
        outside=line("1", "-2399/1599", "1733/2132", "-100/533", "25/1599", slope="1")),
    "the other root of a square": lie(
        "lipschitz", "proved", "where((x+1)**2 < 2, x+1-sqrt(2), 0)", value={"exact": "1", "float": 1.0}, near="0",
        cuts=[["(x+1)**2-2", "-3", "-2"], ["(x+1)**2-2", "1/4", "1/2"]], hints=[
            ("on (-inf, -3)", line("-1", "2", "1")), ("on (-2, 1/4)", line("1", "-2", "-1")), ("on (1/2, inf)", line("-1", "2", "1"))]),
    "a dip beside an irrational breakpoint": lie(
        "bounded_below", "proved", "where(x < sqrt(2), 0, (x-sqrt(2))*(x-29/20))", value=NOTHING, near="0",
        cuts=[["x-sqrt(2)", "7/5", "3/2"]], hints=[("on (-inf, 7/5)", cover("-8", "7/5")), ("on (3/2, inf)", cover("3/2", "10"))]),
    "two poles that cancel": lie(
        "smooth", "refuted", "where(x < 1, (1-x)**(3/2) - exp(x-1)*(1-x)**(3/2), 0)", witness={"kind": "point", "x": "1"}, cuts=["1"],
        hints=[("on (-inf, 1)", line("1", "-1")), ("on (1, inf)", line("-1", "1"))]),
    "a pole times a zero": lie(
        "smooth", "refuted", "where(x < 1, (1-x)**(3/2)*(1-exp(x-1)), 0)", witness={"kind": "point", "x": "1"}, cuts=["1"],
        hints=[("on (-inf, 1)", line("1", "-1")), ("on (1, inf)", line("-1", "1"))]),
    "a rise turned round": lie("monotone_decreasing", "proved", "exp(x)", unit="-1"),
    "a constant": lie("monotone_decreasing", "proved", "exp(x)", unit="0"),
    "a slope per unit": lie("lipschitz", "proved", "x", value={"exact": "2", "float": 2.0}, near="0", unit="2"),
    "a bend per unit": lie("smooth", "proved", "x**2/2", value={"exact": "2", "float": 2.0}, near="0", unit="2"),
    "a point in other units": lie("monotone_decreasing", "refuted", "max(-x, x-2)", witness={"kind": "point", "x": "1/2"}, unit="4", cuts=["1/4"],
                                  hints=[("on (-inf, 1/4)", line("1", "-4")), ("on (1/4, inf)", line("-1", "4"))]),
    "two logarithms and one": lie("total", "proved", "log(2*log(1/2+x**2) - log(1/2+x**2/2))"),
    "the root of two": lie("bounded_below", "proved", "sqrt(2)+x**2", value={"exact": "1", "float": 1.0}, near="0"),
    "an exact slope that is nearly right": lie(
        "differentiable_at_zero", "proved", "-x", value={"exact": "-1000001/1000000", "float": -1.000001}),
    "a limit from the right side": lie(
        "bayes_consistent", "refuted", "where(x<=0, 2, 1)", cuts=["0"], witness={"kind": "theta", "theta": "1"}, theorem="compared",
        at="0", side="right", hints=[("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "a loss that rises": lie("bayes_consistent", "proved", "exp(x)", theorem="convex"),
    "a minimiser on the right side": lie("bayes_consistent", "refuted", "(x-1)**2", witness={"kind": "theta", "theta": "1/2"}, at="1/2",
                                         hints=[("", line("1/4", "-1", "1"))]),
    "a rate of two": lie("bradley_terry_exact", "proved", "exp(-x)", value={"exact": "1", "float": 1.0}),
    "a wave that is not seen": lie("total", "proved", "where(x>8, log(1-2*cos(x)), 0)", cuts=["8"],
                                   hints=[AFTER_8, ("on (8, inf)", cover("8")), ("on (-inf, 8)", line("8", "-1"))]),
    "below zero far out": lie("total", "proved", "where(x>8, log(1-x), 0)", cuts=["8"],
                              hints=[AFTER_8, ("on (8, inf)", cover("8")), ("on (-inf, 8)", line("8", "-1"))]),
    "the root of a square": lie("total", "proved", "sqrt(x-sqrt(x**2))"),
    "zero divided by zero": lie("total", "proved", "x/x"),
    "roots that multiply to x": lie("total", "proved", "x**(1/3)*x**(2/3)"),
    "a logarithm to the power 0": lie("total", "proved", "log(x)**0"),
    "an inverse of an inverse": lie("total", "proved", "1/(1/x)"),
    "branches of equal value": lie("total", "proved", "where(x>0, x, max(x, x-1+0*sqrt(x)))", cuts=["0"], hints=[
        ("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "a jump over 0": lie("total", "refuted", "1/where(x<0, -1, 1)", witness={"kind": "break", "low": "-1", "high": "1"}, cuts=["0"], hints=[
        ("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "a branch that is not taken": lie("total", "refuted", "where(x>5, 1/(x-sqrt(2)), x)", witness={"kind": "break", "low": "1", "high": "2"}, cuts=["5"]),
    "a root that is 0": lie("total", "refuted", "sqrt((x-sqrt(2))**2)", witness={"kind": "break", "low": "1", "high": "2"}),
    "a rise from below 0": lie("total", "proved", "where(x>1, log(x-2), 0)", cuts=["1"], hints=[
        ("x - 2 > 0", {"by": "rise", "from": "low", "start": "8"}), ("on (-inf, 1)", line("1", "-1")), ("on (1, inf)", line("-1", "1"))]),
    "a rise from a limit below 0": lie("total", "proved", "log(exp(x)-1)", hints=[("", {"by": "rise", "from": "low", "start": "8"})]),
    "a fall from above 0": lie("total", "proved", "where(x>0, log(1-x), 0)", cuts=["0"], hints=[
        ("-x + 1 > 0", {"by": "rise", "from": "low", "start": "8"}), ("1 - x > 0", {"by": "rise", "from": "low", "start": "8"}),
        ("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "a cube": lie("bounded_below", "proved", "x**3+x", value=NOTHING, near="0"),
    "a line that falls": lie("bounded_below", "proved", "-x", falls="yes", by="signs", floor="0"),
    "a bell that is turned round": lie("bounded_below", "proved", "-exp(-x**2)", value=NOTHING, near="inf", falls="yes", by="signs"),
    "a bell": lie("bayes_consistent", "proved", "exp(-x**2)", theorem="flat", at="1", floor="0"),
    "a flat loss": lie("bayes_consistent", "proved", "2", theorem="flat", at="1", floor="0"),
    "a clipped line": lie("bayes_consistent", "proved", "min(1-x, 1/2)", theorem="flat", at="1", floor="0", cuts=["1/2"], hints=[
        ("1/2 - x >= 0 on (-inf", line("1/2", "-1")), ("x - 1/2 >= 0 on (1/2", line("-1/2", "1"))]),
    "a step up": lie("monotone_decreasing", "proved", "where(x<=0, 2, 5)", cuts=["0"], hints=[
        ("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "a step down": lie("monotone_decreasing", "refuted", "where(x<=0, 5, 2)", cuts=["0"], witness={"kind": "point", "x": "0"}, hints=[
        ("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
    "an error function above 0": lie("bounded_below", "proved", "erf(x)", value=NOTHING, near="-inf"),
    "a wave that dies out": lie("bounded_below", "refuted", "x**2*(1/4-sin(exp(-x**2/1000000)))", witness={"kind": "point", "x": "100"}),
    "a risk that rises on the wrong side": lie("bayes_consistent", "refuted", "exp(-x)", witness={"kind": "theta", "theta": "1/2"},
                                               theorem="unbounded", at="-1"),
    "a loss that does not repeat itself": lie("bayes_consistent", "refuted", "exp(-x)+sin(x)/9", witness={"kind": "theta", "theta": "1/2"},
                                              theorem="periodic"),
    "a slope off by 1e-10": lie(
        "differentiable_at_zero", "refuted", "abs(x)", cuts=["0"], witness={"kind": "kink", "x": "0", "left": "-1", "right": "1.0000000001"},
        hints=[("on (-inf, 0)", line("0", "-1")), ("on (0, inf)", line("0", "1"))]),
}  # fmt: skip


# One change of one line of the verifier, and the lies that it must let through.
MUTANTS = {
    "kinks are not looked at": ("need(at(right.f.diff() - left.f.diff(), x).a >= 0,", "need(True,", ("a slope that falls by 1/150",)),
    "continuity is not looked at": (
        "need(same_at(left.f, point.f, x) and same_at(right.f, point.f, x), f\"continuity at x = {x}\")\n\n\ndef place",
        "need(True, \"\")\n\n\ndef place", ("a step of 1/300",)),
    "half-lines are not looked at": ("if end is None and not _beyond(", "if False and not _beyond(", ("far out f'' < 0",)),
    "the sign far out does not matter": ("lead.sign == 1", "lead.sign != 0", ("below zero far out",)),
    "no Taylor remainder": ("return self.add(total, self.scaled(power, rest))", "return total", ("a logarithm of a remainder",)),
    "a ratio need not fall": ("if first <= DEGREE and not (_ball(weights[first]) + against).b < 0:", "if False:", ("a hump further out",)),
    "small terms are forgotten": (
        "for size, c in ordered[last + 1 :]:", "for size, c in ordered[len(ordered) :]:",
        ("small terms that are large at first",)),
    "the leading term alone": (
        "return Lead(size, _ball(c) * (1 + self.range(delta)))", "return Lead(size, _ball(c))",
        ("a zero beyond the start",)),
    "sine and cosine vanish": ("return {ONE: iv.mpf([-1, 1])}", "return {ONE: iv.mpf([0, 0])}", ("a wave that is not seen",)),
    "the mean value form without its slope": (
        " + interval(slope, a, b, bits) * (span(a, b) - span(middle, middle))", "",
        ("a dip between the points looked at", "a dip of f'' of scale 1/300")),
    "rounding inwards": (
        "return iv.mpf([left.a, right.b])", "return iv.mpf([min(left.b, right.a), max(left.b, right.a)])",
        ("less than a unit in the last place",)),
    "a rational is rounded up at both ends": (
        'libmp.from_rational(n, d, iv.prec, "f")', 'libmp.from_rational(n, d, iv.prec, "c")', ("less than a unit in the last place",)),
    "zero counts as positive where a box begins": (
        "if start.a > 0 or (start.a >= 0 and (may_be_zero or not strict)):", "if start.a >= 0:",
        ("a zero at an inner cut",)),
    "Sturm counts one root too few": ("_variations(chain, high, 1) - int(at_high)", "_variations(chain, high, 1) - 1", ("a single root",)),
    "poles are not looked at": ("if _roots(bottom, *ends) or ", "if ", ("a pole",)),
    "a chord may be touched": ("if gap.a > 0:", "if gap.a >= 0:", ("a chord that f touches",)),
    "a chord may be continued": ("need(a < b and 0 < t < 1,", "need(a < b,", ("a chord continued",)),
    "half a product rule": ("for i, f in moving))", "for i, f in moving[:1]))", ("a product",)),
    "every quotient is the formula": ("if value * bottom != _horner(list(form.numerator), t):", "if False:", ("another quotient",)),
    "an exponential may fall": ("form.slope <= 0", "False", ("an exponential turned round",)),
    "denominators of either sign": (
        "if least and atom.number is None and _positive(atom):", "if least and atom.number is None:",
        ("a factor of either sign",)),
    "common factors of either sign": (
        "for atom, n in front.powers if not _positive(atom)))", "for atom, n in front.powers if False))",
        ("a factor of either sign",)),
    "the root of x^2 is x": ("if not all(_positive(atom) for atom, _ in front.powers):", "if False:", ("the root of a square",)),
    "what is undefined is cancelled": ('f if certificate.claim == "total" else cancelled(f)', "cancelled(f)", ("zero divided by zero",)),
    "a maximum by one point": ("prove(side * (best - other), low, high, False, hints)", "pass", ("a maximum that is not decided",)),
    "a condition by one point": (
        "prove(b - a if holding else a - b, low, high, strictly == holding, hints)", "pass",
        ("a condition that is not decided",)),
    "convex is strictly convex": ("need(any(at(p.f.diff().diff(), x).a > 0 for x in points),", "need(True,", ("a line",)),
    "a bound that nothing reaches": ("if here.b <= (number + room).b if side > 0 else", "if True if side > 0 else",
                                     ("an infimum that is not reached",)),
    "an exact number is not compared": ("if any(equal_at(g, sign * exact, x) for sign in signs):", "if True:",
                                        ("an exact number that is nearly right",)),
    "a float need not round": ("return bool(abs(value - ratio(Fraction(number))).b <= room.b)", "return True",
                               ("a float beside its exact form",)),
    "an absolute slack": ("Expr.of(number - abs(number) * TIGHT if below", "Expr.of(number - TIGHT if below", ("a bound of the other sign",)),
    "any limit will do": ("return lead is None or lead.vanishes\n\n\ndef _vanishes", "return True\n\n\ndef _vanishes",
                          ("a limit that is another",)),
    "a zero is not looked for": ("if (ends[0].b < 0 < ends[1].a) or (ends[1].b < 0 < ends[0].a):", "if True:", ("a zero that is none",)),
    "a named zero is not evaluated": ("need(zero_between(g, near) and ", "need(", ("a value that is not 0",)),
    "a named zero may be crossed": (" and zero_between(g.diff(), near), f", ", f", ("a slope that is not 0",)),
    "a named zero may be a top": ("prove(g.diff().diff(), low, high, False, s.hints)\n    prove(g, p.low", "prove(g, p.low",
                                  ("a top between two zeros",)),
    "left of a named zero": ("prove(g, p.low, low, False, s.hints)", "pass", ("below 0 on the left",)),
    "right of a named zero": ("prove(g, high, p.high, False, s.hints)", "pass", ("below 0 on the right",)),
    "a named zero anywhere": ("(place - ratio(low)).a > 0 and (ratio(high) - place).a > 0 and value.a", "value.a",
                              ("a zero outside its bracket",)),
    "any solution is the zero": ("return value if here.a > low.b and here.b < high.a else None", "return value",
                                 ("the other root of a square",)),
    "what is 0 at a breakpoint rises there": ("return inner if rise.a > 0 or (rise.a >= 0 and not strict) else outer", "return inner",
                                              ("a dip beside an irrational breakpoint",)),
    "poles never cancel": ("return poles == 1", "return poles >= 1", ("two poles that cancel",)),
    "a zero beside a pole is not seen": (" or (zeros and min(zeros) < 0 < max(zeros)):", ":", ("a pole times a zero",)),
    "a unit of either sign": ("if u <= 0:", "if u == 0:", ("a rise turned round",)),
    "a unit of 0": ("if u <= 0:", "if u < 0:", ("a constant",)),
    "a slope has no unit": ('"lipschitz": 1,', '"lipschitz": 0,', ("a slope per unit",)),
    "a bend has the unit of a slope": ('"smooth": 2,', '"smooth": 1,', ("a bend per unit",)),
    "points have no unit": ("return str(rational(text) / u)", "return text", ("a point in other units",)),
    "logarithms with any weights": ("if len(logs) != 2 or logs[0][1] != -logs[1][1]:", "if len(logs) != 2:", ("two logarithms and one",)),
    "every root is rational": ("return root if root**n == c else None", "return root", ("the root of two",)),
    "an exact slope is not compared": ("need(equal_at(slope, exact, ZERO) and ", "need(", ("an exact slope that is nearly right",)),
    "a limit from either side": ('(x == 0 and side != "right")', "x == 0", ("a limit from the right side",)),
    "slopes that nearly agree": ("need(left == right or same_at(left, right, ZERO),", "need(agree(at(left, ZERO), at(right, ZERO)),", ("a kink of 1e-10",)),
    "any slope at zero": ("need(at(slope_at_zero(f, hints), ZERO).b < 0,", "need(True,", ("a loss that rises",)),
    "a wrong side on the right": ('need(x < 0 or (x == 0 and side != "right"),', "need(True,", ("a minimiser on the right side",)),
    "roots are merged": ("if rooted and n is not None", "if False and n is not None", ("roots that multiply to x",)),
    "the power 0 is 1": ("return 1 + 0 * base", "return Expr.of(1)", ("a logarithm to the power 0",)),
    "all exponents multiply": ("if inner > 0 or value > 0 or _inverse(base.args[0]):", "if True:", ("an inverse of an inverse",)),
    "the first branch is taken": ("_defined(yes if holds else no, part, hints)", "_defined(yes, part, hints)", ("branches of equal value",)),
    "slopes to nine digits": ("need(same_at(side.f.diff(), said, x),", "need(agree(at(side.f.diff(), x), at(said, x)),", ("a slope off by 1e-10",)),
    "a denominator may jump": ("return all(n.head != \"where\" for n in g.walk()) and bool(", "return bool(", ("a jump over 0",)),
    "all branches are taken": ("inside = _sides(node.args[0]) if", "inside = node.args[1:] if", ("a branch that is not taken",)),
    "a root is a denominator": ("return asked in (\"positive\", \"nonzero\") and", "return asked is not None and", ("a root that is 0",)),
    "a rise may start below 0": ("return bool(at(fact.g, end).a >= 0)", "return True", ("a rise from below 0",)),
    "a rise may start from any limit": ("return lead is None or lead.vanishes or lead.sign > 0", "return True", ("a rise from a limit below 0",)),
    "a rise without its slope": ("prove(fact.g.diff() * (1 if hint[\"from\"] == \"low\" else -1), *ends, strict, hints)", "pass", ("a fall from above 0",)),
    "a factor that may be below 0": ("if n > 0 and interval(base, low, high).a >= 0}", "if n > 0}", ("a cube",)),
    "what falls has a limit": ("need(s.certificate.value is not None and s.hints.choice(\"near\") == \"inf\",", "need(True,", ("a line that falls",)),
    "what has a limit falls": ("never_rises(s.f, s.hints)\n        need(", "need(", ("a bell that is turned round",)),
    "any left half is flat": ("need(constant and not level.depends_on_x,", "need(True,", ("a bell",)),
    "a level is below itself": ("- at(level, ZERO)).b < 0,", "- at(level, ZERO)).b <= 0,", ("a flat loss",)),
    "every loss has a floor": ("sign_on(p.f - rational(floor), p, False, s.hints)", "pass", ("a clipped line",)),
    "steps up are not looked at": ("need(at(a - b, x).a >= 0 or same_at(a, b, x),", "need(True,", ("a step up",)),
    "every step is up": ("any(at(b - a, x).a > 0 for", "any(at(a - b, x).a > 0 for", ("a step down",)),
    "erfc of either side": ("c.number is not None and number == -2 * c:", "c.number is not None:", ("an error function above 0",)),
    "waves of any argument": ("fixed if whole and not any(slope.depends_on_x for slope in slopes) else g", "fixed", ("a wave that dies out",)),
    "any risk is unbounded": ("need(lead is not None and lead.grows and lead.sign < 0, \"C_p", "need(True, \"C_p", ("a risk that rises on the wrong side",)),
    "any loss is periodic": ("need(not along(s.f, ZERO).depends_on_x,", "need(True,", ("a loss that does not repeat itself",)),
    "any rate": ("need(_ratio_is(pieces, 1 / c),", "need(True,", ("a rate of two",)),
}  # fmt: skip

_DRIVER = """
import json, sys
from fractions import Fraction
import gpo_theory.kernel
from gpo_theory.certificate import Certificate, Verdict
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.kernel.certificates import _place
from gpo_theory.kernel.resolution import UnprovedError

assert gpo_theory.kernel.__file__.startswith(sys.argv[1]), "the tree under test is another one"

class Planted:
    def __init__(self, lie): self.lie = lie
    def hint(self, fact): return next((hint for part, hint in self.lie["hints"] if part in str(fact)), None)
    def breakpoints(self, f): return tuple(map(_place, self.lie["cuts"]))
    def choice(self, name): return self.lie["choices"].get(name)

out = {}
for name, lie in json.load(sys.stdin).items():
    certificate = Certificate(lie["claim"], Verdict(lie["verdict"]), "planted", lie["witness"], lie["value"])
    try:
        gpo_theory.kernel.replay(parse_formula(lie["formula"]).primitive(), certificate, Planted(lie))
        out[name] = "accepted"
    except Exception as error:
        if type(error).__name__ != "UnprovedError":
            raise
        out[name] = str(error)
print(json.dumps(out))
"""


def planted(tree: Path, lies: dict[str, Any]) -> dict[str, str]:
    """What the verifier in a tree says of each lie: `accepted`, or the step that it misses."""
    done = subprocess.run([sys.executable, "-c", _DRIVER, str(tree)], input=json.dumps(lies), cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that holds the verifier and the language of formulas, and nothing else: that this is enough is a law too."""
    tree = tmp_path_factory.mktemp("verifier")
    package = tree / "gpo_theory"
    shutil.copytree(PACKAGE / "kernel", package / "kernel", ignore=shutil.ignore_patterns("__pycache__"))
    for name in TRUSTED:
        (package / name).parent.mkdir(exist_ok=True)
        shutil.copy(PACKAGE / name, package / name)
    (package / "__init__.py").write_text("")
    return tree


def test_the_verifier_refuses_every_lie(verifier: Path) -> None:
    found = planted(verifier, LIES)
    assert set(found) == set(LIES)
    for name, said in found.items():
        assert said != "accepted", name
        assert "malformed" not in said, f"{name} is refused for its form: {said}"


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed(name: str, verifier: Path, tmp_path: Path) -> None:
    old, new, killers = MUTANTS[name]
    tree = tmp_path / "mutant"
    shutil.copytree(verifier, tree, ignore=shutil.ignore_patterns("__pycache__"))
    sources = {file: file.read_text(encoding="utf-8") for file in (tree / "gpo_theory").rglob("*.py")}
    holding = [file for file, source in sources.items() for _ in range(source.count(old))]
    assert len(holding) == 1, f"the check moved: plant the fault where it is now, not at {old!r}"
    holding[0].write_text(sources[holding[0]].replace(old, new), encoding="utf-8")
    found = planted(tree, {lie: LIES[lie] for lie in killers})
    assert all(said == "accepted" for said in found.values()), f"it survives: {found}"


def test_every_lie_kills_some_mutant() -> None:
    assert {lie for *_, killers in MUTANTS.values() for lie in killers} == set(LIES)
