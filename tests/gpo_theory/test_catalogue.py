"""The catalogue: names, aliases, parameters, and every formula against the oracle's own mpmath definition."""

from dataclasses import replace
from fractions import Fraction

import mpmath as mp
import pytest

from gpo_theory import LOSSES, InputError, Loss, Verdict, analyze, find_loss, match_beta, parse
from gpo_theory.catalogue import ALIASES, AVERAGED, find_losses
from gpo_theory.choosing.matching import convention
from gpo_theory.claims.proving import accepted
from gpo_theory.dynamics.reversals import convex_around_zero
from tests.support.oracle import PAPER, TRUTHS, evaluate, number, real
from tests.support.session import analysis

POINTS = [mp.mpf(text) for text in ("-700", "-31.7", "-3.2", "-1", "-0.4", "0", "0.3", "1", "1.5", "2.6", "30.1", "600")]


DIGITS = mp.mpf(10) ** -25


def same(left, right, points=POINTS, tolerance=DIGITS) -> None:
    """Two functions agree at every point, relatively where they are large, absolutely where they are small."""
    with mp.workdps(700):
        for x in points:
            a, b = left(x), right(x)
            assert abs(a - b) <= tolerance * max(abs(b), mp.mpf(10) ** -300), (f"at {mp.nstr(x, 6)}: {mp.nstr(a)} {mp.nstr(b)}")


def meaning(loss: Loss):
    return lambda x: evaluate(loss.formula, x, loss.parameters)


def test_the_six_of_the_paper_and_the_perceptron_are_there() -> None:
    assert {*PAPER, "perceptron"} <= set(LOSSES)
    assert len(LOSSES) >= 45


@pytest.mark.parametrize("name", LOSSES)
def test_every_entry_says_what_the_literature_says(name: str) -> None:
    loss = LOSSES[name]
    assert loss.name == name
    assert loss.reference.strip()
    assert all(isinstance(value, Fraction) for value in loss.parameters.values())
    if name in TRUTHS:
        same(meaning(loss), TRUTHS[name].f)


@pytest.mark.parametrize("name", LOSSES)
def test_printing_and_parsing_is_the_identity(name: str) -> None:
    loss = LOSSES[name]
    again = parse(loss.formula, loss.parameters)
    assert again.formula == loss.formula
    assert again.f == loss.f
    same(meaning(again), meaning(loss))


def test_no_two_names_are_one_function() -> None:
    """Equal functions are aliases: any two entries differ somewhere on a grid."""
    with mp.workdps(30):
        values = {name: tuple(mp.nstr(meaning(loss)(mp.mpf(k) / 3), 15) for k in range(-12, 13)) for name, loss in LOSSES.items()}
    assert len(set(values.values())) == len(values)


@pytest.mark.parametrize(
    ("alias", "text"),
    [("dpo", "log(1+exp(-x))"), ("slic", "max(0,1-x)"), ("ipo", "(x-1)**2"), ("ipo-tau", "(x-1/2)**2"),
     ("trl-ipo", "(x-1/2)**2"), ("squared_hinge", "max(0,1-x)**2"),
     ("exo-pair", "sigmoid(x)*log(sigmoid(x)/0.999) + sigmoid(-x)*log(sigmoid(-x)/0.001)"),
     ("lrml", "softplus(-x)*sigmoid(-20*x) + exp(-x)*sigmoid(20*x)")],
)
def test_aliases(alias: str, text: str) -> None:
    same(meaning(find_loss(alias)), lambda x: evaluate(text, x))


def test_parameters_are_put_in_exactly() -> None:
    focal = find_loss("focal", {"gamma": 3})
    same(meaning(focal), lambda x: (1 + mp.exp(x)) ** -3 * mp.log1p(mp.exp(-x)))
    assert find_loss("pinball", {"tau": "0.1"}).parameters["tau"] == Fraction(1, 10)
    assert find_loss("exp(-a*x)", {"a": "1/3"}).parameters == {"a": Fraction(1, 3)}


