"""The catalogue: each distinct loss is one line of data, equal ones are aliases, variants are transforms."""

__all__ = ["ALIASES", "LOSSES", "find_loss", "find_losses"]

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeVar

from gpo_theory.errors import InputError, ParseError, nearest
from gpo_theory.loss import Loss, parse
from gpo_theory.methods import METHODS, refusal, spelled
from gpo_theory.transforms import robust, scaled, shifted, soft_label

# name: (f(x), parameters at their defaults, source)
_TABLE: dict[str, tuple[str, dict[str, str], str]] = {
    "logistic": ("log(1+exp(-x))", {}, "Rafailov et al. 2023, arXiv 2305.18290 (DPO)"),
    "hinge": ("max(0, 1-x)", {}, "Zhao et al. 2023, arXiv 2305.10425 (SLiC)"),
    "squared": ("(x-1)**2", {}, "Azar et al. 2023, arXiv 2310.12036 (IPO)"),
    "exponential": ("exp(-x)", {}, "Tang et al. 2024, arXiv 2402.05749, Table 1"),
    "truncated_squared": ("max(0, 1-x)**2", {}, "Tang et al. 2024, arXiv 2402.05749, Table 1"),
    "savage": ("1/(1+exp(x))**2", {}, "Tang et al. 2024, arXiv 2402.05749, Table 1"),
    "perceptron": ("max(0, -x)", {}, "Rosenblatt 1958; fails calibration"),
    "logitboost": ("log(1+exp(-2*x))", {}, "Friedman, Hastie, Tibshirani 2000"),
    "cubed_hinge": ("max(0, 1-x)**3", {}, "Janocha and Czarnecki 2017, arXiv 1702.05659"),
    "smooth_hinge": ("where(x <= 0, 1/2 - x, max(0, 1-x)**2/2)", {}, "Rennie and Srebro 2005"),
    "gamma_hinge": ("where(x < 1-gamma, 1-x-gamma/2, max(0, 1-x)**2/(2*gamma))", {"gamma": "1/2"},
                    "Shalev-Shwartz and Zhang 2013"),
    "modified_huber": ("where(x < -1, -4*x, max(0, 1-x)**2)", {}, "Zhang 2004"),
    "huberised_hinge": ("where(x < 1-h, 1-x, max(0, 1+h-x)**2/(4*h))", {"h": "1/2"}, "Chapelle 2007"),
    "tangent": ("(2*atan(x)-1)**2", {}, "Masnadi-Shirazi, Mahadevan, Vasconcelos 2010"),
    "sigmoid": ("1/(1+exp(x))", {}, "Mason et al. 2000"),
    "unhinged": ("1-x", {}, "van Rooyen, Menon, Williamson 2015"),
    "ramp": ("min(2, max(0, 1-x))", {}, "Collobert et al. 2006"),
    "psi_learning": ("2*min(1, max(0, 1-x))", {}, "Shen, Tseng, Zhang, Wong 2003"),
    "dwd": ("where(x <= q/(1+q), 1-x, (q/((1+q)*x))**q/(1+q))", {"q": "1"},
            "Marron, Todd, Ahn 2007; Wang and Zou 2018 for q"),
    "lum": ("where(x < c/(1+c), 1-x, (a/((1+c)*x-c+a))**a/(1+c))", {"a": "1", "c": "0"}, "Liu, Zhang, Wu 2011"),
    "cauchy": ("log(1+(1-x)**2)", {}, "robust regression's Cauchy loss of the residual 1-x"),
    "welsch": ("1-exp(-(1-x)**2/2)", {}, "robust regression's Welsch loss of the residual 1-x"),
    "linex": ("exp(a*(1-x)) - a*(1-x) - 1", {"a": "1"}, "Varian 1975"),
    "alpha_loss": ("alpha/(alpha-1)*(1-(1+exp(-x))**(1/alpha-1))", {"alpha": "2"},
                   "Sypherd et al. 2019, arXiv 1906.02314"),
    "spherical": ("1 - 1/sqrt(1+exp(-2*x))", {}, "spherical score with logit link"),
    "focal": ("-sigmoid(-x)**gamma*log(sigmoid(x))", {"gamma": "2"}, "Lin et al. 2017, arXiv 1708.02002"),
    "poly1": ("log(1+exp(-x)) + eps*sigmoid(-x)", {"eps": "1"}, "Leng et al. 2022, arXiv 2204.12511"),
    "canonical_boosting": ("(sqrt(4+x**2)-x)/2", {}, "Buja, Stuetzle, Shen 2005"),
    "sqrt_hinge": ("sqrt(1+x**2)-x", {}, "smooth approximation of 2 max(0,-x)"),
    "arctan": ("1/2 - atan(x)/pi", {}, "Cauchy distribution function of -x"),
    "probit": ("-log_ndtr(x)", {}, "Bliss 1934"),
    "erf_loss": ("erfc(x)/2", {}, "normal distribution function of -sqrt(2) x"),
    "log_cosh": ("log(cosh(1-x))", {}, "log-cosh of the residual 1-x"),
    "huber": ("where(abs(1-x) <= delta, (1-x)**2/2, delta*(abs(1-x)-delta/2))", {"delta": "2"}, "Huber 1964"),
    "pinball": ("max(1-x, tau*(x-1))", {"tau": "1/4"}, "Huang, Shi, Suykens 2014"),
    "huberised_exponential": ("where(x < 0, 1-x, exp(-x))", {}, "lower extremal loss of proposition P5"),
    "exponential_linear": ("where(x < 0, exp(-x), 1-x)", {}, "upper extremal loss of proposition P5"),
    "exo": ("sigmoid(x)*log(sigmoid(x)/(1-eps)) + sigmoid(-x)*log(sigmoid(-x)/eps)",
            {"eps": "0.001"}, "Ji et al. 2024, arXiv 2402.00856 (EXO, pairs)"),
    "discopop": ("log(1+exp(-x))*(1-sigmoid(x/tau)) + exp(-x)*sigmoid(x/tau)", {"tau": "0.05"},
                 "Lu et al. 2024, arXiv 2406.08414 (LRML)"),
    "cell": ("(exp(-x)+log(1+exp(-x)))/2", {}, "average of the exponential and the logistic loss"),
    "spo": ("-x*sigmoid(-x)", {}, "Self Preference Optimization, applied to x = beta rho"),
    "focal_po": ("-sigmoid(x)**gamma*log(sigmoid(x))", {"gamma": "1/20"}, "FocalPO, arXiv 2501.06645"),
    "kliep": ("exp(-x)-x", {}, "Bregman preference optimisation, arXiv 2505.19601"),
    "lsif": ("exp(-2*x)/2-exp(x)", {}, "Bregman preference optimisation, arXiv 2505.19601"),
    "basu": ("exp(-(1+lam)*x)/(1+lam) - exp(lam*x)/lam", {"lam": "-1/4"},
             "Bregman preference optimisation, arXiv 2505.19601, with the power family of Basu et al. 1998"),
    "dpd": ("-(1+g)/g*sigmoid(x)**g + sigmoid(x)**(1+g) + sigmoid(-x)**(1+g)", {"g": "1/2"},
            "density power divergence of Basu et al. 1998 at sigma(x)"),
    "cauchit": ("-log(1/2 + atan(x)/pi)", {}, "log-likelihood of the cauchit link; Koenker and Yoon 2009"),
    "hinge_power": ("max(0, 1-x)**k", {"k": "3/2"}, "powers of the hinge; Lin 2004"),
}  # fmt: skip

