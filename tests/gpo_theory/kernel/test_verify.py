"""Certificates: every one of the catalogue is replayed without the provers, and what was changed is rejected or still true."""

import copy
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import mpmath as mp
import pytest

from gpo_theory import LOSSES, InputError, analyze
from gpo_theory.kernel import seal, verify
from gpo_theory.report.certificate_file import certificate_document
from tests.support.oracle import CLAIMS, TRUTHS, check_witness
from tests.support.places import ROOT
from tests.support.session import analysis
from tests.support.soak import budget

Document = dict[str, Any]
NAMES = sorted(TRUTHS)
VALUED = ("strongly_convex", "lipschitz", "smooth", "bounded_below", "differentiable_at_zero", "bradley_terry_exact")

# What a certificate says beside its statement: whoever changes it changes nothing that the replay has to show.
HARMLESS = (("loss", "name"), ("loss", "reference"), ("versions", "sympy"), ("claims", "convex", "because"))


def document(name: str) -> Document:
    """A fresh copy of the certificate of a catalogue entry, as it comes out of a file."""
    return json.loads(json.dumps(certificate_document(analysis(name))))  # type: ignore[no-any-return]


def only(whole: Document, *claims: str) -> Document:
    """The same certificate with every other claim left unknown: what is asked about one claim is answered sooner."""
    kept = {"total", *claims}
    blank = {"verdict": "unknown", "because": "not attempted", "witness": None, "value": None, "proof": None}
    return {**whole, "claims": {claim: whole["claims"][claim] if claim in kept else blank for claim in CLAIMS}}


def with_claim(whole: Document, claim: str, **fields: Any) -> Document:
    out = only(whole, claim)
    return {**out, "claims": {**out["claims"], claim: {**out["claims"][claim], **fields}}}


def accepted(changed: Document) -> bool:
    """Whether a document is accepted once it is sealed again; anything but InputError would be a fault of its own."""
    try:
        verify(seal(changed))
    except InputError:
        return False
    return True


# --- without the provers -------------------------------------------------------------------------------------------

_REPLAY = """
import json, sys
sys.modules.update(dict.fromkeys(("flint", "sympy", "scipy", "numpy", "torch")))  # whose import fails
from gpo_theory.kernel import verify
print(json.dumps({name: verify(one) for name, one in json.load(open(sys.argv[1])).items()}))
"""


