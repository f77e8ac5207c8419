"""How the log-ratio of a response's tokens becomes that of the response: summed, or averaged over its length."""

__all__ = ["MARGINS", "margin_of_tokens"]

from typing import TYPE_CHECKING

from gpo_theory.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

MARGINS = ("sum", "mean")


def margin_of_tokens(sums: "Tensor", lengths: "Tensor", margin: str) -> "Tensor":
    """Return the chosen aggregation of per-token sums over responses of `lengths` tokens: `"sum"` or `"mean"`."""
    if margin not in MARGINS:
        raise InputError(f"margin={margin!r}; allowed: {', '.join(MARGINS)}{nearest(margin, MARGINS)}")
    return sums / lengths if margin == "mean" else sums
