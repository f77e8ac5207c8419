"""Formulas of known truth from seeds, and the certifier run over them: `run(range(20_000), Path("answers.jsonl"))`.

A formula is convex by its construction, or has a rational point at which f'' < 0, the slope falls or f jumps up; then it
is rewritten (expanded, put over one denominator, other names for the same function, terms added and taken away, x
replaced by a line), which changes the text and not the truth. The run resumes where it stopped.
"""

__all__ = ["Case", "generate", "run", "summary"]

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, log10
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import mpmath as mp

from tests.support.oracle import evaluate, precision_for

Q = Fraction
LONGEST, MOST_NODES = 800, 220  # what the grammar takes, with room to spare
POINTS = (Q(113, 97), Q(-22, 7), Q(0), Q(1, 3), Q(5, 2), Q(355, 113), Q(-71, 100))
SIZES = (Q(1), Q(1, 3), Q(1, 20), Q(1, 300))
MARGINS = (Q(1, 1000), Q(1, 50), Q(1, 2), Q(3))


@dataclass(frozen=True)
class Case:
    """One formula of known truth; `point`: where f'' < 0, the slope falls or f jumps up if it is not convex."""

    seed: int
    family: str
    formula: str
    convex: bool
    point: Fraction | None = None


def generate(seed: int) -> Case:
    """Return the formula of a seed: the same on every machine; even seeds are convex, odd ones are not."""
    random = Random(seed)
    while True:
        family, formula, point = _convex(random) if seed % 2 == 0 else _nonconvex(random)
        family, formula, point = _hidden(random, family, formula, point)
        if len(formula) <= LONGEST and len(re.findall(r"[a-z0-9]+|\*\*|[-+*/<>]", formula)) <= MOST_NODES:
            return Case(seed, family, formula, seed % 2 == 0, point)


# --- pieces of text ------------------------------------------------------------------------------------------------


def _t(value: Fraction) -> str:
    body = str(value)
    return body if re.fullmatch(r"\d+", body) else f"({body})"


def _rational(random: Random, bound: int = 4) -> Fraction:
    d = random.choice((1, 1, 2, 3, 4, 7, 10, 97))
    return Q(random.randint(-bound * d, bound * d), d)


def _weight(random: Random) -> Fraction:
    return abs(_rational(random)) + Q(1, random.choice((1, 2, 8, 50)))


def _slope(random: Random) -> Fraction:
    return random.choice((-1, 1)) * random.choice((Q(1), Q(1), Q(2), Q(1, 2), Q(3, 2), Q(2, 3), Q(5, 7)))


def _line(random: Random) -> tuple[Fraction, Fraction]:
    return _slope(random), _rational(random, 3)


def _u(k: Fraction, d: Fraction) -> str:
    return f"({_t(k)}*x+{_t(d)})"


def _polynomial(coefficients: list[Fraction]) -> str:
    return "+".join(f"{_t(c)}*x**{i}" for i, c in enumerate(coefficients) if c) or "0"


