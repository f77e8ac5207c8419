"""The methods that are not of the form f(beta rho): listed with reason and source, and refused by name."""

import dataclasses
import re

import mpmath as mp
import pytest

from gpo_theory import LOSSES, InputError, find_loss
from gpo_theory.catalogue import ALIASES
from gpo_theory.methods import METHODS, refusal
from tests.support.commands import refused
from tests.support.oracle import evaluate

# The list of THEORY section 4, by the reason it gives.
GROUPS = {
    "absolute terms": ("nca", "bco", "sppo", "apo_zero", "apo_down", "kto", "cal_dpo", "dpop", "pro", "expo"),
    "another link": ("chi_po", "f_dpo", "mirror_po"), "no reference": ("simpo", "cpo", "orpo"),
    "batch coupling": ("aot", "dr_dpo", "wdpo", "holder_dpo"), "a moving reference": ("tr_dpo",),
    "token level": ("tdpo",), "policy-dependent weights": ("wpo",), "a moving mu": ("online_dpo", "nash_md"),
}


def test_the_table_is_that_of_the_theory() -> None:
    assert set(METHODS) == {name for group in GROUPS.values() for name in group}
    for reason, names in GROUPS.items():
        assert all(METHODS[name][0].startswith(reason) for name in names)
    sources = [source for _, source in METHODS.values()]
    assert all(re.search(r" et al\. 20\d\d, arXiv \d{4}\.\d{5}$", source) for source in sources)
    assert len(set(sources)) == len(sources) - 1, "the two forms of APO are of one paper, all others apart"


def test_no_method_is_a_loss() -> None:
    assert not set(METHODS) & {*LOSSES, *ALIASES}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_refused_with_its_reason(name: str) -> None:
    for text in (name, name.upper(), name.replace("_", "-")):
        with pytest.raises(InputError) as refused_by:
            find_loss(text)
        assert all(part in str(refused_by.value) for part in (text, *METHODS[name]))


def test_the_names_of_the_literature_are_read() -> None:
    for text in ("Dr.DPO", "Nash-MD", "APO-zero", "Cal-DPO", "chi-PO", "f-DPO", "online DPO", "Hölder-DPO", "Mirror PO", "wDPO"):
        assert "not of the form" in (refusal(text) or "")
    assert refusal("dpo") is None
    assert refusal("max(0, 1-x)") is None


def test_the_names_of_trl_are_read() -> None:
    """Each of its losses is one here, is refused with the reason, or is said to be another here."""
    trl = pytest.importorskip("trl")
    text = next(each for each in dataclasses.fields(trl.DPOConfig) if each.name == "loss_type").metadata["help"]
    names = re.findall(r"`'(\w+)'`", text)
    assert len(names) == 15
    known = {"sigmoid": "sigmoid", "ipo": "squared", "hinge": "hinge", "exo_pair": "exo", "discopop": "discopop"}
    for name, meant in known.items():
        assert find_loss(name).name == meant
        names.remove(name)
    for name in names:
        with pytest.raises(InputError, match=r"is not of the form f\(beta rho\): |what TRL calls so is "):
            find_loss(name)
    assert "no margin" in (refusal("sft") or "")
    assert METHODS["bco"][0] in (refusal("bco-pair") or "")


def test_the_command_line_gives_the_reason() -> None:
    assert "no reference" in refused("analyze", "SimPO")
    assert "absolute terms" in refused("beta", "--from", "dpo", "--to", "kto", "--beta", "1")
    assert "kto" in refused("analyze", "ktoo")


def test_dr_dpo_has_the_population_minimisers_of_the_alpha_loss() -> None:
    """On one pair preferred with probability p, at b = 3 and alpha = b/(b-1) = 3/2; by hand both are alpha logit p."""
    b, p = mp.mpf(3), mp.mpf("0.7")
    sigma = lambda x: 1 / (1 + mp.exp(-x))  # noqa: E731
    alpha_loss = lambda x: evaluate(LOSSES["alpha_loss"].formula, x, {"alpha": mp.mpf(3) / 2})  # noqa: E731
    risks = (lambda x: -b * mp.log(p * sigma(x) ** (1 / b) + (1 - p) * sigma(-x) ** (1 / b)), lambda x: p * alpha_loss(x) + (1 - p) * alpha_loss(-x))
    for risk in risks:
        best = mp.findroot(lambda x, risk=risk: mp.diff(risk, x), 1)
        assert abs(best - mp.mpf(3) / 2 * mp.log(p / (1 - p))) < 1e-10
        assert risk(best) < min(risk(best - 1), risk(best + 1))