@pytest.mark.slow
def test_the_catalogue_is_replayed_where_no_prover_can_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "certificates.json"
    path.write_text(json.dumps({name: document(name) for name in LOSSES}), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", _REPLAY, str(path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = {name: {claim: c.verdict.value for claim, c in analysis(name).claims.items()} for name in LOSSES}
    assert json.loads(done.stdout) == printed
    assert len(printed) >= 49


# --- without a new seal --------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a document that holds no other thing, empty containers included."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inside:
        yield path
    for key, inner in inside:
        yield from leaves(inner, (*path, key))


def get(whole: Any, path: tuple[Any, ...]) -> Any:
    return reduce(getitem, path, whole)


def put(whole: Document, path: tuple[Any, ...], value: Any) -> Document:
    out = copy.deepcopy(whole)
    get(out, path[:-1])[path[-1]] = value
    return out


def kind(path: tuple[Any, ...]) -> str:
    """The path with what differs from one document to the next left out."""
    return "/".join("*" if isinstance(key, int) or " on (" in str(key) else str(key) for key in path)


def other(value: Any) -> Any:
    """A small change of a leaf: one digit, one letter, one bit."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        digit = re.search(r"\d", value)
        return value[: digit.start()] + str((int(digit[0]) + 1) % 10) + value[digit.end() :] if digit else value + "."
    return "emptied"


def test_any_changed_field_breaks_the_seal() -> None:
    """Every kind of field over the catalogue, and a random sample of all."""
    everything = [(name, path) for name in NAMES for path in leaves(document(name))]
    one_of_a_kind = {kind(path): (name, path) for name, path in everything}
    assert len(one_of_a_kind) > 80
    for name, path in [*one_of_a_kind.values(), *random.Random(1).sample(everything, 300)]:
        whole = document(name)
        with pytest.raises(InputError, match=r"checksum|schema|certificate"):
            verify(put(whole, path, other(get(whole, path))))


# --- with a new seal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", HARMLESS, ids="/".join)
def test_what_is_not_part_of_the_statement_may_be_changed(path: tuple[str, ...]) -> None:
    whole = only(document("logistic"), "convex", "lipschitz")
    assert accepted(put(whole, path, "something else"))


def test_a_superfluous_hint_or_breakpoint_is_harmless() -> None:
    whole = only(document("hinge"), "convex")
    proof = copy.deepcopy(whole["claims"]["convex"]["proof"])
    proof["hints"]["x > 0 on (-inf, inf)"] = {"by": "cover", "cuts": ["-8", "8"]}
    for f in proof["breakpoints"]:
        proof["breakpoints"][f] = ["-3", *proof["breakpoints"][f], "113/97"]
    assert accepted(with_claim(whole, "convex", proof=proof))


WITNESSES = (
    None, {"kind": "chord", "a": "-1", "b": "1", "t": "1/2"}, {"kind": "chord", "a": "113/97", "b": "20", "t": "1/3"},
    {"kind": "point", "x": "-1"}, {"kind": "point", "x": "1000"},
    {"kind": "kink", "x": "0", "left": "-1", "right": "0"}, {"kind": "kink", "x": "1"},
    {"kind": "theta", "theta": "1/2"},
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_turned_verdict_is_rejected(name: str) -> None:
    """Proved becomes refuted, with every kind of witness; refuted becomes proved, with the hints of both."""
    whole = document(name)
    for claim, entry in whole["claims"].items():
        if entry["verdict"] == "proved":
            for witness in WITNESSES:
                assert not accepted(with_claim(whole, claim, verdict="refuted", witness=witness)), (claim, witness)
        elif entry["verdict"] == "refuted":
            value = {"exact": "1", "float": 1.0} if claim in VALUED else None
            assert not accepted(with_claim(whole, claim, verdict="proved", witness=None, value=value)), claim
            floor = {**entry["proof"], "choices": {**entry["proof"]["choices"], "floor": "-1000", "theorem": "falling"}}
            assert not accepted(with_claim(whole, claim, verdict="proved", witness=None, proof=floor)), claim


@pytest.mark.parametrize("name", ["hinge", "savage", "psi_learning", "unhinged", "exponential"])
@pytest.mark.parametrize("theorem", ["convex", "falling", "exact", "flip", "gap"])
def test_no_theorem_shows_what_is_false(name: str, theorem: str) -> None:
    """The perceptron and FocalPO are not consistent: no theorem and none of another loss's choices makes them so."""
    choices = document(name)["claims"]["bayes_consistent"]["proof"]["choices"]
    for false in ("perceptron", "focal_po"):
        whole = document(false)
        assert whole["claims"]["bayes_consistent"]["verdict"] == "refuted"
        proof = whole["claims"]["bayes_consistent"]["proof"]
        tried = {"c": "1", "floor": "-1", "bracket": ["0", "1/2", "1"], "level": "1/100", **choices, "theorem": theorem}
        lie = with_claim(whole, "bayes_consistent", verdict="proved", witness=None, proof={**proof, "choices": tried})
        assert not accepted(lie)


def test_another_theorem_is_rejected_or_the_verdict_is_true() -> None:
    for name in NAMES:
        whole = document(name)
        entry = whole["claims"]["bayes_consistent"]
        for theorem in ("convex", "exact", "flip", "ends", "none", None):
            if entry["verdict"] != "unknown" and theorem != entry["proof"]["choices"].get("theorem"):
                proof = {**entry["proof"], "choices": {**entry["proof"]["choices"], "theorem": theorem}}
                if accepted(with_claim(whole, "bayes_consistent", proof=proof)):
                    assert (entry["verdict"] == "proved") == TRUTHS[name].holds("bayes_consistent")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "claim"), [(name, claim) for name in NAMES for claim in VALUED if TRUTHS[name].holds(claim)])
