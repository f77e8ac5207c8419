"""Text to formula: Python parses it, and a closed grammar says which syntax trees are formulas. No text is ever run."""

__all__ = ["parse_constant", "parse_formula"]

import ast
import re
import warnings
from collections.abc import Collection
from fractions import Fraction

from gpo_theory.errors import ParseError, nearest
from gpo_theory.formula.expression import Expr, call
from gpo_theory.formula.operations import COMPARISONS, CONSTANTS, OPERATIONS

# Characters in formulas copied from a document, and what to write instead: minus, dashes, times, dot, division, powers.
LOOKALIKES = {"\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u00f7": "/",
              "\u00b2": "**2", "\u00b3": "**3"}  # fmt: skip
# Functions of other libraries, and how to write them here.
ELSEWHERE = {"logsigmoid": "log(sigmoid(...))", "log_sigmoid": "log(sigmoid(...))", "ln": "log(...)",
             "relu": "max(0, ...)", "arctan": "atan(...)", "arcsinh": "asinh(...)", "pow": "(...)**..."}  # fmt: skip
# Limits on what a user may write, chosen: far above any published loss, and any formula within them is read in 0.2 s.
MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, MAX_DIGITS, MAX_EXPONENT, MAX_POWER = 1000, 40, 300, 30, 32, 64
MAX_BITS = 20_000  # chosen: the size of a power in a constant that the package itself printed
FUNCTIONS = sorted(OPERATIONS)
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_PRODUCT = "a product is written with *"
_TOUCHING = re.compile(r"\d\s*[A-Za-z_(]|\)\s*[\w(]")  # a product written without it, as in 2x or (x)(x)
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")


def parse_formula(text: str, parameters: Collection[str] = ()) -> Expr:
    """Return the formula that `text` stands for, in x and the named `parameters`.

    Grammar: x, parameters, decimals (exact rationals), + - * / **, parentheses, where(condition, a, b), abs, max, min,
    the functions of `OPERATIONS`, pi and e. Raises ParseError, which quotes the text and says what is allowed.

    >>> str(parse_formula("log(1+exp(-x))"))
    'log(1 + exp(-x))'
    >>> parse_formula("lgo(x)")
    Traceback (most recent call last):
    gpo_theory.errors.ParseError: in 'lgo(x)': unknown function 'lgo'; did you mean 'log'?...
    """
    if not isinstance(text, str):
        raise ParseError(f"a formula is text, not {type(text).__name__}")
    return _Reader(text, parameters).formula()


def parse_constant(text: str) -> Expr:
    """Return the primitive formula of an exact constant that the package itself has printed.

    The grammar is that of `parse_formula` without its limits: exact arithmetic gives long numbers and many terms.
    Raises ParseError if the text depends on x.

    >>> str(parse_constant("1" + "0" * 40))
    '10000000000000000000000000000000000000000'
    """
    node = _Reader(text, (), limited=False).formula().primitive()
    if node.depends_on_x:
        raise ParseError(f"{text[:60]!r} is no constant: it depends on x")
    return node


def _bits(node: Expr) -> int:
    """Return the length of a number in bits; 1 for anything else."""
    return 1 if node.number is None else max(abs(node.number.numerator), node.number.denominator).bit_length()


def _not_ascii(text: str) -> str:
    """Return an error message that names the first character outside printable ASCII, and what to write instead."""
    place, found = next((i, c) for i, c in enumerate(text, 1) if not (c.isascii() and c.isprintable()))
    hint = f"; write {LOOKALIKES[found]}" if found in LOOKALIKES else ""
    return f"{found!r} at character {place} is not printable ASCII{hint}"


