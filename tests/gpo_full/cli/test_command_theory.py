"""`gpo losses`, `gpo analyze` and `gpo beta` as a user runs them: by exit code, stdout and stderr.

One test of each kind runs in a subprocess; the rest call the same entry point in this process, which costs no import.
"""

import json
import math
import resource
import shlex
from pathlib import Path

import pytest

from gpo_theory import LOSSES
from tests.gpo_theory.test_analysis import check_shape
from tests.support.commands import gpo, gpo_json, gpo_process, refused
from tests.support.oracle import CLAIMS, check_claims, check_strength, check_taylor


def test_losses() -> None:
    listed = gpo_json("losses")["losses"]
    assert [loss["name"] for loss in listed] == list(LOSSES)
    assert all(set(loss) == {"name", "formula", "latex", "parameters", "reference"} for loss in listed)
    shown = gpo("losses").stdout
    assert all(name in shown for name in LOSSES)


def test_analyze_the_example_of_the_issue_in_time() -> None:
    """At most 3 CPU-seconds (the best of two), importing included."""
    spent = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = gpo_json("analyze", "log(1+exp(-x))", run=gpo_process)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    check_shape(found)
    check_taylor("logistic", found["taylor"])
    check_strength("logistic", found["strength"])
    check_claims("logistic", found["claims"], decided=True)
    assert found["taylor"] == ["log(2)", "-1/2", "1/8", "0", "-1/192"]
    assert min(spent) <= 3.0


def test_analyze_a_name_an_alias_and_parameters() -> None:
    assert gpo_json("analyze", "slic")["loss"]["name"] == "hinge"
    assert gpo_json("analyze", "linex", "--param", "a=1/2")["loss"]["parameters"] == {"a": "1/2"}
    assert gpo_json("analyze", "exp(-a*x)", "--param", "a=0.1")["strength"]["exact"] == "1/10"


def test_an_argument_that_begins_with_a_minus_is_a_formula() -> None:
    found = gpo_json("analyze", "-x*sigmoid(-x)", run=gpo_process)
    assert found["taylor"] == ["0", "-1/2", "1/4", "0", "-1/48"]
    assert gpo_json("analyze", "-x")["taylor"] == ["0", "-1", "0", "0", "0"]
    assert gpo_json("analyze", "--json", "-log(sigmoid(x))")["taylor"][0] == "log(2)"
    assert gpo("beta", "--from", "-log(sigmoid(x))", "--to", "ipo", "--beta", "0.1").returncode == 0


def test_the_answers_of_the_issue() -> None:
    assert gpo_json("analyze", "max(0,-x)")["claims"]["bayes_consistent"]["verdict"] == "refuted"
    claims = gpo_json("analyze", "savage")["claims"]
    assert claims["convex"]["verdict"] == "refuted"
    assert claims["convex"]["witness"] is not None
    assert claims["bayes_consistent"]["verdict"] == "proved"
    message = refused("analyze", "log(x)", run=gpo_process)
    assert "log(x)" in message
    assert "0" in message


def test_the_table_reads_well() -> None:
    result = gpo_process("analyze", "dpo")
    assert result.returncode == 0
    assert all(claim in result.stdout for claim in CLAIMS)
    assert "log(2)" in result.stdout
    assert "\x1b" not in result.stdout, "no colour codes when the output is no terminal"
    assert "None" not in result.stdout
    assert "Fraction" not in result.stdout


def test_an_infinite_psi_is_told_from_one_that_is_not_known() -> None:
    """C_(3/4) of 1 - x is 1 - x/2, which has no lower bound; psi(1/2) of DiscoPOP is not narrowed down."""
    for name, half, shown in (("unhinged", "inf", "inf"), ("discopop", None, "not certified")):
        assert gpo_json("analyze", name)["psi"]["at_half"] == half
        row = next(line for line in gpo("analyze", name).stdout.splitlines() if line.startswith("psi(1/2)"))
        assert row.removeprefix("psi(1/2)").strip() == shown


@pytest.mark.parametrize("name", ["unhinged", "robust_dpo", "kliep"])
def test_consistent_without_a_bound_is_said(name: str) -> None:
    """Convex with f'(0) < 0, and f tends to -infinity: Bartlett, Jordan, McAuliffe need f >= 0 for the bound."""
    claim = gpo_json("analyze", name)["claims"]["bayes_consistent"]
    assert claim["verdict"] == "proved"
    for text in (claim["because"], gpo("analyze", name).stdout):
        assert "no excess-risk bound follows" in " ".join(text.split())


@pytest.mark.parametrize("name", ["ipo", "ipo-tau", "trl-ipo", "squared"])
def test_every_answer_about_ipo_states_its_convention(name: str) -> None:
    shown = gpo("analyze", name).stdout
    assert "tau" in shown, shown
    assert "(x-1" in shown.replace(" ", ""), shown


def test_beta() -> None:
    found = gpo_json("beta", "--from", "dpo", "--beta", "0.1", "--to", "ipo")
    assert found["beta_to"] == pytest.approx(0.05, rel=1e-12)
    assert found["refusal"] is None
    assert "tau" in found["convention"]
    shown = gpo("beta", "--from", "dpo", "--beta", "0.1", "--to", "ipo-tau").stdout
    assert "0.025" in shown
    assert "tau" in shown