def test_a_changed_number_is_rejected(name: str, claim: str) -> None:
    """Off by more than 1e-5 of 1 + |v|, in either direction, with or without its exact form."""
    whole = document(name)
    entry = whole["claims"][claim]
    if entry["verdict"] != "proved" or entry["value"] is None or entry["value"]["float"] is None:
        return
    true = entry["value"]["float"]
    scale = 1 + abs(true)
    for change in (1e-5, 1e-3, 1.0)[: budget(1, 3)]:
        for sign in (1, -1):
            wrong = true + sign * 1.01 * change * scale
            for exact in {entry["value"]["exact"], None, mp.nstr(mp.mpf(wrong), 20)}:
                lie = with_claim(whole, claim, value={"exact": exact, "float": wrong})
                assert not accepted(lie), (name, claim, exact, wrong)
    if entry["value"]["exact"] is not None:
        lie = with_claim(whole, claim, value={"exact": f"{entry['value']['exact']} + 1/1000", "float": true})
        assert not accepted(lie), (name, claim)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["savage", "perceptron", "welsch", "discopop", "pinball", "ramp", "focal_po", "lsif"])
def test_a_changed_witness_is_rejected_or_still_a_witness(name: str) -> None:
    """Each number of each witness moved: what is accepted must refute the claim by its definition, in mpmath."""
    whole = document(name)
    survived = rejected = 0
    for claim, entry in whole["claims"].items():
        if entry["verdict"] != "refuted":
            continue
        for key, text in entry["witness"].items():
            for new in ("0", "-1", "1", "1/2", "113/97", "-2", "3", f"{text}/7", "x", "1e9", "1/0", ""):
                witness = {**entry["witness"], key: new}
                if accepted(with_claim(whole, claim, witness=witness)):
                    at_kink = witness.get("kind") == "point" and witness["x"] in TRUTHS[name].kinks
                    beside = f"{witness['x']} + 1/1000000000" if at_kink else None  # a point there speaks of one side
                    check_witness(name, TRUTHS[name].f, claim, {**witness, "x": beside} if beside else witness)
                    survived += 1
                else:
                    rejected += 1
    assert rejected > survived


def test_another_formula_is_rejected_or_the_verdicts_are_its_own() -> None:
    """Each certificate handed to another loss: only claims that are true of both may pass."""
    wholes = {name: document(name) for name in ("logistic", "hinge", "savage", "squared", "exponential", "perceptron", "kliep")}
    passed = 0
    for name, whole in wholes.items():
        for liar, others in wholes.items():
            for claim in CLAIMS if name != liar else ():
                entry = whole["claims"][claim]
                if entry["verdict"] == "unknown" or not accepted({**only(whole, claim), "loss": others["loss"]}):
                    continue
                passed += 1
                assert (entry["verdict"] == "proved") == TRUTHS[liar].holds(claim), (name, liar, claim)
                if entry["value"] is not None:
                    own = others["claims"][claim]["value"]["float"]
                    assert abs(entry["value"]["float"] - own) <= 1e-5 * (1 + abs(own)), (name, liar, claim)
    assert passed > 20, "the law would be empty"


