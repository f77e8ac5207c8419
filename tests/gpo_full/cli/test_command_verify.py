"""`gpo analyze --certificate FILE` and `gpo verify FILE`: what was proved is replayed, what was touched is rejected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpo_theory.kernel.certificates import seal
from tests.support.commands import gpo, gpo_json, gpo_process, refused
from tests.support.oracle import CLAIMS
from tests.support.session import payload

Document = dict[str, Any]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("logistic", "hinge", "savage", "perceptron"):
        gpo("analyze", name, "--certificate", folder / f"{name}.json", code=0)
    return folder


@pytest.mark.parametrize("name", ["logistic", "hinge", "savage", "perceptron"])
def test_a_certificate_is_accepted_with_the_verdicts_of_the_analysis(name: str, certificates: Path) -> None:
    path = str(certificates / f"{name}.json")
    found = gpo_json("verify", path)
    loss, claims = payload(name)["loss"], payload(name)["claims"]
    of = {field: {claim: one[field] for claim, one in claims.items() if one[field] is not None}
          for field in ("verdict", "value", "witness", "because")}  # fmt: skip
    rest = found.pop("not_verified")
    assert found == {"schema": 1, "file": path, "accepted": True, "formula": loss["formula"], "parameters": loss["parameters"],
                     "claims": of["verdict"], "constants": of["value"], "witnesses": of["witness"], "fault": None}  # fmt: skip
    assert {key: rest[key] for key in ("name", "reference", "because")} == {**{key: loss[key] for key in ("name", "reference")},
                                                                            "because": of["because"]}  # fmt: skip
    assert set(rest) == {"name", "reference", "because", "versions"}


def test_one_line_per_claim(certificates: Path) -> None:
    result = gpo_process("verify", str(certificates / "savage.json"))
    assert result.returncode == 0
    assert result.stderr == ""
    formula, *lines, rest = result.stdout.splitlines()
    verdicts = {line.split()[0]: line.split()[1] for line in lines}
    assert formula == "f(x) = 1/(1 + exp(x))**2"
    assert tuple(verdicts) == CLAIMS
    assert verdicts["convex"] == "refuted"
    assert verdicts["bayes_consistent"] == "proved"
    assert rest == "not verified: the name 'savage', the reference, the reasons and the versions"


def test_constants_witnesses_and_parameters_are_printed_with_the_verdict(tmp_path: Path) -> None:
    """f' is -3 left of 0 and -2 right of it; the infimum is 0: by hand."""
    path = tmp_path / "c.json"
    gpo("analyze", "exp(-a*x)+where(x<0,-x,0)", "--param", "a=2", "--certificate", path, code=0)
    lines = gpo("verify", path, code=0).stdout.splitlines()
    assert lines[0] == "f(x) = exp(-a*x) + where(x < 0, -x, 0), a = 2"
    shown = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[1:-1]}
    assert shown["differentiable_at_zero"] == "refuted kink: x = 0, left = -3, right = -2"
    assert shown["bounded_below"] == "proved 0"
    assert shown["convex"] == "proved"


def test_another_name_is_accepted_and_said_to_be_unverified(certificates: Path, tmp_path: Path) -> None:
    document = json.loads((certificates / "savage.json").read_text(encoding="utf-8"))
    path = tmp_path / "renamed.json"
    path.write_text(json.dumps(seal({**document, "loss": {**document["loss"], "name": "\x1b[2Jlogistic"}})), encoding="utf-8")
    last = gpo("verify", path, code=0).stdout.splitlines()[-1]
    assert last == "not verified: the name '\\x1b[2Jlogistic', the reference, the reasons and the versions"


def test_analyze_answers_the_same_with_a_certificate(certificates: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.json"
    with_file = gpo_json("analyze", "hinge", "--certificate", str(path))
    assert {key: value for key, value in with_file.items() if key != "schema"} == payload("hinge")
    assert path.read_bytes() == (certificates / "hinge.json").read_bytes(), "the same proof every time"
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]


def test_a_certificate_that_cannot_be_written(tmp_path: Path) -> None:
    assert "--certificate" in refused("analyze", "hinge", "--certificate", str(tmp_path))
    refused("analyze", "log(x)", "--certificate", str(tmp_path / "c.json"))
    assert list(tmp_path.iterdir()) == []


def rejected(path: Path) -> str:
    """Exit 2 and one line that names the file; with --json the same fault on stdout."""
    message = refused("verify", str(path))
    assert str(path) in message
    found = json.loads(gpo("verify", path, "--json", code=2).stdout)
    assert found["accepted"] is False
    assert found["claims"] == {}
    assert found["fault"] in message
    return str(found["fault"])