def _horner(coefficients: list[Fraction]) -> str:
    text = _t(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        text = f"({_t(c)}+x*{text})"
    return text


def _times(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
    out = [Q(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return out


SOFTPLUS = ("softplus({u})", "log(1+exp({u}))", "({u}+log(1+exp(-{u})))", "(-log(sigmoid(-{u})))", "log1p(exp({u}))",
            "(-log(1/(1+exp({u}))))", "(log(exp({u}/2)+exp(-{u}/2))+{u}/2)", "(log(2*cosh({u}/2))+{u}/2)",
            "(-log((1-tanh({u}/2))/2))", "({u}-log(sigmoid({u})))")  # fmt: skip
NORM = ("sqrt({a}+{u}**2)", "({a}+{u}*{u})**(1/2)", "(({a}+{u}**2)/sqrt({a}+{u}**2))")
CANONICAL = ("(sqrt({a}+{u}**2)-{u})", "({a}/(sqrt({a}+{u}**2)+{u}))")
COSH = ("cosh({u})", "((exp({u})+exp(-{u}))/2)", "((exp(2*{u})+1)/(2*exp({u})))", "(exp({u})-sinh({u}))")
LOGCOSH = ("log(cosh({u}))", "log((exp({u})+exp(-{u}))/2)", "(-log(1-tanh({u})**2)/2)", "(softplus(2*{u})-{u}-log(2))")
SQUARE = ("({g})**2", "({g})*({g})")


def _softplus(random: Random) -> str:
    return random.choice(SOFTPLUS).format(u=_u(*_line(random)))


def _log_sum(random: Random) -> str:
    lines = [(_weight(random), *_line(random)) for _ in range(random.randint(2, 3))]
    if random.random() < 0.6:
        return "log(" + "+".join(f"{_t(c)}*exp({_u(k, d)})" for c, k, d in lines) + ")"
    (first, k0, d0), *rest = lines
    inside = "+".join(f"{_t(c)}*exp({_u(k - k0, d - d0)})" for c, k, d in rest)
    return f"({_u(k0, d0)}+log({_t(first)}+{inside}))"


def _norm(random: Random) -> str:
    """sqrt(a x^2 + b x + c) with 4 a c > b^2, or what is built on it."""
    u, a = _u(*_line(random)), _t(_weight(random))
    if random.random() < 0.4:
        k, d = _line(random)
        p = _times([d, k], [d, k])
        return f"sqrt({_polynomial([p[0] + _weight(random), *p[1:]])})"
    return random.choice(NORM + CANONICAL).format(a=a, u=u)


def _square(random: Random) -> str:
    """The square of a convex function that is nowhere negative."""
    u = _u(*_line(random))
    inner = random.choice(("sqrt(1+{u}**2)", "cosh({u})", "exp({u})", "softplus({u})", "log(1+exp({u}))", "(1+{u}**2)",
                           "max(0,{u})", "where({u}<0,0,{u})", "abs({u})", "(sqrt(4+{u}**2)-{u})"))  # fmt: skip
    return random.choice(SQUARE).format(g=inner.format(u=u))


def _integrated(random: Random) -> str:
    """f'' = p(x)^2 exp(k x) with p of degree 1 or 2 and rational roots: f'' touches 0 and never passes it."""
    p = [_rational(random, 2), Q(1)]
    if random.random() < 0.4:
        p = _times(p, [_rational(random, 2), Q(1)])
    target, k = _times(p, p), _slope(random)
    q = [Q(0)] * len(target)
    for i in reversed(range(len(q))):  # (q e^(kx))'' = (k^2 q + 2 k q' + q'') e^(kx)
        later = [*q, Q(0), Q(0)]
        q[i] = (target[i] - 2 * k * (i + 1) * later[i + 1] - (i + 2) * (i + 1) * later[i + 2]) / k**2
    e = f"exp({_t(k)}*x)"
    match random.randint(0, 3):
        case 0:
            return f"({_polynomial(q)})*{e}"
        case 1:
            return "+".join(f"{_t(c)}*x**{i}*{e}" for i, c in enumerate(q) if c)
        case 2:
            return f"({_horner(q)})/exp({_t(-k)}*x)"
        case _:
            return f"({_polynomial(q)})*exp({_t(k / 2)}*x)**2"


def _even(random: Random) -> str:
    """f'' = sum of squares of polynomials, integrated twice."""
    total = [Q(0)] * 5
    for _ in range(random.randint(1, 2)):
        p = _times([_rational(random, 2), Q(1)], [_rational(random, 2), Q(random.randint(0, 1))])
        for i, c in enumerate(_times(p, p)[:5]):
            total[i] += c
    f = [_rational(random), _rational(random), *(c / ((i + 1) * (i + 2)) for i, c in enumerate(total))]
    return random.choice((_polynomial, _horner))(f)


def _simple(random: Random) -> str:
    u = _u(*_line(random))
    shape = random.choice(("exp({u})", "{u}**2", "{u}**4", "exp({u}**2/9)", "log(1+exp({u}))**2", "exp(exp({u}/4))",
                           "({u}*{u}+log(1+{u}**2)*4)", "(-log(erfc({u})))", "({u}*atan({u})-log(1+{u}**2)/2)",
                           "({u}*asinh({u})-sqrt(1+{u}**2))", "1/sigmoid({u})", *COSH, *LOGCOSH))  # fmt: skip
    return shape.format(u=u)


SMOOTH: dict[str, Callable[[Random], str]] = {
    "softplus": _softplus, "log-sum-exp": _log_sum, "norm": _norm, "integrated": _integrated, "polynomial": _even,
    "simple": _simple,
}  # fmt: skip

# bump(u) of unit size and second derivative -1 at 0, the least that it takes anywhere
BUMPS = {
    "lorentz": "1/(1+{v}**2)/2", "gauss": "exp(-{v}**2)/2", "sech": "8*sigmoid({v})*sigmoid(-{v})",
    "logistic": "8*exp({v})/(1+exp({v}))**2", "cosine": "cos({v})",
}


def _bump(name: str, depth: Fraction, size: Fraction, at: Fraction) -> str:
    """Text with second derivative -depth at the point `at`, and nowhere below."""
    v = f"((x-{_t(at)})/{_t(size)})"
    return f"{_t(depth * size**2)}*{BUMPS[name].format(v=v)}"


# --- convex by construction ----------------------------------------------------------------------------------------


def _convex(random: Random) -> tuple[str, str, None]:
    kind = random.choice((*SMOOTH, *SMOOTH, "square", "square", "sum", "sum", "tight", "tight", "lines", "max", "where"))
    if kind in SMOOTH:
        return kind, SMOOTH[kind](random), None
    if kind == "tight":  # the same bumps as in the formulas that are not convex, a little smaller
        name, m = random.choice(tuple(BUMPS)), _weight(random)
        at, size = random.choice((*POINTS, _rational(random))), random.choice(SIZES)
        depth = m * random.choice((Q(1), *(1 - margin for margin in MARGINS[:3])))
        return f"tight {name}", f"{_t(m)}*(x-{_t(at)})**2/2+{_bump(name, depth, size, at)}", None
    return kind, {"square": _square, "sum": _sum, "lines": _lines, "max": _maximum, "where": _where}[kind](random), None


def _sum(random: Random) -> str:
    parts = [random.choice((*SMOOTH.values(), _square, _lines))(random) for _ in range(2)]
    return "+".join(f"{_t(_weight(random))}*({part})" for part in parts)


def _lines(random: Random) -> str:
    lines = [_u(*_line(random)) for _ in range(random.randint(2, 4))]
    return random.choice(("max({0})", "max({0})", "max(max({1},{2}),{2})")).format(",".join(lines), *lines[:2])


def _maximum(random: Random) -> str:
    one, two = (random.choice((_softplus, _norm, _even, _lines, _simple))(random) for _ in range(2))
    return f"max({one},{two})"


def _joined(random: Random, fall: bool) -> tuple[list[Fraction], list[list[Fraction]]]:
    """Return breakpoints and polynomials of degree <= 2, continuous, slopes that rise (fall: by a little at the first)."""
    cuts = sorted({_rational(random, 3), random.choice(POINTS)})
    k, pieces = _rational(random, 2), [[Q(0), _rational(random, 2), random.choice((Q(0), _weight(random)))]]
    for number, x in enumerate(cuts):
        c0, c1, c2 = pieces[-1]
        slope, curve = c1 + 2 * c2 * x, random.choice((Q(0), _weight(random)))
        rise = random.choice((Q(0), Q(0), _weight(random), Q(1, 1000)))
        if fall and number == 0:
            rise = -random.choice(MARGINS) * random.choice((Q(1), Q(1, 300)))
        value, slope = c0 + c1 * x + c2 * x**2, slope + rise
        pieces.append([value - slope * x + curve * x**2, slope - 2 * curve * x, curve])
    return cuts, [[c0 + k, c1, c2] for c0, c1, c2 in pieces]


def _nested(random: Random, cuts: list[Fraction], bodies: list[str]) -> str:
    text = bodies[-1]
    for x, body in zip(reversed(cuts), reversed(bodies[:-1]), strict=True):
        way = random.choice(("where(x<{x},{a},{b})", "where(x<={x},{a},{b})", "where(x>{x},{b},{a})", "where(x>={x},{b},{a})"))
        text = way.format(x=_t(x), a=body, b=text)
    return text


def _where(random: Random) -> str:
    if random.random() < 0.3:  # an exponential continued by its tangent
        k, d = _line(random)
        u, x = _u(k, d), _t(-d / k)
        inside, outside = f"exp({u})", f"(1+{u})"
        return _nested(random, [-d / k], [outside, inside] if random.random() < 0.5 else [inside, outside]) + f"+0*{x}"
    cuts, pieces = _joined(random, fall=False)
    return _nested(random, cuts, [_polynomial(p) for p in pieces])


# --- not convex by construction ------------------------------------------------------------------------------------


def _nonconvex(random: Random) -> tuple[str, str, Fraction]:
    kind = random.choice(("quadratic", "quadratic", "smooth", "smooth", "kink", "where", "minimum", "jump", "far"))
    at = random.choice((*POINTS, _rational(random)))
    margin, size = random.choice(MARGINS), random.choice(SIZES)
    name = random.choice(("lorentz", "gauss", "sech", "logistic", "lorentz", "cosine"))
    if kind == "quadratic":
        m = _weight(random)
        return f"quadratic-{name}", f"{_t(m)}*(x-{_t(at)})**2/2+{_bump(name, m * (1 + margin), size, at)}", at
    base = random.choice(tuple(SMOOTH))
    g = SMOOTH[base](random)
    if kind == "smooth":
        depth = _above(_curvature(g, at)) * (1 + margin)
        return f"{base}-{name}", f"{g}+{_bump(name, depth, size, at)}", at
    if kind == "kink":  # the slope falls by 2 margin size
        down = random.choice(("abs({u})", "max({u},-{u})", "where({u}<0,-{u},{u})", "sqrt({u}**2)")).format(u=f"(x-{_t(at)})")
        return "kink", f"{g}-{_t(margin * size)}*{down}", at
    if kind == "minimum":
        k, d = _line(random)
        tangent = f"({_t(k)}*(x-{_t(at)})+{_t(d)})"
        other = f"({_t(k - margin)}*(x-{_t(at)})+{_t(d)})"
        return "minimum", f"min({tangent},{other})+{_t(Q(random.randint(0, 1)))}*({g})", at
    if kind == "where":
        cuts, pieces = _joined(random, fall=True)
        return "where", _nested(random, cuts, [_polynomial(p) for p in pieces]), cuts[0]
    if kind == "jump":
        edge = random.choice(("<", "<=", ">", ">="))
        step = (_t(margin * size), "0") if edge[0] == ">" else ("0", _t(margin * size))
        return "jump", f"{g}+where(x{edge}{_t(at)},{step[0]},{step[1]})", at
    g, at = random.choice((_softplus, _norm, _log_sum))(random), random.choice((Q(-1000), Q(1000)))
    depth = _above(_curvature(g, at))
    down = random.choice(("{d}*x**2", "{d}*(x**2-log(1+x**2))", "{d}*x*x")).format(d=_t(max(depth, Q(1, 10**6)) * 4))
    return "far", f"{g}-{down}", at


def _curvature(g: str, at: Fraction) -> Any:
    with mp.workdps(precision_for(at)):
        return mp.diff(lambda u: evaluate(g, mp.mpf(at.numerator) / at.denominator + u), 0, 2)


def _above(curvature: Any) -> Fraction:
    """A rational with few digits, above by at most one part in a million (and at least 1e-9)."""
    value = max(float(curvature), 1e-9)
    unit = Q(10) ** (floor(log10(value)) - 7)
    return Q(ceil(value / float(unit)) + 1) * unit


# --- rewriting -----------------------------------------------------------------------------------------------------


def _hidden(random: Random, family: str, f: str, point: Fraction | None) -> tuple[str, str, Fraction | None]:
    """Change the text: an affine x, a line added, terms that cancel, one denominator."""
    if random.random() < 0.3:
        k, d = _line(random)
        f = re.sub(r"\bx\b", _u(k, d), f)
        point = None if point is None else (point - d) / k
    if random.random() < 0.5:
        f = f"{f}+{_t(_rational(random))}*x"
    way = random.choice(("", "", "", "+0", "+1/1", "-0", "+2"))
    if not way:
        return family, f, point
    u = _u(*_line(random))
    match way:
        case "+0":
            zero = random.choice((
                "(tanh({u})-2*sigmoid(2*{u})+1)", "(cosh({u})**2-sinh({u})**2-1)", "(sigmoid({u})+sigmoid(-{u})-1)",
                "(softplus({u})-softplus(-{u})-{u})", "(exp({u})*exp(-{u})-1)", "(x*(1+{u}**2)/(1+{u}**2)-x)",
                "(({u}-1)*({u}+1)-{u}**2+1)", "(log(exp({u}))-{u})", "(max({u},0)+min({u},0)-{u})",
            )).format(u=u)  # fmt: skip
            return f"{family} +0", f"{f}+{_t(_rational(random))}*{zero}", point
        case "+1/1":
            one = random.choice(("(1+{u}**2)", "(1+exp({u}))", "cosh({u})", "(2+sin(x))")).format(u=u)
            return f"{family} /d", f"(({f})*{one})/{one}", point
        case "-0":
            g = random.choice((_softplus, _norm, _simple))(random)
            return f"{family} +g-g", f"{g}+({f})-({g})", point
    return f"{family} *2/2", f"(2*({f})+x)/2-x/2", point


# --- the run -------------------------------------------------------------------------------------------------------


def _begin() -> None:
    sys.setrecursionlimit(10_000)
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)


def _answer(seed: int, seconds: float) -> dict[str, Any]:
    """Answer one seed; the system ends the process where a formula runs far past its limit."""
    from tests.support.session import convexity

    case, used = generate(seed), resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(used.ru_utime + used.ru_stime + 2 * seconds) + 2, hard))
    start = time.process_time()
    try:
        found = convexity.__wrapped__(case.formula, seconds)
        verdict, because, witness = found.verdict.value, found.because, found.witness
    except Exception as error:  # an exception is a finding: recorded, and counted as a fault
        verdict, because, witness = "exception", f"{type(error).__name__}: {error}", None
    return _told(case, verdict, time.process_time() - start, because, witness)


def _told(case: Case, verdict: str, cpu: float, because: str, witness: Any) -> dict[str, Any]:
    return {"seed": case.seed, "family": case.family, "convex": case.convex, "verdict": verdict, "cpu": round(cpu, 4),
            "because": because[:160], "formula": case.formula, "witness": witness and dict(witness)}  # fmt: skip


def answers(seeds: Iterable[int], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the answer of each seed from one process, started anew after 500 formulas or where it was killed."""
    pool = None
    for seed in seeds:
        if pool is None:
            pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, max_tasks_per_child=500)
        try:
            yield pool.submit(_answer, seed, seconds).result()
        except BrokenProcessPool:
            pool = None
            yield _told(generate(seed), "unknown", 2 * seconds, "killed: it ran past twice its limit", None)
    if pool is not None:
        pool.shutdown()


def recorded(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file; a last line that was cut off is dropped from it."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def run(seeds: range, path: Path, seconds: float = 10.0) -> list[dict[str, Any]]:
    """Answer every seed that the file does not hold yet, append as it goes, and return all of them."""
    done = {line["seed"] for line in recorded(path)}
    for answer in answers((seed for seed in seeds if seed not in done), seconds):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(answer) + "\n")
    return [line for line in recorded(path) if line["seed"] in seeds]


def wrong(line: dict[str, Any]) -> bool:
    """Whether an answer contradicts the truth, or is an exception."""
    return line["verdict"] in ("exception", "refuted" if line["convex"] else "proved")


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures that count."""
    times = sorted(line["cpu"] for line in lines)
    out: dict[str, Any] = {"formulas": len(lines), "wrong": [line["seed"] for line in lines if wrong(line)]}
    for convex, verdict in ((True, "proved"), (False, "refuted")):
        of = [line for line in lines if line["convex"] is convex]
        out[verdict] = round(sum(line["verdict"] == verdict for line in of) / max(len(of), 1), 4)
    return out | {"median_seconds": median(times), "p99_seconds": times[int(0.99 * (len(times) - 1))], "worst_seconds": times[-1]}