_LOSSES: dict[str, Loss] = {
    name: parse(text, parameters, name=name, reference=source) for name, (text, parameters, source) in _TABLE.items()
}
# name: (the transform that makes it, source)
_VARIANTS: dict[str, tuple[Loss, str]] = {
    "ipo_tau": (shifted(_LOSSES["squared"], "-1/2"), "Azar et al. 2023, arXiv 2310.12036 (IPO, x = tau rho)"),
    "cdpo": (soft_label(_LOSSES["logistic"], "0.1", "eps"), "Mitchell 2023, conservative DPO"),
    "robust_dpo": (robust(_LOSSES["logistic"], "0.1", "eps"), "Chowdhury et al. 2024, arXiv 2403.00409"),
    "offset_dpo": (shifted(_LOSSES["logistic"], 1, "delta"), "Amini et al. 2024, arXiv 2402.10571; SimPO's margin"),
    "half_exponential": (scaled(_LOSSES["exponential"], "1/2"), "the exponential loss made BT-exact with c = 1"),
}
_LOSSES |= {name: replace(loss, name=name, reference=source) for name, (loss, source) in _VARIANTS.items()}

# Names in TRL whose nearest spelling here would be another loss; the text follows the error for an unknown name.
ELSEWHERE = {"sigmoid_norm": "; what TRL calls so is dpo on the length-averaged margin",
             "robust": "; what TRL calls so is robust_dpo, with eps for label_smoothing"}  # fmt: skip


