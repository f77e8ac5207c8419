"""The explorer: small, closed to the outside, and its numbers are the packages' own, in a real browser."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings

from gpo_full.book.book import outside_addresses
from gpo_full.book.explorer_page import explorer_html
from gpo_theory import LOSSES, ParseError, parse
from gpo_theory.calculus.strengths import strength
from gpo_theory.choosing.matching import match_beta
from gpo_theory.formula.spelling import CHARACTERS, SIGNS, SPELLINGS
from gpo_theory.risk.links import link_at
from gpo_theory.risk.psi import psi_at
from tests.support.dialects import dialects
from tests.support.jets import jet
from tests.support.strategies import formulas
from toy_models import Bandit, GaussianMixture, descend

POINTS = [-30, -7, -2.5, -1, -0.3, 0, 1e-3, 0.2, 0.5, 0.9, 1.7, 3, 11, 30]


@pytest.fixture(scope="module")
def html() -> str:
    return explorer_html()


@pytest.fixture(scope="module")
def place(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(place: Path, browser: Any) -> Iterator[Any]:
    opened = browser.new_page()
    opened.requests, opened.faults = [], []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("console", lambda message: opened.faults.append(message.text))
    opened.goto(place.as_uri())
    yield opened
    opened.close()


@pytest.fixture
def fresh(page: Any, place: Path) -> Any:
    page.goto("about:blank")
    page.goto(place.as_uri())
    return page


def test_it_is_small(html: str) -> None:
    assert len(html.encode()) < 200_000


def test_its_policy_allows_its_own_script_and_style_alone(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    for element, directive in (('<script type="module">', "script-src"), ("<style>", "style-src")):
        inside = html.split(element, 1)[1].split("</", 1)[0] if element == "<style>" else html.split(element, 1)[1].split("</script>", 1)[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy.group(1)
    assert policy.group(1).startswith("default-src 'none';")
    assert "unsafe" not in policy.group(1)


def test_it_names_no_address_outside(html: str, place: Path) -> None:
    assert outside_addresses(place.parent) == []
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}
    assert set(re.findall(r"https?://[^\s\"'`<>\\]+", html)) <= namespaces


@pytest.mark.browser
def test_it_opens_with_no_request_and_no_fault(page: Any, place: Path) -> None:
    assert [url for url in page.requests if url != place.as_uri()] == []
    assert page.faults == []
    assert page.locator("figure svg").count() == 11
    assert page.locator("#rows math").count() == 3


def jets_in_browser(page: Any, text: str, points: list[float]) -> list[list[float]]:
    found = page.evaluate("([text, points]) => { const { f } = explorer.read(text); return points.map((x) => f(x).map(String)); }", [text, points])
    return [[*map(float, row)] for row in found]


def assert_jets(text: str, formula: str, parameters: dict[str, Fraction], found: list[list[float]]) -> None:
    for x, (f, d, dd, error, error_of_slope) in zip(POINTS, found, strict=True):
        with mp.workdps(250):
            truth = jet(formula, mp.mpf(x), parameters)
        for name, value, expected in (("f", f, truth.f), ("f'", d, truth.d), ("f''", dd, truth.dd)):
            assert abs(value - expected) <= 1e-10 * (1 + abs(expected)), (text, x, name, value, float(expected))
        # The bounds on rounding errors that decide what the tails show are honest.
        assert abs(f - truth.f) <= 4 * error + 1e-300, (text, x)
        assert abs(d - truth.d) <= 4 * error_of_slope + 1e-300, (text, x)


@pytest.mark.browser
@pytest.mark.parametrize("name", LOSSES)
def test_catalogue(page: Any, name: str) -> None:
    loss = LOSSES[name]
    assert_jets(name, loss.formula, dict(loss.parameters), jets_in_browser(page, name, POINTS))


ACCEPT = "(text) => { try { explorer.parse(text); return true; } catch (error) { return false; } }"


@pytest.mark.browser
@settings(max_examples=300, derandomize=True, deadline=None)
@given(text=formulas())
def test_what_is_typed_is_read_as_gpo_analyze_reads_it(page: Any, text: str) -> None:
    try:
        parse(text)
    except ParseError:
        assert not page.evaluate(ACCEPT, text)
        return
    assert page.evaluate(ACCEPT, text)
    try:
        with mp.workdps(60):
            truth = [jet(text, mp.mpf(x)) for x in (-1.25, 0.375, 2.5)]
    except (ZeroDivisionError, ValueError, OverflowError):
        return
    found = page.evaluate("(text) => [-1.25, 0.375, 2.5].map((x) => explorer.compile(explorer.parse(text))(x).map(String))", text)
    for expected, row in zip(truth, found, strict=True):
        f, d, _, error, error_of_slope = map(float, row)
        for value, true, bound in ((f, expected.f, error), (d, expected.d, error_of_slope)):
            if mp.isfinite(true) and mp.im(true) == 0 and abs(true) < 1e100 and bound == bound:
                assert abs(value - true) <= 4 * bound + 1e-10 * (1 + abs(true)), (text, value, float(true))


@pytest.mark.browser
@pytest.mark.parametrize("text", ["", "|x|x||", "2|x|", "|x", "lgo(x)", "x**x", "y", "1/0", "1/(x-x)", "(2*x-x*2)**0", "x if x else 1", "x.y", "where(x, 1, 2)", "max(x)", "x**40",
                                  "exp(exp(exp(x)))", "((x**8)**8)**8", "x; import", "x x", "(x", "2x", "x**pi", "a" * 2000, "x\u00b2^3", "np.x", "x.exp()", "\\log(x)", "[1-x]_+",
                                  "(-2)^x", "Phi", "phi(x)", "\u03b2*x", "relu(x, x)", "pow(x, x)", "pow(x)", "np.log", "x<0", "1-\u00b5"])  # fmt: skip
def test_what_gpo_analyze_refuses_is_refused(page: Any, text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)
    assert not page.evaluate(ACCEPT, text)


VALUES = "([text, points]) => points.map((x) => String(explorer.compile(explorer.parse(text))(x)[0]))"


@pytest.mark.browser
@settings(max_examples=200, derandomize=True, deadline=None)
@given(written=dialects())
def test_a_dialect_is_read_as_gpo_analyze_reads_it(page: Any, written: tuple[str, Any]) -> None:
    text, function = written
    try:
        parse(text)
    except ParseError:
        assert not page.evaluate(ACCEPT, text), text
        return
    assert page.evaluate(ACCEPT, text), text
    for x, found in zip((-1.25, 0.375, 2.5), page.evaluate(VALUES, [text, [-1.25, 0.375, 2.5]]), strict=True):
        try:
            with mp.workdps(60):
                true = function(mp.mpf(x))
        except (ZeroDivisionError, ValueError, OverflowError, TypeError):
            continue
        if isinstance(true, mp.mpf) and mp.isfinite(true) and abs(true) < 1e6:
            assert abs(float(found) - true) <= 1e-7 * (1 + abs(true)), (text, x, found, float(true))


@pytest.mark.browser
@pytest.mark.parametrize("text", [*(f"1{character}x" for character in CHARACTERS), *(f"x {sign} 2" for sign in SIGNS),
                                  *(f"{name}({'x, 2' if name.endswith(('imum', 'exp', 'pow', 'power')) else 'x'})" for name in SPELLINGS)])  # fmt: skip
def test_every_spelling_of_the_tables_is_read_or_refused_alike(page: Any, text: str) -> None:
    try:
        parse(text)
    except ParseError:
        assert not page.evaluate(ACCEPT, text)
    else:
        assert page.evaluate(ACCEPT, text)


@pytest.mark.browser
@pytest.mark.parametrize("typed", ["DPO", "Hinge", "TRL_IPO", "Squared Hinge", "EXO-pair"])
def test_a_name_is_found_in_any_case(page: Any, typed: str) -> None:
    assert page.evaluate("(text) => explorer.read(text).name", typed) == LOSSES[typed].name


@pytest.mark.browser
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "focal_po"])  # whose certificate takes 10 seconds
def test_targets_lie_in_the_certified_intervals(page: Any, name: str) -> None:
    found = float(page.evaluate("(name) => String(explorer.target(explorer.read(name).f, 0.75))", name))
    low, high = link_at(LOSSES[name], Fraction(3, 4)) or (-mp.inf, mp.inf)
    if max(abs(low), abs(high)) < 20:
        assert low - 1e-7 <= found <= high + 1e-7
    else:
        assert abs(found) >= 20 or low <= found <= high


@pytest.mark.browser
@pytest.mark.parametrize("name", ["logistic", "hinge", "squared", "exponential", "truncated_squared", "logitboost", "cubed_hinge",
                                  "smooth_hinge", "modified_huber", "canonical_boosting"])  # fmt: skip
@pytest.mark.parametrize("theta", [Fraction(1, 4), Fraction(4, 5)])
def test_psi_lies_in_the_certified_interval_of_a_convex_loss(page: Any, name: str, theta: Fraction) -> None:
    gap = page.evaluate("([name, t]) => explorer.psi(explorer.read(name).f, t)", [name, float(theta)])
    low, high = psi_at(LOSSES[name], theta) or pytest.fail("no certificate")
    assert low - 1e-10 <= gap <= high + 1e-10


REFERENCE, START = [0.7, 0.29, 0.01], [0.01, 0.5, 0.49]


@pytest.mark.browser
@pytest.mark.parametrize("behaviour", ["reference", "uniform", "policy"])
def test_the_regulariser_s_descent_is_the_toy_model_s(page: Any, behaviour: str) -> None:
    mu = {"reference": REFERENCE, "uniform": [1 / 3] * 3, "policy": None}[behaviour]
    found = page.evaluate("(setting) => explorer.simplexPath(setting)", {"reference": REFERENCE, "start": START, "mu": mu,
                          "objective": "regularizer", "lr": 0.05, "steps": 300})  # fmt: skip
    bandit = Bandit(REFERENCE, behaviour=behaviour)
    trace = descend(bandit, bandit.start(START), lr=0.05, steps=300)
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(torch.tensor(found["kl"], dtype=torch.float64), trace.kl, **close)
    torch.testing.assert_close(torch.tensor(found["regularizer"], dtype=torch.float64), trace.regularizer, **close)


@pytest.mark.browser
def test_the_descent_on_kl_by_automatic_differentiation(page: Any) -> None:
    found = page.evaluate("(setting) => explorer.simplexPath(setting)", {"reference": REFERENCE, "start": START, "mu": None,
                          "objective": "kl", "lr": 0.05, "steps": 200})  # fmt: skip
    logits = torch.tensor(START, dtype=torch.float64).log().requires_grad_()
    reference, kls = torch.tensor(REFERENCE, dtype=torch.float64), []
    for _ in range(201):
        policy = logits.softmax(0)
        kl = (policy * (policy / reference).log()).sum()
        kls.append(kl.item())
        (slope,) = torch.autograd.grad(kl, logits)
        logits = (logits - 0.05 * slope).detach().requires_grad_()
    torch.testing.assert_close(torch.tensor(found["kl"]), torch.tensor(kls), rtol=1e-10, atol=1e-10)


@pytest.mark.browser
@pytest.mark.parametrize("behaviour", ["reference", "policy", (2.0, 0.5)])
def test_the_mixture_s_path_is_the_toy_model_s(page: Any, behaviour: Any) -> None:
    setting = {"reference": {"means": [-2, 2], "logits": [0, 0]}, "means": [-2, 2], "logits": [3, 0], "behaviour": behaviour,
               "objective": "regularizer", "lr": 0.05, "steps": 100}  # fmt: skip
    found = page.evaluate("(setting) => explorer.mixturePath(setting)", setting)
    mixture = GaussianMixture(behaviour=behaviour, step=0.05)
    trace = descend(mixture, mixture.start([-2, 2], [3, 0]), lr=0.05, steps=100)
    for key, expected in (("kl", trace.kl), ("regularizer", trace.regularizer)):
        torch.testing.assert_close(torch.tensor(found[key], dtype=torch.float64), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.browser
def test_matched_betas_are_those_of_gpo_beta(fresh: Any) -> None:
    for name in ("exponential", "savage"):
        fresh.fill("#formula", name)
        fresh.click("#add")
    shown = dict(zip(fresh.locator("#rows th").all_inner_texts(), fresh.locator("#rows td:nth-child(4)").all_inner_texts(), strict=True))
    for name in ("squared", "exponential", "savage"):
        expected = match_beta("dpo", name, 0.1).beta_to
        assert float(shown[f" {name}" if f" {name}" in shown else name].split("=")[1]) == pytest.approx(expected)
    fresh.select_option("#convention", "tau")
    assert "τ = 0.025" in fresh.inner_text("#rows")
    assert fresh.locator("#length").is_hidden()
    fresh.select_option("#convention", "mean")
    fresh.fill("#length", "200")
    fresh.keyboard.press("Tab")
    expected = match_beta("dpo", "trl-ipo", 0.1, 200).beta_to
    assert float(re.findall(r"TRL's β = (\S+)", fresh.inner_text("#rows"))[0]) == pytest.approx(expected)


STRENGTH = "(text) => { const { R, refusal } = explorer.read(text); return [R, refusal]; }"


@pytest.mark.browser
@pytest.mark.parametrize("name", LOSSES)
def test_strengths_are_those_of_gpo_analyze(page: Any, name: str) -> None:
    found, _ = page.evaluate(STRENGTH, name)
    assert found == pytest.approx(strength(LOSSES[name]).value, rel=1e-10, abs=1e-10)


@pytest.mark.browser
@pytest.mark.parametrize("text", ["squared", "smooth_hinge", "lum", "huberised_exponential", "savage", "where(x<0, x**2-x, -x)",
                                  "hinge", "perceptron", "discopop", "sigmoid", "exp(x)", "x", "abs(x)-x", "-x**2-x", "exp(-x)+x/2-x**4/50"])  # fmt: skip
def test_a_beta_is_matched_or_refused_as_gpo_beta_does(page: Any, text: str) -> None:
    ours, refusal = page.evaluate(STRENGTH, text)
    match = match_beta("dpo", text, 0.1)
    assert (refusal is None) == (match.refusal is None), (refusal, match.refusal)
    if refusal is None:
        assert 0.1 * 0.5 / ours == pytest.approx(match.beta_to, rel=1e-10)


@pytest.mark.browser
def test_a_refused_beta_says_why(fresh: Any) -> None:
    for text in ("discopop", "exp(x)"):
        fresh.fill("#formula", text)
        fresh.click("#add")
    betas = fresh.locator("#rows td:nth-child(4)").all_inner_texts()
    assert betas[2] == "none: R = 0: no β regularises near 0"
    assert betas[3].startswith("none: f′(0) ≥ 0")
    assert betas[4].startswith("none: f′(0) ≥ 0")
    fresh.uncheck("#match")
    assert fresh.locator("#rows td:nth-child(4)").all_inner_texts() == ["β = 0.1"] * 5


@pytest.mark.browser
def test_by_keyboard_alone(fresh: Any) -> None:
    fresh.keyboard.press("/")
    fresh.keyboard.type("max(0,1-x)**3")
    fresh.keyboard.press("Enter")
    assert fresh.locator("#rows tr").count() == 4
    fresh.keyboard.press("Tab")
    fresh.keyboard.press("]")
    assert float(fresh.input_value("#betaNumber")) > 0.1
    fresh.keyboard.press("d")
    assert fresh.evaluate("document.documentElement.dataset.theme") in ("dark", "light")
    reached = set()
    for _ in range(60):
        fresh.keyboard.press("Tab")
        reached.add(fresh.evaluate("document.activeElement.id || document.activeElement.dataset.svg"))
    assert {"convention", "axis", "reference", "time", "sampler", "density"} <= reached


@pytest.mark.browser
def test_keys_change_every_control_and_never_lose_the_focus(fresh: Any) -> None:
    press = fresh.keyboard.press
    fresh.focus("#time")
    press("Home")
    assert fresh.inner_text("#timeSaid").startswith("step 0:")
    mark = fresh.locator("#mixturePath .mark").get_attribute("d")
    press("ArrowRight")
    assert fresh.inner_text("#timeSaid").startswith("step 1:")
    assert fresh.locator("#mixturePath .mark").get_attribute("d") != mark
    beta = float(fresh.input_value("#betaNumber"))
    press("[")  # a slider takes no text, so that the keys go on working
    assert float(fresh.input_value("#betaNumber")) < beta
    press("/")
    press("[")
    assert fresh.input_value("#formula") == "["
    press("Escape")
    press("]")
    assert fresh.input_value("#formula") == "["
    fresh.focus("#axis")
    press("ArrowDown")
    assert fresh.input_value("#axis") == "rho"
    fresh.focus("[data-remove='1']")
    press("Enter")
    assert fresh.locator("#rows th").all_inner_texts() == [" logistic", " hinge"]
    assert fresh.evaluate("document.activeElement.dataset.remove") == "1"
    press("Enter")
    assert fresh.evaluate("document.activeElement.id") == "formula"


@pytest.mark.browser
def test_a_link_keeps_the_state(fresh: Any, place: Path, browser: Any) -> None:
    fresh.fill("#formula", "exp(-a*x); a=1/2")
    fresh.click("#add")
    fresh.fill("#start", "0.2, 0.3, 0.5")
    fresh.keyboard.press("Tab")
    again = browser.new_page()
    again.goto(fresh.url)
    assert again.inner_text("#rows") == fresh.inner_text("#rows")
    assert again.input_value("#start") == "0.2, 0.3, 0.5"
    faults = []
    again.on("pageerror", lambda error: faults.append(str(error)))
    for hostile in ("{broken", '{"losses":["<img src=x>"]}', "[1]", '{"beta":"x"}', '{"beta":-1}', '{"beta":1e999}', '{"losses":[]}',
                    '{"losses":[[]]}', '{"sampler":"x"}', '{"behaviour":"x"}', '{"time":1e9}', '{"span":-3}', '{"axis":"y"}',
                    '{"convention":"x"}', '{"means":null}', '{"constructor":1}'):  # fmt: skip
        again.goto("about:blank")
        again.goto(f"{place.as_uri()}#{quote(hostile)}")
        assert again.locator("#rows tr").count() == 3, hostile
        assert again.locator("figure svg").count() == 11, hostile
    assert faults == []
    again.close()


@pytest.mark.browser
def test_what_is_copied(fresh: Any) -> None:
    fresh.evaluate("Object.defineProperty(navigator, 'clipboard', {value: {writeText: (text) => { window.taken = text; }}})")
    fresh.click("[data-csv=f]")
    header, first, *_ = fresh.evaluate("taken").splitlines()
    assert header == "name,x,y"
    name, x, y = first.split(",")
    assert (name, float(x)) == ('"logistic"', -6)
    assert float(y) == pytest.approx(float(mp.log(1 + mp.exp(6))), rel=1e-12)
    fresh.click("[data-svg=f]")
    picture = fresh.evaluate("taken")
    assert picture.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert {"logistic", "squared", "hinge"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", picture))  # the legend
    fresh.click("[data-csv=triangle]")
    shares = [line.rsplit(",", 2) for line in fresh.evaluate("taken").splitlines()[1:]]
    assert len(shares) == 2 * 3 * 2001
    first = [float(y) for _, step, y in shares if step == "0"]
    assert first == pytest.approx([0.01, 0.5, 0.49] * 2)
    fresh.fill("#formula", "exp(-x)/2")
    fresh.click("#add")
    fresh.click("#rows tr:last-child [data-latex]")
    assert fresh.evaluate("taken") == r"\frac{e^{-x}}{2}"


@pytest.mark.browser
@pytest.mark.parametrize(("text", "said"), [("lgistic", "did you mean 'logistic'"), ("log(-1+0*x)", "f(0) is not a finite number"),
                                            ("logistic; b=2", "has no parameter 'b'"), ("exp(-a*x)", "unknown name 'a'")])  # fmt: skip
def test_mistakes_are_told(fresh: Any, text: str, said: str) -> None:
    fresh.fill("#formula", text)
    fresh.click("#add")
    assert said in fresh.inner_text("#error")
    assert fresh.locator("#rows tr").count() == 3


def test_the_data_hold_every_loss(html: str) -> None:
    data = json.loads(html.split('id="data">', 1)[1].split("</script>", 1)[0])
    assert {each["name"]: each["formula"] for each in data["losses"]} == {name: loss.formula for name, loss in LOSSES.items()}