def test_variants_are_entries_equal_to_their_formulas() -> None:
    """P8 at e = 1/10: (1-e) L(x) + e L(-x) = L + e x, and ((1-e) L(x) - e L(-x))/(1-2e) = L - x/8: L(-x) = L(x) + x."""
    same(meaning(LOSSES["cdpo"]), lambda x: mp.log1p(mp.exp(-x)) + x / 10)
    same(meaning(LOSSES["robust_dpo"]), lambda x: mp.log1p(mp.exp(-x)) - x / 8)
    same(meaning(LOSSES["offset_dpo"]), lambda x: mp.log1p(mp.exp(1 - x)))
    same(meaning(LOSSES["ipo_tau"]), lambda x: (x - mp.mpf(1) / 2) ** 2)
    same(meaning(LOSSES["half_exponential"]), lambda x: mp.exp(-x / 2))
    same(meaning(find_loss("cdpo", {"eps": "1/5"})), lambda x: mp.log1p(mp.exp(-x)) + x / 5)
    same(meaning(find_loss("robust_dpo", {"eps": "1/5"})), lambda x: mp.log1p(mp.exp(-x)) - x / 3)
    same(meaning(find_loss("offset_dpo", {"delta": 2})), lambda x: mp.log1p(mp.exp(2 - x)))


def test_the_parameters_of_the_theory_have_its_defaults() -> None:
    """THEORY section 4, what stands there in brackets (and h, which it fixes)."""
    stated = {"gamma_hinge": "gamma=1/2", "huberised_hinge": "h=1/2", "dwd": "q=1", "lum": "a=1 c=0", "linex": "a=1",
              "alpha_loss": "alpha=2", "focal": "gamma=2", "poly1": "eps=1", "huber": "delta=2", "pinball": "tau=1/4",
              "cdpo": "eps=0.1", "robust_dpo": "eps=0.1", "exo": "eps=0.001", "discopop": "tau=0.05",
              "offset_dpo": "delta=1", "focal_po": "gamma=1/20", "basu": "lam=-1/4", "dpd": "g=1/2",
              "hinge_power": "k=3/2"}  # fmt: skip
    for name, loss in LOSSES.items():
        pairs = (text.split("=") for text in stated.get(name, "").split())
        assert loss.parameters == {key: Fraction(value) for key, value in pairs}, name


# Identities of the literature for the entries that THEORY only describes.


def test_dwd_and_lum() -> None:
    """Liu, Zhang, Wu 2011: LUM is generalised DWD at a = c = q, tends to the hinge as c grows, and at c = 0 to e^-x."""
    same(meaning(LOSSES["dwd"]), lambda x: 1 - x if x <= 0.5 else 1 / (4 * x))
    same(meaning(LOSSES["lum"]), lambda x: 1 - x if x < 0 else 1 / (1 + x))
    for q in (Fraction(1, 2), Fraction(1), Fraction(3)):
        same(meaning(find_loss("dwd", {"q": q})), meaning(find_loss("lum", {"a": q, "c": q})))
    with mp.workdps(30):
        for x in (mp.mpf(k) / 4 for k in range(-12, 13)):
            hinge = max(mp.mpf(0), 1 - x)
            assert abs(meaning(find_loss("lum", {"c": 10**8}))(x) - hinge) < 1e-7
            soft = 1 - x if x < 0 else mp.exp(-x)
            assert abs(meaning(find_loss("lum", {"a": 10**8}))(x) - soft) < 1e-7
            assert abs(meaning(LOSSES["huberised_exponential"])(x) - soft) < 1e-25


def test_the_alpha_loss_joins_the_exponential_the_logistic_and_the_sigmoid() -> None:
    """Sypherd et al. 2019: alpha = 1/2, alpha -> 1, alpha -> infinity; E[f'] at 2 is -sigma(x)^(1/2) sigma(-x)."""
    same(meaning(find_loss("alpha_loss", {"alpha": "1/2"})), lambda x: mp.exp(-x))
    same(meaning(LOSSES["alpha_loss"]), lambda x: 2 * (1 - mp.sqrt(1 / (1 + mp.exp(-x)))))
    near, far = (meaning(find_loss("alpha_loss", {"alpha": a})) for a in ("1.000000000001", 10**12))
    with mp.workdps(40):
        for x in (mp.mpf(k) / 2 for k in range(-10, 11)):
            assert abs(near(x) - mp.log1p(mp.exp(-x))) < 1e-9
            assert abs(far(x) - 1 / (1 + mp.exp(x))) < 1e-9


def test_the_spherical_score() -> None:
    """The score of a forecast q for an outcome is q/|(q, 1-q)|: with q = sigma(x), 1 less that; proper, so x* = logit."""
    f = meaning(LOSSES["spherical"])

    def score(x):
        q, rest = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
        return rest**2 / (n := mp.sqrt(q**2 + rest**2)) / (n + q)  # 1 - q/n without cancellation

    same(f, score)
    same(f, lambda x: meaning(LOSSES["alpha_loss"])(2 * x) / 2)
    for p in (mp.mpf("0.3"), mp.mpf("0.8")):
        best = mp.findroot(lambda x, p=p: mp.diff(lambda y: p * f(y) + (1 - p) * f(-y), x), mp.mpf("0.1"))
        assert abs(best - mp.log(p / (1 - p))) < 1e-10


