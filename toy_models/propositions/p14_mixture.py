"""P14: descent on the offline regulariser can raise the KL for a while in a mixture of Gaussians."""

__all__ = ["mixture_drift"]

from toy_models.descent import Trace, descend
from toy_models.mixture import GaussianMixture

# The facts of P14 for a Gaussian behaviour policy, and for the reference as behaviour policy.
RISES = {"kl dips first": True, "kl ends above its start": True, "regularizer falls at every step": True}
FALLS = {"kl dips first": True, "kl ends above its start": False, "regularizer falls at every step": True}


def mixture_drift(behaviour: tuple[float, float] | str, *,
                  steps: int = 400) -> tuple[Trace, dict[str, bool], dict[str, bool]]:  # fmt: skip
    """Return the trace, its measured facts and those of the theory, for one behaviour policy.

    The specification is this project's own (the paper's mixture is not known): pi_ref = N(-2, 1)/2 + N(2, 1)/2, start
    means (-2, 2) and logits (3, 0), rate 0.05, 400 steps. With mu = N(2, 1) or N(2, 1/2) the KL dips, then rises well
    above its start while the regulariser falls; the rise is transient, for pi_ref stays the only optimum. With
    mu = pi_ref and on-policy the KL falls, though the on-policy regulariser itself rises first.

    >>> _, measured, theory = mixture_drift("reference", steps=20)
    >>> measured == theory
    True
    """
    mixture = GaussianMixture(behaviour=behaviour)
    trace = descend(mixture, mixture.start([-2.0, 2.0], [3.0, 0.0]), lr=0.05, steps=steps)
    measured = {
        "kl dips first": bool(trace.kl[1] < trace.kl[0]),
        "kl ends above its start": bool(trace.kl[-1] > trace.kl[0]),
        "regularizer falls at every step": bool((trace.regularizer.diff() < 0).all()),
    }
    theory = RISES if isinstance(behaviour, tuple) else FALLS
    return trace, measured, theory if behaviour != "policy" else {**FALLS, "regularizer falls at every step": False}
