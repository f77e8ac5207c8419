"""Figures of losses: values in, axes out; the only module of the package that imports matplotlib."""

__all__ = ["colour"]

# Okabe and Ito's colour-blind safe palette, one colour per loss across the whole book.
_PALETTE = {"logistic": "#0072B2", "hinge": "#D55E00", "squared": "#009E73", "exponential": "#CC79A7",
            "truncated_squared": "#E69F00", "savage": "#56B4E9"}  # fmt: skip


def colour(name: str) -> str:
    """Return the hex colour of a catalogue loss, the same in every figure; losses beyond the palette are grey.

    >>> colour("logistic")
    '#0072B2'
    """
    return _PALETTE.get(name, "#555555")