def test_psi_learning() -> None:
    """Shen et al. 2003: 2 for x < 0, 2(1-x) on [0, 1), then 0; at p > 1/2 the least of C_p is 2(1-p), reached at x = 1."""
    f = meaning(LOSSES["psi_learning"])
    same(f, lambda x: mp.mpf(2) if x < 0 else max(mp.mpf(0), 2 * (1 - x)))
    p = mp.mpf("0.6")
    risk = [(p * f(x) + (1 - p) * f(-x), x > 0) for x in (mp.mpf(k) / 8 for k in range(-24, 25))]
    assert abs(min(risk)[0] - 2 * (1 - p)) < 1e-14
    assert abs(min(value for value, right in risk if not right) - 2 * p) < 1e-14


# Identities of THEORY section 4 for the four lines that join others. phi is the golden ratio.


def plus(loss, number):
    return lambda x: meaning(loss)(x) + number


def test_basu_joins_kliep_lsif_and_the_half_exponential() -> None:
    same(meaning(find_loss("basu", {"lam": "-1/2"})), lambda x: 4 * mp.exp(-x / 2))
    same(meaning(find_loss("basu", {"lam": 1})), meaning(LOSSES["lsif"]))
    same(meaning(find_loss("basu", {"lam": "-3/4"})), meaning(LOSSES["basu"]))
    for lam in (Fraction(1, 3), Fraction(2), Fraction(-2, 5)):
        same(meaning(find_loss("basu", {"lam": lam})), meaning(find_loss("basu", {"lam": -1 - lam})))
    with mp.workdps(40):
        near = plus(find_loss("basu", {"lam": "1/1000000000000"}), 10**12)
        assert max(abs(near(x) - (mp.exp(-x) - x)) for x in map(mp.mpf, range(-4, 5))) < 1e-9


def test_dpd_joins_savage_and_the_logistic() -> None:
    same(plus(find_loss("dpd", {"g": 1}), 1), lambda x: 2 / (1 + mp.exp(x)) ** 2, tolerance=mp.mpf(10) ** -20)
    with mp.workdps(60):
        near = plus(find_loss("dpd", {"g": "1/1000000000000"}), 10**12)
        assert max(abs(near(x) - mp.log1p(mp.exp(-x))) for x in map(mp.mpf, range(-6, 7))) < 1e-9
        s, g = 1 / (1 + mp.exp(mp.mpf("-0.7"))), mp.mpf(1) / 3
        slope = -(1 + g) * s * (1 - s) ** 2 * (s ** (g - 1) + (1 - s) ** (g - 1))
        assert abs(mp.diff(meaning(find_loss("dpd", {"g": "1/3"})), mp.mpf("0.7")) - slope) < 1e-25


@pytest.mark.parametrize(("g", "start"), [("1/2", "-2*log((1+sqrt(5))/2)"), ("1", "-log(2)"), ("2", "-log(2)")])
def test_where_dpd_is_convex(g: str, start: str) -> None:
    f = meaning(find_loss("dpd", {"g": g}))
    with mp.workdps(40):
        edge = number(start)
        assert abs(mp.diff(f, edge, 2)) < 1e-20
        assert mp.diff(f, edge - mp.mpf("0.01"), 2) < 0 < min(mp.diff(f, edge + mp.mpf(k) / 100, 2) for k in range(1, 2000, 37))
    low, high = convex_around_zero(find_loss("dpd", {"g": g}))
    assert real(low.low) - 1e-12 <= edge <= real(low.high) + 1e-12
    assert high.low is None or high.low > 20


def test_dpd_has_a_second_concave_interval_from_some_g_between_4_and_5() -> None:
    dips = [min(mp.diff(meaning(find_loss("dpd", {"g": g})), mp.mpf(k) / 10, 2) for k in range(0, 60)) for g in ("4", "5")]
    assert dips[1] < 0 < dips[0]
    right = [convex_around_zero(find_loss("dpd", {"g": g}))[1] for g in ("4", "5")]
    assert right[0].low is None or right[0].low > 20
    assert 0 < right[1].low < 2


def test_cauchit_is_convex_from_about_minus_0_43() -> None:
    """f' = -F'/F, so f'' has the sign of F'^2 - F F'' = (1/pi + 2 x F) / (pi (1+x^2)^2): zero where 2 pi x F(x) = -1."""
    with mp.workdps(30):
        edge = mp.findroot(lambda x: 2 * x * (mp.pi / 2 + mp.atan(x)) + 1, mp.mpf("-0.4"))
        assert abs(edge + mp.mpf("0.428978")) < 1e-6
    low, _ = convex_around_zero(LOSSES["cauchit"])
    assert real(low.low) - 1e-12 <= edge <= real(low.high) + 1e-12