def test_a_refused_beta_exits_2_and_still_prints_its_json() -> None:
    words = ("beta", "--from", "dpo", "--beta", "0.1", "--to", "slic")
    result = gpo(*words, "--json", code=2)
    assert gpo_process(*words, "--json") == result
    found = json.loads(result.stdout)
    assert found["beta_to"] is None
    assert "R = 0" in found["refusal"]
    assert "R = 0" in refused(*words)


def test_a_message_of_the_library_names_the_option() -> None:
    """What the library says of `mean_length=N`, `by='target'` and `parameters={...}`, a user reads as options."""
    words = ("beta", "--from", "dpo", "--beta", "0.1", "--to")
    assert "give --mean-length N, the mean response length" in refused(*words, "trl-ipo")
    refusal = json.loads(gpo(*words, "trl-ipo", "--json").stdout)["refusal"]
    assert "give --mean-length N" in refusal
    assert "as --by target and --p 0.9 do" in refused(*words, "slic")
    assert "--mean-length 10.0 converts" in refused(*words, "ipo", "--mean-length", "10")
    assert "--mean-length -1.0 is not a positive number" in refused(*words, "trl-ipo", "--mean-length", "-1")
    assert "--beta 0.0 is not a positive number" in refused("beta", "--from", "dpo", "--beta", "0", "--to", "ipo")
    assert "as in --param tau=0.1" in refused("analyze", "exp(-a*x)")


def test_beta_by_target_and_by_tail() -> None:
    """logit(0.9) = log 9, the hinge's target is 1; IPO's weight 1 - x meets 1 - tanh(x/2) of the logistic."""
    words = ("beta", "--from", "dpo", "--beta", "0.1", "--to")
    found = gpo_json(*words, "slic", "--by", "target", "--p", "0.9", run=gpo_process)
    assert (found["by"], found["order"]) == ("target", "one_p")
    assert found["beta_to"] == pytest.approx(0.1 / math.log(9), rel=1e-12)
    assert found["matched"] == pytest.approx(math.log(9) / 0.1, rel=1e-12)
    found = gpo_json(*words, "ipo", "--by", "tail", "--at", "-3")
    assert (found["by"], found["order"]) == ("tail", "one_margin")
    assert found["beta_to"] == pytest.approx(0.1 * math.tanh(1.5) / 3, rel=1e-12)
    shown = gpo(*words, "slic", "--by", "target", "--p", "9/10").stdout
    assert "0.045512" in shown
    assert "at this p only" in shown
    assert "exactly" in gpo(*words, "savage", "--by", "target", "--p", "0.9").stdout
    refusal = gpo(*words, "slic", "--by", "tail", "--at", "2", "--json", code=2)
    assert json.loads(refusal.stdout)["by"] == "tail"
    assert refusal.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("analyze", "logstic"), ("logstic", "logistic")),
        (("analyze", "x", "--param", "a=1"), ("a",)),
        (("analyze", "focal", "--param", "gamma"), ("gamma",)),
        (("analyze", "focal", "--param", "gamma=two"), ("two",)),
        (("analyze", "focal", "--param", "gamma=1", "--param", "gamma = 2"), ("--param gamma is given twice",)),
        (("analyze",), ("LOSS",)),
        (("analyze", "x", "--jsn"), ("--jsn",)),
        (("analyze", "x", "y"), ("y",)),
        (("beta", "--from", "dpo", "--to", "ipo"), ("--beta",)),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "-1"), ("-1",)),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "nan"), ("nan",)),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "abc"), ("abc",)),
        (("beta", "--from", "dpo", "--to", "ipoo", "--beta", "1"), ("ipoo", "ipo")),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "1", "--mean-length", "10"), ("length",)),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "1", "--by", "targt"), ("targt", "target")),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "1", "--by", "target"), ("p",)),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "1", "--p", "0.9"), ("p = 0.9", "target")),
        (("beta", "--from", "dpo", "--to", "ipo", "--beta", "1", "--by", "tail", "--at", "zero"), ("zero",)),
        (("losess",), ("losess", "losses")),
        (("losses", "extra"), ("extra",)),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    message = refused(*arguments)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("command", ["losses", "analyze", "compare", "beta", "verify", "check", "design"])
def test_help_has_an_example_that_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = gpo(command, "--help", code=0).stdout.split("example: ")[1].strip()
    words = shlex.split(example)
    assert words[:2] == ["gpo", command]
    monkeypatch.chdir(tmp_path)
    if command == "verify":
        gpo("analyze", "dpo", "--certificate", words[2], code=0)
    gpo(*words[1:], code=0)


def test_commands_that_prove_have_a_limit_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs more is one line and exit code 2; who called the command keeps the limit that it had."""

    def exhausted(_: object) -> int:
        inside.append(resource.getrlimit(resource.RLIMIT_AS)[0])
        raise MemoryError

    inside: list[int] = []
    before = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.setattr("gpo_full.cli.commands.analyze.run", exhausted)
    assert refused("analyze", "hinge") == "gpo analyze: error: this needs more memory than is allowed\n"
    assert inside == [6 * 2**30]
    assert resource.getrlimit(resource.RLIMIT_AS) == before