def test_a_changed_parameter_is_another_loss() -> None:
    """Numbers that depend on the parameter are rejected at another one; what is accepted holds there too."""
    for name, claim, parameter, value in (
        ("linex", "differentiable_at_zero", "a", "3/2"), ("cdpo", "lipschitz", "eps", "1/5"),
        ("cdpo", "differentiable_at_zero", "eps", "1/5"), ("huber", "lipschitz", "delta", "3"),
        ("pinball", "lipschitz", "tau", "1/2"), ("discopop", "lipschitz", "tau", "1/10"),
    ):
        whole = document(name)
        assert whole["claims"][claim]["verdict"] == "proved"
        loss = {**whole["loss"], "parameters": {**whole["loss"]["parameters"], parameter: value}}
        assert loss != whole["loss"]
        assert not accepted({**only(whole, claim), "loss": loss}), (name, claim)
        for bad in ("1e9999999999", "9" * 10_000, "x", "", None, 0.5, [], "1/0"):
            loss = {**whole["loss"], "parameters": {**whole["loss"]["parameters"], parameter: bad}}
            assert not accepted({**only(whole, claim), "loss": loss}), bad


def test_a_hint_that_does_not_show_it_is_rejected() -> None:
    """Hints that a proof cannot do without: damaged, none of them is taken for one."""
    seen = 0
    for name in ("welsch", "savage", "huberised_exponential", "spherical", "sigmoid", "linex", "canonical_boosting"):
        whole = document(name)
        for claim, entry in whole["claims"].items():
            if entry["verdict"] == "unknown" or not entry["proof"]["hints"]:
                continue
            bare = {**entry["proof"], "hints": {}}
            if accepted(with_claim(whole, claim, proof=bare)):
                continue  # superfluous: the statement shows itself
            fact, hint = next(iter(entry["proof"]["hints"].items()))
            lies: list[Any] = [{}, {"by": "trust me"}, None, [], "1", {**hint, "by": "cover", "cuts": []}]
            if hint["by"] == "quotient":
                more = [*hint["numerator"][:-1], hint["numerator"][-1] + "1"]
                lies += [{**hint, "numerator": more}, {**hint, "numerator": []}, {**hint, "denominator": ["0"]},
                         {**hint, "denominator": []}, {**hint, "shift": "1/7"}, {**hint, "slope": "-1"}, {**hint, "slope": "0"},
                         {**hint, "numerator": ["1"], "denominator": ["1"]}]  # fmt: skip
            else:
                cuts = hint["cuts"]
                lies += [{**hint, "cuts": cuts[::-1]}, {**hint, "bits": 1}, {**hint, "bits": 10**9}, {**hint, "cuts": ["0"]},
                         {**hint, "cuts": [*cuts, cuts[-1]]}, {**hint, "cuts": [f"{c}e99999999" for c in cuts]}]  # fmt: skip
            for lie in lies:
                hints = {**entry["proof"]["hints"], fact: lie}
                if accepted(with_claim(whole, claim, proof={**entry["proof"], "hints": hints})):
                    reshaped = isinstance(lie, dict) and lie.get("by") == "quotient" and lie.get("shift") != hint.get("shift")
                    assert reshaped or len(entry["proof"]["hints"]) > 1, (name, claim, lie)
                else:
                    seen += 1
    assert seen > 100