@pytest.mark.parametrize("k", ["3/2", "5/4", "2", "5/2", "3", "4", "7/3"])
def test_the_link_of_a_hinge_power(k: str) -> None:
    found, power = analyze(find_loss("hinge_power", {"k": k})), Fraction(k)
    assert found.strength.value == pytest.approx(abs(float(power) - 1), rel=1e-15)
    assert found.link.target_at_one == "1"
    for p in (mp.mpf("0.55"), mp.mpf("0.8"), mp.mpf("0.97")):
        expected = mp.tanh(mp.log(p / (1 - p)) / (2 * (real(power) - 1)))
        assert abs(evaluate(found.link.formula, mp.nan, {"p": p}) - expected) < 1e-12


# Which of the four are convex, and bounded below, at other parameters; c = 1 is that of every basu and dpd.
OTHERS = {
    **{("basu", lam): (convex, convex) for lam, convex in (("-1/4", True), ("-1/2", True), ("1", False), ("-3/4", True), ("1/2", False), ("2", False))},
    **{("dpd", g): (False, True) for g in ("1/2", "1", "2", "3", "4", "5")},
    **{("hinge_power", k): (k not in ("1/2",), True) for k in ("1/2", "1", "3/2", "2", "3")},
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), OTHERS)
def test_every_claim_is_decided_rightly_at_other_parameters(name: str, value: str) -> None:
    convex, bounded = OTHERS[name, value]
    loss = find_loss(name, dict.fromkeys(LOSSES[name].parameters, value))
    found = analyze(loss).claims
    yes = {"total": True, "convex": convex, "strictly_convex": convex and name == "basu", "strongly_convex": False,
           "lipschitz": name == "dpd" or (name == "hinge_power" and value == "1"), "bounded_below": bounded, "monotone_decreasing": True,
           "differentiable_at_zero": True, "bayes_consistent": True, "bradley_terry_exact": name != "hinge_power",
           "smooth": name == "dpd" or (name == "hinge_power" and value == "2")}  # fmt: skip
    for claim, certificate in found.items():
        assert certificate.verdict is (Verdict.PROVED if yes[claim] else Verdict.REFUTED), (claim, certificate.because)
        assert accepted(loss.f.primitive(), certificate).verdict is certificate.verdict
    if yes["bradley_terry_exact"]:
        assert found["bradley_terry_exact"].value["exact"] == "1"


# True claims of the entries that the oracle's table does not hold, by hand. A bounded, not constant f is not convex.
# -f' is sigma(x)^(1/2) sigma(-x) for the alpha-loss (so f'(-x) = e^(x/2) f'(x), c = 2), (1+x)^-2 and 1/(4x^2) for the
# right of LUM and DWD, 1 on their left.
FLAT = "convex lipschitz smooth bounded_below monotone_decreasing differentiable_at_zero bayes_consistent"
PROPER = FLAT.removeprefix("convex ") + " bradley_terry_exact"
HOLDS = {
    "psi_learning": "lipschitz bounded_below monotone_decreasing bayes_consistent", "dwd": FLAT, "lum": FLAT,
    "alpha_loss": PROPER, "spherical": PROPER,
    "exponential_linear": "convex monotone_decreasing differentiable_at_zero bayes_consistent bradley_terry_exact",
}
EXACTNESS = {"alpha_loss": "2", "spherical": "1", "exponential_linear": "1"}
STRENGTHS = {"psi_learning": None, "dwd": "0", "lum": "1", "alpha_loss": "1/4", "spherical": "1/2", "exponential_linear": "1/2"}


def test_every_entry_is_in_one_of_the_two_tables_of_truth() -> None:
    assert set(LOSSES) == set(TRUTHS) | set(HOLDS)


@pytest.mark.parametrize("name", HOLDS)
def test_every_verdict_on_them_is_right(name: str) -> None:
    found = analysis(name)
    for claim, certificate in found.claims.items():
        right = Verdict.PROVED if claim == "total" or claim in HOLDS[name].split() else Verdict.REFUTED
        assert certificate.verdict is right, (claim, certificate.because)
    exact = found.claims["bradley_terry_exact"].value
    assert (exact and exact["exact"]) == EXACTNESS.get(name)
    assert found.strength.exact == STRENGTHS[name]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"logstic.*logistic"):
        find_loss("logstic")
    with pytest.raises(InputError, match="gama"):
        find_loss("focal", {"gama": 2})
    with pytest.raises(InputError, match="gamma"):
        find_loss("logistic", {"gamma": 2})
    with pytest.raises(InputError, match=r"\ba\b"):
        find_loss("exp(-a*x)")