class _Reader:
    """The conversion of one text; `nodes` counts its operations, which are limited over the whole text."""

    def __init__(self, text: str, parameters: Collection[str], limited: bool = True) -> None:
        self.text, self.parameters, self.limited, self.nodes = text, parameters, limited, 0

    def refuse(self, reason: str) -> ParseError:
        """Return the error to raise, which quotes the text."""
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return ParseError(f"in {shown!r}: {reason}")

    def formula(self) -> Expr:
        if self.limited and len(self.text) > MAX_CHARACTERS:
            raise self.refuse(f"{len(self.text)} characters; at most {MAX_CHARACTERS} are allowed")
        if not self.text.isascii() or not self.text.isprintable():
            raise self.refuse(_not_ascii(self.text))
        if "#" in self.text:
            raise self.refuse("'#' is not part of the grammar")
        if not self.text.strip():
            raise self.refuse("a formula in x is needed")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
            hint = f"; {_PRODUCT}" if _TOUCHING.search(self.text) else ""
            raise self.refuse(f"not a formula{where}: {getattr(error, 'msg', 'nested too deeply')}{hint}") from None
        node = self.value(tree, 1)
        if self.limited:
            self.check_powers(node)
        return node

    def value(self, tree: ast.expr, depth: int) -> Expr:
        """Return the formula of a syntax tree that stands for a real number."""
        self.nodes += 1
        if self.limited and (depth > MAX_DEPTH or self.nodes > MAX_NODES):
            raise self.refuse(f"too large: at most {MAX_NODES} operations, nested {MAX_DEPTH} deep, are allowed")
        if isinstance(tree, ast.Constant):
            return self.literal(tree)
        if isinstance(tree, ast.Name):
            return self.name(tree.id)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
            inner = self.value(tree.operand, depth + 1)
            return -inner if isinstance(tree.op, ast.USub) else inner
        if isinstance(tree, ast.BinOp):
            return self.binary(tree, depth)
        if isinstance(tree, ast.Call):
            return self.function(tree, depth)
        raise self.refuse(f"{type(tree).__name__} is not part of the grammar; allowed: x, numbers, parameters, "
                          "+ - * / **, parentheses and functions")  # fmt: skip

    def literal(self, tree: ast.Constant) -> Expr:
        source = ast.get_source_segment(self.text.strip(), tree) or ""
        match = _NUMBER.fullmatch(source)
        long = self.limited and match is not None and sum(map(str.isdigit, match[1])) > MAX_DIGITS
        if isinstance(tree.value, bool) or not match or long:
            raise self.refuse(f"{source[:40]!r} is not a number of at most {MAX_DIGITS} digits (exponent below 100)")
        return self.bounded(Expr.of(Fraction(source)))

    def name(self, name: str) -> Expr:
        if name == "x":
            return Expr.x()
        if name in self.parameters:
            return Expr("parameter", (name,))
        if name in CONSTANTS:
            return Expr(name)
        if name in FUNCTIONS:
            raise self.refuse(f"{name!r} is a function and needs its argument in parentheses")
        if name in ("beta", "rho"):
            raise self.refuse(f"{name!r} is no part of f: x is beta * rho already")
        known = ["x", *CONSTANTS, *self.parameters]
        raise self.refuse(f"unknown name {name!r}{nearest(name, known)}; allowed: {', '.join(sorted(known))}; "
                          "a parameter needs a value, as in `parameters={'tau': '0.1'}`")  # fmt: skip

    def binary(self, tree: ast.BinOp, depth: int) -> Expr:
        if isinstance(tree.op, ast.BitXor):
            raise self.refuse("'^' is not a power; write **")
        left, right = self.value(tree.left, depth + 1), self.value(tree.right, depth + 1)
        if isinstance(tree.op, ast.Pow):
            return self.bounded(self.power(left, right))
        if isinstance(tree.op, ast.Add):
            return self.bounded(left + right)
        if isinstance(tree.op, ast.Sub):
            return self.bounded(left - right)
        if isinstance(tree.op, ast.Mult):
            return self.bounded(left * right)
        if isinstance(tree.op, ast.Div):
            if right.number == 0:
                raise self.refuse("division by zero")
            return self.bounded(left / right)
        raise self.refuse(f"operator {type(tree.op).__name__} is not part of the grammar; allowed: + - * / **")

    def power(self, base: Expr, exponent: Expr) -> Expr:
        if exponent.depends_on_x:
            raise self.refuse(f"the exponent {str(exponent)!r} depends on x; write exp(...) instead")
        largest = MAX_EXPONENT if self.limited else MAX_BITS // _bits(base)
        if exponent.number is not None and abs(exponent.number) > largest:
            raise self.refuse(f"the exponent {str(exponent)[:40]!r} is above {largest}")
        if exponent.number is None and not any(node.head == "parameter" for node in exponent.walk()):
            raise self.refuse(f"the exponent {str(exponent)!r} is neither rational nor a parameter")
        if base.number == 0 and exponent.number is not None and exponent.number <= 0:
            raise self.refuse("zero to a power that is not positive")
        return base**exponent

    def function(self, tree: ast.Call, depth: int) -> Expr:
        if not isinstance(tree.func, ast.Name | ast.Attribute) or getattr(tree.func, "id", "") in ("x", *CONSTANTS):
            raise self.refuse(f"{ast.unparse(tree.func)!r} is no function; {_PRODUCT}")
        if isinstance(tree.func, ast.Attribute) or tree.keywords:
            raise self.refuse("only plain calls such as log(x) are allowed")
        name = tree.func.id
        if name not in FUNCTIONS:
            hint = f"; write {ELSEWHERE[name]}" if name in ELSEWHERE else nearest(name, FUNCTIONS)
            raise self.refuse(f"unknown function {name!r}{hint}; allowed: {', '.join(FUNCTIONS)}")
        least, most = OPERATIONS[name].arguments
        if not least <= len(tree.args) <= most:
            count = str(least) if least == most else f"{least} to {most}"
            raise self.refuse(f"{name} takes {count} argument{'s' if most > 1 else ''}, not {len(tree.args)}")
        if name == "where":
            condition = self.condition(tree.args[0], depth + 1)
            return call("where", condition, *(self.value(branch, depth + 1) for branch in tree.args[1:]))
        return self.bounded(call(name, *(self.value(argument, depth + 1) for argument in tree.args)))

    def condition(self, tree: ast.expr, depth: int) -> Expr:
        if isinstance(tree, ast.BoolOp) and len(tree.values) == 2:
            head = "and" if isinstance(tree.op, ast.And) else "or"
            return call(head, *(self.comparison(part, depth + 1) for part in tree.values))
        return self.comparison(tree, depth)

    def comparison(self, tree: ast.expr, depth: int) -> Expr:
        if not isinstance(tree, ast.Compare) or len(tree.ops) != 1 or type(tree.ops[0]) not in _COMPARE:
            raise self.refuse(f"a condition is one comparison ({', '.join(sorted(COMPARISONS))}) or and/or of two")
        left, right = self.value(tree.left, depth + 1), self.value(tree.comparators[0], depth + 1)
        return call(_COMPARE[type(tree.ops[0])], left, right)

    def bounded(self, node: Expr) -> Expr:
        """Raise ParseError for a constant too large to compute with exactly."""
        if not self.limited:
            return node
        if node.number is not None:
            digits = max(abs(node.number.numerator), node.number.denominator)
            if digits >= 10**60:
                raise self.refuse("a constant has more than 60 digits")
        if node.head == "exp" and not node.depends_on_x:
            inner = node.args[0]
            if inner.head == "exp" or (inner.number is not None and abs(inner.number) > 1000):
                raise self.refuse(f"the constant {str(node)[:40]!r} is too large")
        return node

    def check_powers(self, node: Expr, outer: Fraction = Fraction(1)) -> None:
        """Raise ParseError if the exponents along a path multiply to more than MAX_POWER, or exp is nested thrice."""
        if node.power is not None:
            outer = outer * max(abs(node.power), Fraction(1))
            if outer > MAX_POWER:
                raise self.refuse(f"the powers multiply to more than {MAX_POWER}")
        nested = [child for child in node.children if child.head == node.head == "exp"]
        if any(grandchild.head == "exp" for child in nested for grandchild in child.children):
            raise self.refuse("exp may be nested at most twice")
        for child in node.children:
            self.check_powers(child, outer)
