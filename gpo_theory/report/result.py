"""The analysis of a loss as a value that a terminal, a notebook, JSON and LaTeX can show."""

__all__ = ["Analysis", "describe", "digits"]

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from gpo_theory.budget import in_time
from gpo_theory.calculus.series import Coefficient
from gpo_theory.calculus.strengths import Strength
from gpo_theory.calculus.tails import Tail
from gpo_theory.certificate import Certificate
from gpo_theory.dynamics.flow import gradient_flow
from gpo_theory.dynamics.reversals import Bracket, convex_around_zero, reversals_of
from gpo_theory.formula.typeset import latex
from gpo_theory.loss import Loss
from gpo_theory.report.signs import warnings_of
from gpo_theory.risk.conjugate import fenchel_conjugate
from gpo_theory.risk.links import Link
from gpo_theory.risk.probability import Implied, implied
from gpo_theory.risk.psi import Psi

if TYPE_CHECKING:
    from rich.console import Group

SECONDS = 2.0  # of CPU time for each row that is in no JSON: short enough to wait for at a terminal
_COLOURS = {"proved": "green", "refuted": "red", "unknown": "yellow"}


@dataclass(frozen=True)
class Analysis:
    """What is known of a loss: exact Taylor coefficients, strength R, certificates, tails and the link.

    Shows itself in a terminal (rich), in a notebook (HTML), as JSON (`as_dict`) and as LaTeX (`latex`).
    """

    loss: Loss
    taylor: tuple[Coefficient | None, ...]
    strength: Strength
    claims: Mapping[str, Certificate]
    tails: Mapping[str, Mapping[str, Tail]]
    link: Link
    psi: Psi

    @property
    def latex(self) -> str:
        """The formula in LaTeX."""
        return latex(self.loss.body)

    @property
    def implied(self) -> Implied:
        """What a scaled margin says about the label: p as a formula in x, its domain, or why it says nothing."""
        return in_time(lambda: implied(self.loss, self.claims, self.link.target_at_one), Implied(), SECONDS)

    @property
    def warnings(self) -> list[str]:
        """What speaks against training with the loss: that it rises at 0, with the formula that was probably meant."""
        return in_time(lambda: warnings_of(self.loss, self.claims), [], SECONDS)

    def as_dict(self) -> dict[str, Any]:
        """Return the stable JSON form; what is not yet computed is None."""
        return {
            "loss": describe(self.loss),
            "taylor": [c.text if c else None for c in self.taylor],
            "strength": self.strength.as_dict(),
            "claims": {name: certificate.as_dict() for name, certificate in self.claims.items()},
            "tails": {side: {of: tail.as_dict() for of, tail in by.items()} for side, by in self.tails.items()},
            "link": self.link.as_dict(),
            "psi": self.psi.as_dict(),
            "implied": self.implied.as_dict(),
            "warnings": self.warnings,
        }

    def __rich__(self) -> "Group":
        return as_table(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def describe(loss: Loss) -> dict[str, Any]:
    """Return the JSON form of a loss; parameter values are exact text."""
    return {"name": loss.name, "formula": loss.formula, "latex": latex(loss.body),
            "parameters": {name: str(value) for name, value in loss.parameters.items()},
            "reference": loss.reference}  # fmt: skip


def digits(value: float) -> str:
    """Return a number without an exact form as every table prints it: nine significant digits.

    >>> digits(2 / 3), digits(4.0)
    ('0.666666667', '4')
    """
    return f"{value:.9g}"


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    r, link, half = analysis.strength, analysis.link, analysis.psi.at_half
    sides = "" if r.left is None or r.right is None else f" (left {digits(r.left)}, right {digits(r.right)})"
    rows = [
        *(("warning", text) for text in analysis.warnings),
        ("Taylor at 0", ", ".join(c.text if c else "none" for c in analysis.taylor)),
        ("strength R", "none" if r.exact is None else f"{r.exact}{sides}"),
        ("link x*(p)", link.formula or "no closed form found"),
        ("link slope at 1/2", _number(link.slope_at_half, "not derived")),
        ("target x*(1)", link.target_at_one or "not derived"),
        ("implied p(x)", _implied(analysis.implied)),
        ("psi(theta)", analysis.psi.formula or "no closed form found"),
        ("psi(1/2)", _number(half, "not certified")),
    ]
    for side, by in analysis.tails.items():
        rows += [(f"{side} tail of {'f' if of == 'loss' else '-f′'}", _tail(tail.as_dict())) for of, tail in by.items()]
    return rows + _more(analysis)


def _implied(found: Implied) -> str:
    return found.refusal or f"{found.formula or 'no closed form found'} on [{found.low}, {found.high}]"


def _number(value: float | str | None, none: str) -> str:
    return none if value is None else value if isinstance(value, str) else digits(value)


def _more(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the rows that are not in the JSON: sign changes of f', where f is convex around 0, f*, and the flow."""
    loss = analysis.loss
    reversals = in_time(lambda: reversals_of(loss), None, SECONDS)
    around = in_time(lambda: convex_around_zero(loss), None, SECONDS)
    conjugate = in_time(lambda: fenchel_conjugate(loss, analysis.claims), None, SECONDS)
    flow = in_time(lambda: gradient_flow(loss), None, SECONDS)
    course = flow and ((flow.formula and f"x(t) = {flow.formula}") or (flow.rate and f"x(t) = about {flow.rate}") or
                       (flow.limit and f"x(t) tends to {flow.limit}"))  # fmt: skip
    return [
        ("gradient reverses at", "not decided" if reversals is None else ", ".join(map(_place, reversals)) or "never"),
        ("convex around 0 on", f"({_place(around[0], '-inf')}, {_place(around[1])})" if around else "none shown"),
        ("conjugate f*(s)", f"{conjugate.formula} on [{conjugate.low}, {conjugate.high}]" if conjugate
         and conjugate.formula else "no closed form found"),
        ("flow x' = -f'(x)", course or "no closed form found"),
    ]  # fmt: skip


def _place(bracket: Bracket, infinite: str = "inf") -> str:
    if bracket.low is None or bracket.high is None:
        return infinite
    middle = (bracket.low + bracket.high) / 2
    return str(bracket.low) if bracket.low == bracket.high else digits(float(middle))


def _tail(tail: dict[str, str | None]) -> str:
    details = [f"{name} {tail[name]}" for name in ("rate", "order", "limit") if tail[name] is not None]
    return (tail["class"] or "").replace("_", " ") + (f" ({', '.join(details)})" if details else "")


def _why(certificate: Certificate) -> str:
    witness = certificate.witness or {}
    shown = ", ".join(f"{key} = {value}" for key, value in witness.items() if key != "kind")
    number = certificate.value or {}
    value = number.get("exact") or (digits(number["float"]) if number.get("float") is not None else None)
    extra = f" [{witness['kind']}: {shown}]" if shown else f" [value {value}]" if value is not None else ""
    return certificate.because + extra


def as_table(analysis: Analysis) -> "Group":
    """Return rich tables of the derived facts and of the verdicts."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    loss = analysis.loss
    title = f"{loss.name}: f(x) = {loss.formula}" if loss.name != loss.formula else f"f(x) = {loss.formula}"
    values = ", ".join(f"{name} = {value}" for name, value in loss.parameters.items())
    derived = Table(show_header=False, box=None, pad_edge=False)
    for name, text in _facts(analysis):
        derived.add_row(Text(name, style="bold"), Text(text))
    verdicts = Table("claim", "verdict", "because", box=None, pad_edge=False)
    for name, certificate in analysis.claims.items():
        verdict = certificate.verdict.value
        verdicts.add_row(name, Text(verdict, style=_COLOURS[verdict]), Text(_why(certificate)))
    head = [Text(title, style="bold")] + ([Text(f"with {values}")] if values else [])
    return Group(*head, Text("x = beta * rho, rho in nats"), Text(""), derived, Text(""), verdicts)


def as_html(analysis: Analysis) -> str:
    """Return an HTML fragment with the formula typeset by MathJax."""
    loss = analysis.loss
    facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in _facts(analysis))
    claims = "".join(
        f"<tr><th>{escape(name)}</th><td>{c.verdict.value}</td><td>{escape(_why(c))}</td></tr>"
        for name, c in analysis.claims.items()
    )
    formula = f"<p><strong>{escape(loss.name)}</strong>: \\(f(x) = {escape(analysis.latex)}\\)</p>"
    return f'<div class="gpo-analysis">{formula}<table>{facts}</table><table>{claims}</table></div>'