def test_a_misspelt_name_is_led_to_one_that_can_be_used() -> None:
    with pytest.raises(InputError, match=r"unknown loss 'dop';.*; did you mean 'dpo'\?$"):  # not dpop, which is no f
        find_loss("dop")


def test_a_name_of_trl_is_led_to_what_it_means_there() -> None:
    # TRL's exo_pair is EXO, its robust is robust DPO, its sigmoid_norm DPO on the averaged margin (see test_trl_losses).
    assert find_loss("exo_pair") == find_loss("exo")
    with pytest.raises(InputError, match=r"; what TRL calls so is dpo on the length-averaged margin$"):
        find_loss("sigmoid_norm")
    with pytest.raises(InputError, match=r"; what TRL calls so is robust_dpo"):
        find_loss("robust")


def cases(name: str) -> set[str]:
    """A name as people write it."""
    return {name, name.upper(), name.title(), name.replace("_", "-"), name.replace("-", "_").upper(), name.replace("_", " ").title(), f" {name} "}


@pytest.mark.parametrize("name", [*LOSSES, *ALIASES])
def test_a_name_or_alias_is_found_in_any_case(name: str) -> None:
    meant = LOSSES[ALIASES.get(name, name)]
    for typed in cases(name):
        assert find_loss(typed) == LOSSES[typed] == meant
        assert typed in LOSSES
        # What else hangs on the name: TRL's IPO is trained and matched on the length-averaged margin.
        assert (typed in AVERAGED) == (name == "trl-ipo")
        assert (convention(typed) is None) == (convention(name) is None)


def test_the_margin_of_trl_s_ipo_is_averaged_however_it_is_typed() -> None:
    typed, plain = match_beta("DPO", "TRL_IPO", 0.1, 150), match_beta("dpo", "trl-ipo", 0.1, 150)
    assert replace(typed, source=plain.source, target=plain.target, convention="") == replace(plain, convention="")
    assert "rho averaged over tokens" in typed.convention
    assert match_beta("DPO", "Trl-IPO", 0.1).refusal is not None


def test_the_table_is_a_mapping_of_the_names_that_knows_the_aliases() -> None:
    assert len(LOSSES) == len({*LOSSES}) == 53
    assert not {*ALIASES} & {*LOSSES}
    assert LOSSES["dpo"] is LOSSES["DPO"] is LOSSES["logistic"]
    assert LOSSES.get("no such loss") is None
    assert {**LOSSES}.keys() == LOSSES.keys()
    for wrong, hint in (("logstic", "; did you mean 'logistic'?"), ("Dop", "; did you mean 'dpo'?"), ("robust", "what TRL calls so is robust_dpo")):
        assert wrong not in LOSSES
        for kind in (KeyError, InputError):
            with pytest.raises(kind) as caught:
                LOSSES[wrong]
            assert str(caught.value).startswith(f"unknown loss {wrong!r}; allowed: a name or alias")
            assert hint in str(caught.value)
    for wrong in (3, None, ("dpo",), ["trl-ipo"]):
        for table in (LOSSES, ALIASES, AVERAGED):
            assert wrong not in table


def test_parameters_go_to_the_losses_that_have_them_however_they_are_typed() -> None:
    found = find_losses(["Focal", "e^-(gamma*x)", "DPO"], {"gamma": "3"})
    assert [(loss.f, own) for loss, own in found] == [
        (find_loss("focal", {"gamma": 3}).f, {"gamma": "3"}), (parse("exp(-3*x)").f, {"gamma": "3"}), (LOSSES["logistic"].f, {})]  # fmt: skip


def test_a_loss_prints_its_name_formula_and_parameters() -> None:
    assert str(LOSSES["hinge"]) == "hinge: f(x) = max(0, 1 - x), x = beta * rho"
    assert str(parse("max(0,1-x)^2")) == "f(x) = max(0, 1 - x)**2, x = beta * rho"
    assert str(find_loss("focal", {"gamma": "1/2"})) == "focal: f(x) = -sigmoid(-x)**gamma*log(sigmoid(x)), x = beta * rho, gamma = 1/2"
    assert repr([LOSSES["hinge"], parse("exp(-a*x)", {"a": 2})]) == "[<Loss hinge: max(0, 1 - x)>, <Loss exp(-a*x), a = 2>]"
