"""Methods of preference optimisation whose loss is not a function f(beta rho) of the margin, each with the reason."""

__all__ = ["METHODS", "refusal", "spelled"]

# name: (why it is no f(beta rho), source). s is log pi_theta - log pi_ref, and rho = s(y_w) - s(y_l).
METHODS: dict[str, tuple[str, str]] = {
    "nca": ("absolute terms: beside s(y_w) it has log sigma(-s) of either response",
            "Chen et al. 2024, arXiv 2402.05369"),
    "bco": ("absolute terms: it classifies each response by s alone, against a running mean of the rewards",
            "Jung et al. 2024, arXiv 2404.04656"),
    "sppo": ("absolute terms: it regresses s(y_w) and s(y_l) one by one", "Wu et al. 2024, arXiv 2405.00675"),
    "apo_zero": ("absolute terms: it pushes s(y_w) up and s(y_l) down, each through its own sigmoid",
                 "D'Oosterlinck et al. 2024, arXiv 2408.06266"),
    "apo_down": ("absolute terms: beside rho it has a sigmoid of s(y_w)",
                 "D'Oosterlinck et al. 2024, arXiv 2408.06266"),
    "kto": ("absolute terms: it takes single responses, each against a KL estimated from the batch",
            "Ethayarajh et al. 2024, arXiv 2402.01306"),
    "cal_dpo": ("absolute terms: beside the logistic of rho it calibrates s(y_w) and s(y_l) to given values",
                "Xiao et al. 2024, arXiv 2412.14516"),
    "dpop": ("absolute terms: beside rho it punishes s(y_w) < 0", "Pal et al. 2024, arXiv 2402.13228"),
    "pro": ("absolute terms: beside rho it has a regulariser of the log-ratios of the responses one by one",
            "Guo et al. 2025, arXiv 2505.23316"),
    "expo": ("absolute terms: it regularises pi_theta itself, not through beta s, so it is no function of rho",
             "Hu et al. 2025, arXiv 2506.07492"),
    "chi_po": ("another link: log z is replaced by z + log z, z = pi_theta/pi_ref, so the margin is no longer rho",
               "Huang et al. 2024, arXiv 2407.13399"),
    "f_dpo": ("another link: log z is replaced by the derivative of a divergence, so the margin is no longer rho",
              "Wang et al. 2023, arXiv 2309.16240"),
    "mirror_po": ("another link: log z is replaced by the map of a mirror descent, so the margin is no longer rho",
                  "Alfano et al. 2024, arXiv 2411.06568"),
    "simpo": ("no reference: its margin is of length-averaged log pi_theta alone (the offset is `shifted`)",
              "Meng et al. 2024, arXiv 2405.14734"),
    "cpo": ("no reference: its margin is of log pi_theta alone, beside a likelihood term",
            "Xu et al. 2024, arXiv 2401.08417"),
    "orpo": ("no reference: it compares odds of pi_theta alone, beside a likelihood term",
             "Hong et al. 2024, arXiv 2403.07691"),
    "aot": ("batch coupling: it compares the sorted rewards of a batch", "Melnyk et al. 2024, arXiv 2406.05882"),
    "dr_dpo": ("batch coupling: -b log of the batch mean of sigma(x)^(1/b); for b > 1 its population minimisers are "
               "those of alpha_loss at alpha = b/(b-1)", "Wu et al. 2024, arXiv 2407.07880"),
    "wdpo": ("batch coupling: which labels it corrects and which losses it caps depends on the other pairs",
             "Liu et al. 2026, arXiv 2603.07211"),
    "holder_dpo": ("batch coupling: the weight of a pair depends on means over the batch",
                   "Fujisawa et al. 2025, arXiv 2505.17859"),
    "tr_dpo": ("a moving reference: pi_ref follows pi_theta by synchronisation or a moving average; its loss at a "
               "fixed pi_ref is logistic", "Gorbatovski et al. 2024, arXiv 2404.09656"),
    "tdpo": ("token level: beside rho it has the KL of every token's distribution",
             "Zeng et al. 2024, arXiv 2404.11999"),
    "wpo": ("policy-dependent weights: each pair is weighted by its probability under pi_theta",
            "Zhou et al. 2024, arXiv 2406.11827"),
    "online_dpo": ("a moving mu: the pairs are drawn from pi_theta as it changes; its loss on given pairs is logistic",
                   "Guo et al. 2024, arXiv 2402.04792"),
    "nash_md": ("a moving mu: the pairs are drawn from pi_theta and its mixture with pi_ref as they change",
                "Munos et al. 2023, arXiv 2312.00886"),
}  # fmt: skip
# Other spellings of some of them, those of TRL first, and a term that TRL adds to other losses.
IN_TRL = {
    **{f"{name}_{kind}": METHODS[name] for name, kind in (("nca", "pair"), ("bco", "pair"), ("kto", "pair"),
                                                          ("sppo", "hard"), ("aot", "pair"), ("aot", "unpaired"))},
    **dict.fromkeys(("hölder_dpo", "hoelder_dpo"), METHODS["holder_dpo"]),
    "sft": ("no margin: it is the likelihood of the chosen response alone", "Wang et al. 2024, arXiv 2411.10442"),
}  # fmt: skip


def refusal(text: str) -> str | None:
    """Return why the method that `text` names is not of the form f(beta rho), or None where it names none.

    Capitals, hyphens, dots and spaces are read as in the literature.

    >>> refusal("Cal-DPO")
    "'Cal-DPO' is not of the form f(beta rho): absolute terms: ... given values (Xiao et al. 2024, arXiv 2412.14516)"
    >>> refusal("logistic")
    """
    name = spelled(text)
    if name not in METHODS | IN_TRL:
        return None
    reason, source = (METHODS | IN_TRL)[name]
    return f"{text!r} is not of the form f(beta rho): {reason} ({source})"


def spelled(text: str) -> str:
    """Return a name as the tables spell it, in lower case and with _ for hyphens, dots and spaces.

    >>> spelled("Cal-DPO")
    'cal_dpo'
    """
    return "".join("_" if character in "-. " else character for character in text.strip().lower())