V = TypeVar("V")


class UnknownLossError(InputError, KeyError):
    """A word is no name or alias of a loss."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotation marks


class Named(Mapping[str, V]):
    """A table by name, in which a name is also found in other case, and with _ for hyphens or the reverse.

    >>> Named({"trl-ipo": 1})["TRL_IPO"]
    1
    """

    def __init__(self, table: Mapping[str, V]) -> None:
        self.table = {**table}
        self.names = {spelled(name): name for name in table}

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> V:
        if not isinstance(name, str):  # a list from a configuration, too, is no name
            raise KeyError(name)
        return self.table[name if name in self.table else self.names.get(spelled(name), name)]


ALIASES: Mapping[str, str] = Named({
    "dpo": "logistic",
    "slic": "hinge",
    "ipo": "squared",
    "ipo-tau": "ipo_tau",
    "trl-ipo": "ipo_tau",
    "squared_hinge": "truncated_squared",
    "exo-pair": "exo",
    "exo_pair": "exo",
    "lrml": "discopop",
})
# The names that also fix the aggregation of the margin, and how.
AVERAGED: Mapping[str, str] = Named({"trl-ipo": "rho averaged over tokens"})


class _Losses(Named[Loss]):
    """The losses by their names, which it iterates over; a lookup, and so `in`, knows the aliases too."""

    def __getitem__(self, name: str) -> Loss:
        try:
            return super().__getitem__(ALIASES.get(name, name))
        except KeyError:
            raise UnknownLossError(_unknown(str(name), "a name or alias that `gpo losses` lists")) from None


LOSSES: Mapping[str, Loss] = _Losses(_LOSSES)


def _unknown(text: str, allowed: str) -> str:
    hint = nearest(spelled(text), [*LOSSES, *ALIASES]) or nearest(spelled(text), METHODS)
    return f"unknown loss {text!r}; allowed: {allowed}{ELSEWHERE.get(spelled(text), hint)}"


def find_loss(text: str, parameters: Mapping[str, Fraction | int | str] | None = None) -> Loss:
    """Return the loss that `text` means: a catalogue name or an alias, in any case, or else a formula in x.

    Raises InputError with the nearest name for a word that is none of these, and with the reason for the name of a
    method whose loss is not of the form f(beta rho).

    >>> find_loss("DPO").name, find_loss("max(0,1-x)^2").formula
    ('logistic', 'max(0, 1 - x)**2')
    """
    if not isinstance(text, str):
        raise InputError(f"a loss is a name, an alias or a formula in x, as text, not {type(text).__name__}")
    if text in LOSSES:
        return LOSSES[text].with_parameters(parameters or {})
    reason = refusal(text)
    if reason is not None:
        raise InputError(reason)
    try:
        return parse(text, parameters)
    except ParseError as error:
        if text.replace("_", "").replace("-", "").isalnum() and not text[:1].isdigit():
            allowed = "a formula in x, or a name or alias that `gpo losses` lists"
            raise InputError(_unknown(text, allowed)) from None
        raise error


def find_losses(texts: Sequence[str], values: Mapping[str, str]) -> list[tuple[Loss, dict[str, str]]]:
    """Return each loss of `texts` with those of the parameter values that it has a parameter for, and these values.

    Raises InputError for a value that no loss has a parameter for.

    >>> [(loss.name, own) for loss, own in find_losses(["dpo", "exp(-a*x)"], {"a": "2"})]
    [('logistic', {}), ('exp(-a*x)', {'a': '2'})]
    """
    found = []
    for text in texts:
        words = LOSSES[text].parameters if text in LOSSES else re.findall(r"\b[A-Za-z]\w*", text)
        own = {word: values[word] for word in words if word in values}
        found.append((find_loss(text, own), own))
    for parameter in values:
        if not any(parameter in own for _, own in found):
            known = {name for loss, _ in found for name in loss.parameters}
            raise InputError(f"parameter {parameter!r}: none of the losses has it{nearest(parameter, known)}")
    return found