def claims_of(document: Document, claim: str, **fields: Any) -> Document:
    return {**document, "claims": {**document["claims"], claim: {**document["claims"][claim], **fields}}}


FAULTS: dict[str, Callable[[Document], Document]] = {
    "Savage is convex": lambda d: claims_of(d, "convex", verdict="proved", witness=None),
    "Savage is not consistent": lambda d: claims_of(d, "bayes_consistent", verdict="refuted", witness={"kind": "theta", "theta": "1/2"}),
    "a chord that shows nothing": lambda d: claims_of(d, "convex", witness={"kind": "chord", "a": "1", "b": "3", "t": "1/2"}),
    "no proof of consistency": lambda d: claims_of(d, "bayes_consistent", proof=None),
    "another loss": lambda d: {**d, "loss": {**d["loss"], "formula": "(x - 1)**2"}},
    "a formula that is none": lambda d: {**d, "loss": {**d["loss"], "formula": "__import__('os')"}},
    "a formula that is a number": lambda d: {**d, "loss": {**d["loss"], "formula": 5}},
    "a parameter of a million digits": lambda d: {**d, "loss": {**d["loss"], "parameters": {"a": "1e9999999"}}},
    "a witness of a million digits": lambda d: claims_of(d, "convex", witness={"kind": "chord", "a": "1e9999999", "b": "1", "t": "1/2"}),
    "a proof that is a number": lambda d: claims_of(d, "bayes_consistent", proof=3),
    "a claim is missing": lambda d: {**d, "claims": {k: v for k, v in d["claims"].items() if k != "convex"}},
    "a claim too many": lambda d: {**d, "claims": {**d["claims"], "true": d["claims"]["convex"]}},
    "a field too many": lambda d: {**d, "more": 1},
    "another schema": lambda d: {**d, "schema": 3},
    "the schema of before": lambda d: {**d, "schema": 1},
    "a parameter that does not occur": lambda d: {**d, "loss": {**d["loss"], "parameters": {"a": "1"}}},
    "a field of the loss too many": lambda d: {**d, "loss": {**d["loss"], "author": "a"}},
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_sealed_lie_is_rejected(name: str, certificates: Path, tmp_path: Path) -> None:
    document = json.loads((certificates / "savage.json").read_text(encoding="utf-8"))
    path = tmp_path / "lie.json"
    path.write_text(json.dumps(seal(FAULTS[name](document))), encoding="utf-8")
    rejected(path)


def test_damage_is_noticed_by_the_checksum(certificates: Path, tmp_path: Path) -> None:
    text = (certificates / "savage.json").read_text(encoding="utf-8")
    document = json.loads(text)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(claims_of(document, "convex", because="because I say so")), encoding="utf-8")
    assert "checksum" in rejected(path)
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    assert "not JSON" in rejected(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not JSON"), (b"[]", "certificate"), (b"null", "certificate"), (b"{}", "certificate"),
        (b'{"schema": 1, "schema": 1}', "'schema' appears twice"), (b'{"a": [{"b": 1, "b": 2}]}', "'b' appears twice"),
        (b'{"schema": NaN}', "NaN"), (b'{"schema": -Infinity}', "-Infinity"), (b'{"schema": 1e999}', "certificate"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "size"), (b"[" * 200_000, "size"), (b"\xff\xfe{}", "UTF-8"),
        (b'{"schema": 1, "loss": "\\ud800", "claims": [], "versions": 1, "sha256": {}}', ""),
        (b'{"schema": 1, "loss": 1, "claims": {"convex": []}, "versions": 1, "sha256": "0"}', ""),
        (b" " * (16 * 2**20 + 1), "bytes"),
    ],
    ids=range(15),
)
def test_what_is_no_certificate(content: bytes, word: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    assert word in rejected(path)


def test_bad_input(tmp_path: Path) -> None:
    assert "missing.json" in refused("verify", str(tmp_path / "missing.json"), run=gpo_process)
    assert str(tmp_path) in refused("verify", str(tmp_path))
    assert "FILE" in refused("verify")
    assert "seconds" in refused("verify", str(tmp_path), "--seconds", "0")
    assert "seconds" in refused("verify", str(tmp_path), "--seconds", "nan")


def test_a_replay_that_takes_too_long_is_rejected(certificates: Path) -> None:
    message = refused("verify", str(certificates / "savage.json"), "--seconds", "1e-9")
    assert "CPU-seconds" in message
