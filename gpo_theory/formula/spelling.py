"""Other spellings of the grammar, each of one certain meaning: tables that the reader and the book's explorer share."""

__all__ = ["meaning", "respelled", "tree_of"]

import ast
import re
import warnings
from collections.abc import Sequence

from gpo_theory.formula.operations import OPERATIONS

# A function's other name, or a formula in its arguments u and v. Names are read in any case, but for one with a
# capital: Phi is the normal distribution function, phi its density.
SPELLINGS = {
    "ln": "log", "expit": "sigmoid", "sigma": "sigmoid", "arctan": "atan", "arcsinh": "asinh", "arsinh": "asinh",
    "fabs": "abs", "absolute": "abs", "maximum": "max", "minimum": "min",
    "relu": "max(0, u)", "logsigmoid": "log(sigmoid(u))", "log_sigmoid": "log(sigmoid(u))",
    "log_expit": "log(sigmoid(u))", "Phi": "erfc(-u*sqrt(1/2))/2", "ndtr": "erfc(-u*sqrt(1/2))/2",
    "norm.cdf": "erfc(-u*sqrt(1/2))/2", "norm.logcdf": "log_ndtr", "logaddexp": "log(exp(u) + exp(v))",
    "log2": "log(u)/log(2)", "log10": "log(u)/log(10)", "square": "u**2", "pow": "u**v", "power": "u**v",
}  # fmt: skip
# What stands before a function's name in a program, as in np.log and torch.nn.functional.relu.
PREFIXES = ("np", "numpy", "math", "torch", "F", "nn", "functional", "special", "scipy", "stats", "jnp", "jax", "tf",
            "sp", "sympy")  # fmt: skip
# Characters of a copied formula: one for one, and those that stand for a word of the grammar.
CHARACTERS = {
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014", "-"), "\u2223": "|",
    **dict.fromkeys("\u00d7\u00b7\u22c5\u2217\u2219", "*"), **dict.fromkeys("\u00f7\u2215\u2044", "/"),
    **dict.fromkeys("\t\n\r\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " "),
}  # fmt: skip
SIGNS = {"^": "**", "\u2264": "<=", "\u2265": ">=", "\u03c0": " pi ", "\u221a": " sqrt "}
RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b"
LOWERED = str.maketrans(RAISED, "0123456789+-")
ONE_FOR_ONE = {ord(character): plain for character, plain in CHARACTERS.items()}
_TOKEN = re.compile(rf"\s+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[A-Za-z_]\w*|[{RAISED}]+|\*\*|.", re.ASCII)
TOWER = re.compile(rf"[{RAISED}]\s*(\^|\*\*)")
_WORDS = {"and", "or", "not", "if", "else"}  # after which an operand stands


def meaning(name: str) -> str | None:
    """Return what a function's name means: a function of the grammar, a formula in u and v, or None.

    >>> meaning("LN"), meaning("relu"), meaning("lgo")
    ('log', 'max(0, u)', None)
    """
    for each in (name, name.lower()):
        if each in OPERATIONS:
            return each
        if each in SPELLINGS:
            return SPELLINGS[each]
    return None


def tree_of(text: str) -> ast.expr:
    """Return Python's tree of an expression, without its warnings; nothing is run.

    >>> type(tree_of("1 + x")).__name__
    'BinOp'
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode="eval").body


def respelled(text: str) -> tuple[str, Sequence[int]]:
    """Return a text with ^, bars and copied characters as the grammar writes them, and where each character stood.

    A power is rewritten before anything is parsed, so that it has a power's precedence: in Python ^ has the lowest.
    Raises ValueError, with the reason, for bars that do not pair up in one way.

    >>> respelled("1-|x|^2")[0]
    '1-abs(x)**2'
    """
    if tower := TOWER.search(text):
        raise ValueError(f"two powers at character {tower.start() + 1} follow each other; put one in parentheses")
    out: list[str] = []
    places: list[int] = []
    opened: list[str] = []
    operand = False  # whether what came before ends an operand: a bar after it closes, any other bar opens
    for match in _TOKEN.finditer(text.translate(ONE_FOR_ONE)):
        token, piece = match[0], match[0]
        if token == "|":
            piece = _bar(opened, operand, match.start())
            operand = piece == ")"
        elif token in "([{":
            opened.append(token)
            operand = False
        elif token in ")]}":
            if opened and opened.pop() == "|":
                raise ValueError(f"a bar is open at the {token!r} at character {match.start() + 1}; write abs(...)")
            operand = True
        elif token[0] in RAISED:
            power = token.translate(LOWERED)
            piece = f"**{power}" if power.isdigit() else f"**({power})"
            operand = True
        elif not token.isspace():
            piece = SIGNS.get(token, token)
            operand = (token[0].isalnum() or token[0] in "_.") and token not in _WORDS
        out.append(piece)
        places += [match.start()] * len(piece)
    if "|" in opened:
        raise ValueError("a bar | is not closed; write abs(...)")
    return "".join(out), places


def _bar(opened: list[str], operand: bool, place: int) -> str:
    """Return what a bar stands for, and note in `opened` that it opens or closes."""
    if not operand:
        opened.append("|")
        return "abs("
    if not opened or opened.pop() != "|":
        raise ValueError(f"the bar at character {place + 1} pairs up with none, or could with several; write abs(...)")
    return ")"
