"""`gpo design` as a user runs it."""

import json

import pytest

from tests.support.commands import gpo, gpo_json, gpo_process, refused

KEYS = {"schema", "wish", "loss", "analysis", "excluded_by", "refusal"}


def test_the_example_finds_a_loss_with_the_wished_claims() -> None:
    found = gpo_json("design", "--strength", "1/2", "--target", "2", "--convex", run=gpo_process)
    assert set(found) == KEYS
    assert found["wish"] == {"strength": "1/2", "target": "2", "right_tail": None, "left_tail": None, "convex": True, "bradley_terry_exact": None}
    assert found["excluded_by"] is None
    again = gpo_json("analyze", found["loss"]["formula"])
    for analysis in (found["analysis"], again):
        assert analysis["strength"]["exact"] == "1/2"
        assert analysis["link"]["target_at_one"] == "2"
        assert analysis["claims"]["convex"]["verdict"] == "proved"


def test_tails_and_exactness() -> None:
    found = gpo_json("design", "--bt-exact", "1", "--right-tail", "exponential:1/3", "--convex")
    assert found["wish"]["right_tail"] == {"class": "exponential", "number": "1/3"}
    analysis = gpo_json("analyze", found["loss"]["formula"])
    exact = analysis["claims"]["bradley_terry_exact"]
    assert (exact["verdict"], exact["value"]["exact"]) == ("proved", "1")
    assert analysis["tails"]["right"]["slope"]["rate"] == "1/3"


def test_a_wish_that_excludes_itself_is_answered_by_the_proposition() -> None:
    found = gpo_json("design", "--bt-exact", "1", "--target", "2")
    assert set(found) == KEYS
    assert found["loss"] is found["analysis"] is None
    assert [reason["proposition"] for reason in found["excluded_by"]] == ["P6"]
    assert "P6" in gpo("design", "--bt-exact", "1", "--target", "2", code=0).stdout


def test_what_is_not_found_exits_2_and_still_prints_its_json() -> None:
    wish = ("design", "--right-tail", "super_exponential")
    assert "none of the families" in refused(*wish)
    found = json.loads(gpo(*wish, "--json", code=2).stdout)
    assert found["loss"] is found["analysis"] is found["excluded_by"] is None


def test_a_strength_that_is_none_is_refused_as_gpo_beta_refuses_it() -> None:
    result = gpo("design", "--strength", "1/2", "--target", "2", "--left-tail", "zero", "--json", code=2)
    found = json.loads(result.stdout)
    assert set(found) == KEYS
    assert found["loss"] is found["analysis"] is found["excluded_by"] is None
    formula = found["refusal"].partition(": ")[0]
    assert found["refusal"] in refused("beta", "--from", "dpo", "--beta", "0.1", "--to", formula)


@pytest.mark.parametrize("kind", ["power", "polynomial"])
def test_a_tail_without_a_number_may_have_any_order(kind: str) -> None:
    found = gpo_json("design", "--left-tail", kind)
    assert found["refusal"] is None
    tail = found["analysis"]["tails"]["left"]["slope"]
    assert (tail["class"], tail["verdict"]) == (kind, "proved")


def test_the_table_shows_the_loss() -> None:
    shown = gpo("design", "--target", "none", "--convex").stdout
    assert "log(1 + exp(-x))" in shown
    assert "convex" in shown


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "nothing is wished"), (("--strength", "x"), "'x'"), (("--strength", "-1"), "-1"), (("--target", "0"), "0"),
        (("--target", "nothing"), "nothing"), (("--bt-exact", "1/0"), "1/0"),
        (("--right-tail", "exponentil:1"), "did you mean 'exponential'"), (("--left-tail", "zero:1"), "zero:1"),
        (("--convx",), "--convx"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: tuple[str, ...], word: str) -> None:
    assert word in refused("design", *arguments)
