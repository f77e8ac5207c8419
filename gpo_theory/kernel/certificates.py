"""Certificates as files: every verdict on a loss with its proof, and the replay that accepts or rejects them.

The replay computes in mpmath's intervals and in rationals; it imports the language of formulas and nothing of the
provers (flint, sympy), which a test asserts.
"""

__all__ = ["replay", "seal", "verify"]

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpo_theory.certificate import CLAIMS, Certificate, Verdict
from gpo_theory.errors import InputError
from gpo_theory.formula.expression import Expr, substitute
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.kernel.expansion import cancelled
from gpo_theory.kernel.inequality import Fact, rational
from gpo_theory.kernel.resolution import Hints, UnprovedError
from gpo_theory.kernel.rules import RULES
from gpo_theory.kernel.statement import Statement
from gpo_theory.kernel.units import in_units
from gpo_theory.kernel.zeros import Place, Zero

# The form of a certificate file. Schema 1 had formulas that were simplified before their domain was looked at.
SCHEMA = 2
FIELDS = {"schema", "loss", "claims", "versions", "sha256"}
LOSS_FIELDS = {"name", "formula", "reference", "parameters"}
WITNESSES = {"chord": ("a", "b", "t"), "point": ("x",), "kink": ("x", "left", "right"), "theta": ("theta",),
             "break": ("low", "high")}  # fmt: skip
KINDS = {
    "total": "point break", "convex": "chord kink", "strictly_convex": "chord kink",
    "strongly_convex": "chord kink point", "lipschitz": "point break", "smooth": "kink point break",
    "bounded_below": "point", "monotone_decreasing": "point break",
    "differentiable_at_zero": "kink point", "bayes_consistent": "theta", "bradley_terry_exact": "kink point break",
}  # fmt: skip
VALUED = {"strongly_convex", "lipschitz", "smooth", "bounded_below", "differentiable_at_zero", "bradley_terry_exact"}
CLAIM_FIELDS = {"verdict", "because", "witness", "value", "proof"}


@dataclass(frozen=True)
class _Recorded:
    """The hints of a certificate, read from its file."""

    proof: Mapping[str, Any]

    def hint(self, fact: Fact) -> Mapping[str, Any] | None:
        return self.proof["hints"].get(str(fact))  # type: ignore[no-any-return]

    def breakpoints(self, f: Expr) -> tuple[Place, ...]:
        return tuple(map(_place, self.proof["breakpoints"].get(str(f), ())))

    def choice(self, name: str) -> Any:
        return self.proof["choices"].get(name)


def _place(entry: Any) -> Place:
    """Return a breakpoint from its form in a file: a rational, or [g, low, high] for the zero of g in a bracket."""
    if not isinstance(entry, list):
        return rational(entry)
    g, low, high = entry
    return Zero(parse_formula(g).primitive(), rational(low), rational(high))


def replay(f: Expr, certificate: Certificate, hints: Hints) -> None:
    """Replay a proved or refuted certificate about a primitive formula; raises UnprovedError with the failing step.

    Every claim but `total` presupposes that f is defined on all of R, so h/h and g - g are cancelled first. Where the
    proof names a `unit`, it is one of the same claim about f(unit y).
    """
    try:
        if (u := rational(hints.choice("unit") or "1")) != 1:
            if u <= 0:
                raise UnprovedError("a unit above 0")
            f, certificate = substitute(f, {Expr.x(): u * Expr.x()}), in_units(certificate, u)
        subject = f if certificate.claim == "total" else cancelled(f)
        RULES[certificate.claim, certificate.verdict](Statement(subject, certificate, hints))
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        KeyError,
        RecursionError,
        StopIteration,
        TypeError,
        ValueError,
    ) as error:
        raise UnprovedError(f"a malformed certificate ({error})") from error


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with its SHA-256 checksum, which reveals a damaged field before anything is replayed."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return {**body, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def verify(document: Mapping[str, Any]) -> dict[str, str]:
    """Replay every verdict of a certificate file; returns {claim: verdict} and raises InputError at the first fault.

    Unknown claims need no replay.
    """
    _check_form(document)
    f = _formula(document["loss"])
    verdicts: dict[str, str] = {}
    for claim in CLAIMS:
        entry = document["claims"][claim]
        verdicts[claim] = entry["verdict"]
        if entry["verdict"] == Verdict.UNKNOWN.value:
            continue
        certificate = Certificate(claim, Verdict(entry["verdict"]), entry["because"], entry["witness"], entry["value"])
        try:
            replay(f, certificate, _Recorded(entry["proof"] or {"hints": {}, "breakpoints": {}, "choices": {}}))
        except UnprovedError as error:
            raise InputError(f"{claim} {entry['verdict']}: not replayed: {error}") from None
    if verdicts["total"] != Verdict.PROVED.value and set(verdicts.values()) != {Verdict.UNKNOWN.value}:
        raise InputError("a verdict on a formula that is not shown to be defined on all of R")
    return verdicts


def _check_form(document: Mapping[str, Any]) -> None:
    if not isinstance(document, Mapping) or set(document) != FIELDS:
        raise InputError(f"not a certificate: its fields must be {', '.join(sorted(FIELDS))}")
    if document["schema"] != SCHEMA:
        raise InputError(f"a certificate of schema {str(document['schema'])[:20]}, and only schema {SCHEMA} is read: "
                         "analyze the loss again")  # fmt: skip
    try:
        sealed = seal(document)["sha256"]
        complete = set(document["claims"]) == set(CLAIMS) and all(
            _is_complete(claim, entry) and (claim in VALUED or entry["value"] is None)
            for claim, entry in document["claims"].items()
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError("not a certificate: its fields are malformed") from None
    if sealed != document["sha256"]:
        raise InputError("the checksum does not match: a field was changed")
    if not complete:
        raise InputError(f"not a certificate: it must answer {', '.join(CLAIMS)}")


def _is_complete(claim: str, entry: Mapping[str, Any]) -> bool:
    """Whether an answer has its fields in their form: a witness only where refuted, a number only where proved.

    A witness is of a kind of which the claim's rule reads every field.
    """
    verdict, value, witness = entry["verdict"], entry["value"], entry["witness"]
    needless = {"proved": ("witness",), "refuted": ("value",), "unknown": ("witness", "value", "proof")}
    if (
        set(entry) != CLAIM_FIELDS
        or verdict not in needless
        or any(entry[name] is not None for name in needless[verdict])
    ):
        return False
    number = value is None or (
        set(value) == {"exact", "float"}
        and isinstance(value["exact"], str | None)
        and type(value["float"]) in (int, float)
    )
    named = witness is None or (witness["kind"] in KINDS[claim].split()
                                and set(witness) == {"kind", *WITNESSES[witness["kind"]]})  # fmt: skip
    return number and named and all(isinstance(text, str) for text in (witness or {}).values())


def _formula(loss: Mapping[str, Any]) -> Expr:
    try:
        values = {name: rational(value) for name, value in loss["parameters"].items()}
        body = parse_formula(loss["formula"], values)
        if loss.keys() != LOSS_FIELDS or values.keys() != {n.args[0] for n in body.walk() if n.head == "parameter"}:
            raise ValueError(f"it has {', '.join(sorted(LOSS_FIELDS))}, and no parameter that the formula has not")
        put_in = {Expr("parameter", (name,)): Expr.of(value) for name, value in values.items()}
        return substitute(body, put_in).primitive()
    except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"the loss of the certificate cannot be read: {error}") from None