GARBAGE = (None, True, 0, -1, 0.5, 10**40, "x", "", "1e9999999999", "9**9**9**9", "-1/0", "proved", [], {}, [[]], {"a": 1}, ["1", "2"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["savage", "welsch", "huber"])
def test_garbage_in_any_field_is_rejected_and_raises_nothing_else(name: str) -> None:
    """A malformed field never becomes an exception of another kind, and never costs more than a replay."""
    whole = document(name)
    random_ = random.Random(name)
    places = sorted({kind(path): path for path in leaves(whole) if path != ("sha256",)}.values(), key=str)
    for path in places:
        claim = path[1] if path[0] == "claims" else "convex"
        for value in random_.sample(GARBAGE, 4):
            changed = put(only(whole, claim), path, value)
            try:
                verdicts = verify(seal(changed))
            except InputError:
                continue
            for one, verdict in verdicts.items():
                assert verdict == "unknown" or (verdict == "proved") == TRUTHS[name].holds(one), (path, value)


def test_a_number_is_no_formula_of_x() -> None:
    """x stands for no number, and at 0 it would have the value 0."""
    for name, claim in (("hinge", "bounded_below"), ("savage", "bounded_below")):
        whole = document(name)
        assert whole["claims"][claim]["value"]["float"] == 0
        for exact in ("x", "sin(x)", "x*x"):
            assert not accepted(with_claim(whole, claim, value={"exact": exact, "float": 0.0})), exact
    whole = document("perceptron")
    witness = whole["claims"]["differentiable_at_zero"]["witness"]
    assert witness["right"] == "0"
    assert not accepted(with_claim(whole, "differentiable_at_zero", witness={**witness, "right": "x"}))


@pytest.mark.parametrize("wrong", ["-1.0000000001", "-0.9999999999", "-1 - exp(-40)", "-exp(0)-1e-30"])
def test_the_slopes_of_a_kink_are_exact(wrong: str) -> None:
    whole = document("perceptron")
    for claim in ("smooth", "differentiable_at_zero", "bradley_terry_exact"):
        witness = whole["claims"][claim]["witness"]
        assert (witness["left"], witness["right"]) == ("-1", "0")
        assert accepted(with_claim(whole, claim, witness={**witness, "left": "1 - 2"})), claim
        assert not accepted(with_claim(whole, claim, witness={**witness, "left": wrong})), claim


def test_a_witness_is_of_a_kind_that_the_rule_reads() -> None:
    """f' > 0 at x = -1 refutes a fall; slopes beside it would be printed without a look at them."""
    whole = json.loads(json.dumps(certificate_document(analyze("x**2"))))
    assert accepted(with_claim(whole, "monotone_decreasing", witness={"kind": "point", "x": "1"}))
    assert not accepted(with_claim(whole, "monotone_decreasing", witness={"kind": "kink", "x": "1", "left": "7", "right": "8"}))
    whole = json.loads(json.dumps(certificate_document(analyze("where(x<0,1,0)"))))
    assert accepted(with_claim(whole, "differentiable_at_zero"))
    assert not accepted(with_claim(whole, "differentiable_at_zero", witness={"kind": "point", "x": "1"}))


def test_a_parameter_that_does_not_occur_is_rejected() -> None:
    whole = only(document("linex"), "convex")
    assert accepted(whole)
    assert not accepted({**whole, "loss": {**whole["loss"], "parameters": {**whole["loss"]["parameters"], "b": "1"}}})
    assert not accepted({**whole, "loss": {**whole["loss"], "because": "it is well known"}})


@pytest.mark.parametrize("schema", [1, 3, "2", None])
def test_a_certificate_of_another_schema_is_refused_in_a_clear_line(schema: Any) -> None:
    with pytest.raises(InputError, match=r"a certificate of schema .*, and only schema 2 is read: analyze the loss again"):
        verify(seal({**document("hinge"), "schema": schema}))


@pytest.mark.parametrize("name", ["savage", "perceptron"])
def test_what_a_verdict_has_no_use_for_is_not_accepted(name: str) -> None:
    """A reader would take for shown what was never replayed: a number without a claim, a witness of a proof."""
    whole = document(name)
    for claim, entry in whole["claims"].items():
        if entry["verdict"] == "proved":
            assert not accepted(with_claim(whole, claim, witness={"kind": "point", "x": "1"})), claim
        if entry["verdict"] == "refuted" or claim not in VALUED:
            assert not accepted(with_claim(whole, claim, value={"exact": "7", "float": 7.0})), claim
        if entry["verdict"] == "refuted":
            assert not accepted(with_claim(whole, claim, witness={**entry["witness"], "kind": "0"})), claim
            assert not accepted(with_claim(whole, claim, witness={**entry["witness"], "more": "1"})), claim


def test_exact_values_are_read_with_limits() -> None:
    for exact in ("9**9**9**9", "exp(exp(exp(9)))", "1e99", "2**(10**9)", "x", "1/0", "__import__('os')", "(" * 500):
        lie = with_claim(document("logistic"), "lipschitz", value={"exact": exact, "float": 1.0})
        assert not accepted(lie), exact
