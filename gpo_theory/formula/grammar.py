"""Text to formula: Python parses it, and a closed grammar says which syntax trees are formulas. No text is ever run."""

__all__ = ["parse_constant", "parse_formula"]

import ast
import re
from collections.abc import Collection
from fractions import Fraction
from functools import lru_cache

from gpo_theory.errors import ParseError, nearest
from gpo_theory.formula.expression import DIGITS, LARGEST, Expr, call
from gpo_theory.formula.operations import COMPARISONS, CONSTANTS, OPERATIONS
from gpo_theory.formula.spelling import PREFIXES, SPELLINGS, meaning, respelled, tree_of

# Limits on what a user may write, chosen: far above any published loss, and any formula within them is read in 0.2 s.
# Spaces are not counted, for a printed formula has more of them.
MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, MAX_DIGITS, MAX_EXPONENT, MAX_POWER = 1000, 40, 300, DIGITS, LARGEST, 64
# The most readings after which a printed formula must have stopped changing: one mostly, two where denominators merge.
READINGS = 4
MAX_CORRECTED = 200  # chosen: the characters up to which a refused text is corrected in the message
MAX_BITS = 20_000  # chosen: the size of a power in a constant that the package itself printed
FUNCTIONS = sorted(OPERATIONS)
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_PRODUCT = "a product is written with *"
_TOUCHING = re.compile(r"\d\s*[A-Za-z_(]|\)\s*[\w(]")  # a product written without it, as in 2x or (x)(x)
_MARGINS = ("beta", "rho", "margin", "margins", "logits")  # names of what x is made of
_GREEK = {"beta": "; x is beta * rho already", "rho": "; x is beta * rho already", "sigma": "; write sigmoid(...)",
          "Phi": "; write Phi(...)"}  # fmt: skip
_INSTEAD = {  # what to write for other parts of Python
    ast.Compare: "a comparison stands only in where, as in where(x < 0, ..., ...)",
    ast.IfExp: "a choice is written where(condition, value, otherwise)",
    ast.BoolOp: "and, or stand only in the condition of where",
}  # fmt: skip
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")


def parse_formula(text: str, parameters: Collection[str] = ()) -> Expr:
    """Return the formula that `text` stands for, in x and the named `parameters`.

    Grammar: x, parameters, decimals (exact rationals), + - * / **, parentheses, where(condition, a, b), abs, max, min,
    the functions of `OPERATIONS`, pi and e; and other spellings: ^ is a power, |x| is abs(x), np.log is log.
    Raises ParseError, which quotes the text and says what is allowed, and what to write where that is certain.

    >>> str(parse_formula("ln(1+e^-x)"))
    'log(1 + exp(-x))'
    >>> parse_formula("lgo(x)")
    Traceback (most recent call last):
    gpo_theory.errors.ParseError: in 'lgo(x)': unknown function 'lgo'; did you mean 'log'?...
    """
    if not isinstance(text, str):
        raise ParseError(f"a formula is text, not {type(text).__name__}")
    try:
        node = _Reader(text, parameters).formula()
    except ParseError as error:
        raise _explained(error, text, parameters) from None
    return _as_written(node, text, parameters)


def _is_zero(node: Expr) -> bool:
    """Whether a formula is 0 wherever it is defined."""
    return node.number == 0 or (node.head == "*" and node.args[0].number == 0)


def _as_written(node: Expr, text: str, parameters: Collection[str]) -> Expr:
    """Return the formula as it is read again where it is printed; ParseError where its text is too long for that."""
    written = str(node)
    try:
        for _ in range(READINGS):
            again = node if written == text else _Reader(written, parameters).formula()
            if again == node:
                return node
            node, written = again, str(again)
    except ParseError as error:
        reason = str(error).partition("': ")[2]
        raise _Reader(text, parameters).refuse(f"too large when it is written out: {reason}") from None
    raise _Reader(text, parameters).refuse("powers of powers in several denominators: write it as one fraction")


def _explained(error: ParseError, text: str, parameters: Collection[str]) -> ParseError:
    """Return the error, or the reason for a known slip, with the text to write instead where that is certain."""
    if len(text) > MAX_CORRECTED:
        return error
    from gpo_theory.formula.slips import corrected, reason_of  # what reads an accepted formula does without

    reason = reason_of(text)
    found = _Reader(text, parameters).refuse(reason) if reason else error
    try:
        instead = corrected(text, parameters)
        usable = _Reader(instead, parameters).formula().depends_on_x
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return found
    return ParseError(f"{found}; write {_quoted(instead)}") if usable else found


def _quoted(text: str) -> str:
    """Return a text in quotation marks, a backslash as it was typed."""
    return f"'{text}'" if text.isprintable() and "'" not in text else repr(text)


def parse_constant(text: str) -> Expr:
    """Return the primitive formula of an exact constant that the package itself has printed.

    The grammar is that of `parse_formula` without its limits: exact arithmetic gives long numbers and many terms.
    Raises ParseError if the text depends on x.

    >>> str(parse_constant("1" + "0" * 40))
    '1e40'
    """
    node = _Reader(text, (), limited=False).formula().primitive()
    if node.depends_on_x:
        raise ParseError(f"{text[:60]!r} is no constant: it depends on x")
    return node


def _bits(node: Expr) -> int:
    """Return the length of a number in bits; 1 for anything else."""
    return 1 if node.number is None else max(abs(node.number.numerator), node.number.denominator).bit_length()


def _not_ascii(found: str, place: int) -> str:
    """Return an error message that names a character outside printable ASCII, counted from 0, and what to write."""
    from gpo_theory.formula.slips import greek

    letter = greek(found)
    hint = _GREEK.get(letter, f"; a parameter may be called {letter}" if letter else "")
    return f"{found!r} at character {place + 1} is not printable ASCII{hint}"


def _dotted(tree: ast.expr) -> str:
    """Return a name without the libraries in front of it, as log for np.log, or an empty text for no name."""
    parts: list[str] = []
    while isinstance(tree, ast.Attribute):
        parts.insert(0, tree.attr)
        tree = tree.value
    parts.insert(0, tree.id if isinstance(tree, ast.Name) else "")
    while len(parts) > 1 and parts[0] in PREFIXES:
        parts.pop(0)
    return ".".join(parts) if parts[0] else ""


def _positive(base: Expr) -> bool:
    return base.head in CONSTANTS or (base.number is not None and base.number > 0)


@lru_cache
def _template(formula: str) -> tuple[ast.expr, int]:
    """Return the tree of a spelling's formula and the number of its arguments."""
    return tree_of(formula), len({*re.findall(r"\b[uv]\b", formula)})


class _Reader:
    """The conversion of one text; `nodes` counts its operations, which are limited over the whole text."""

    def __init__(self, text: str, parameters: Collection[str], limited: bool = True) -> None:
        self.text, self.parameters, self.limited, self.nodes = text, parameters, limited, 0
        # What the tree was parsed from, and what the names of a spelling's formula stand for.
        self.source, self.bound = text, dict[str, Expr]()

    def refuse(self, reason: str) -> ParseError:
        """Return the error to raise, which quotes the text."""
        shown = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return ParseError(f"in {_quoted(shown)}: {reason}")

    def formula(self) -> Expr:
        length = len(self.text) - min(self.text.count(" "), MAX_CHARACTERS)
        if self.limited and length > MAX_CHARACTERS:
            raise self.refuse(f"{length} characters; at most {MAX_CHARACTERS} are allowed")
        tree = self.tree()
        node = self.value(tree, 1)
        if self.limited:
            self.check_powers(node)
        return node

    def tree(self) -> ast.expr:
        """Return Python's tree of the text, its other spellings rewritten before."""
        try:
            plain, places = respelled(self.text) if self.limited else (self.text, range(len(self.text)))
        except ValueError as error:
            raise self.refuse(str(error)) from None
        for found, place in zip(plain, places, strict=True):
            if not (found.isascii() and found.isprintable()):
                raise self.refuse(_not_ascii(found, place))
        if "#" in plain:
            raise self.refuse("'#' is not part of the grammar")
        self.source = plain.strip()
        if not self.source:
            raise self.refuse("a formula in x is needed")
        try:
            return tree_of(self.source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            at = getattr(error, "offset", None)
            at = at and [*places, len(self.text)][min(at - 1 + plain.index(self.source), len(places))] + 1
            hint = f"; {_PRODUCT}" if _TOUCHING.search(plain) else ""
            raise self.refuse(f"not a formula{f' at character {at}' if at else ''}: "
                              f"{getattr(error, 'msg', 'nested too deeply')}{hint}") from None  # fmt: skip

    def value(self, tree: ast.expr, depth: int) -> Expr:
        """Return the formula of a syntax tree that stands for a real number."""
        self.nodes += 1
        if self.limited and (depth > MAX_DEPTH or self.nodes > MAX_NODES):
            raise self.refuse(f"too large: at most {MAX_NODES} operations, nested {MAX_DEPTH} deep, are allowed")
        if isinstance(tree, ast.Constant):
            return self.literal(tree)
        if isinstance(tree, ast.Name):
            return self.name(tree.id)
        if isinstance(tree, ast.Attribute) and _dotted(tree) in CONSTANTS:
            return Expr(_dotted(tree))
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
            inner = self.value(tree.operand, depth + 1)
            return -inner if isinstance(tree.op, ast.USub) else inner
        if isinstance(tree, ast.BinOp):
            return self.binary(tree, depth)
        if isinstance(tree, ast.Call):
            return self.function(tree, depth)
        hint = _INSTEAD.get(type(tree), "allowed: x, numbers, parameters, + - * / **, parentheses and functions")
        raise self.refuse(f"{type(tree).__name__} is not part of the grammar here; {hint}")

    def literal(self, tree: ast.Constant) -> Expr:
        source = self.source[tree.col_offset : tree.end_col_offset]
        match = _NUMBER.fullmatch(source)
        long = self.limited and match is not None and sum(map(str.isdigit, match[1])) > MAX_DIGITS
        if isinstance(tree.value, bool) or not match or long:
            raise self.refuse(f"{source[:40]!r} is not a number of at most {MAX_DIGITS} digits (exponent below 100)")
        return self.bounded(Expr.of(Fraction(source)))

    def name(self, name: str) -> Expr:
        if name == "x":
            return Expr.x()
        if name in self.bound:
            return self.bound[name]
        if name in self.parameters:
            return Expr("parameter", (name,))
        if name in CONSTANTS or name.lower() == "pi":
            return Expr(name.lower())
        if meaning(name):
            raise self.refuse(f"{name!r} is a function and needs its argument in parentheses")
        if name in _MARGINS:
            raise self.refuse(f"{name!r} is no part of f: x is beta * rho already")
        known = ["x", *CONSTANTS, *self.parameters]
        raise self.refuse(f"unknown name {name!r}{nearest(name, known)}; allowed: {', '.join(sorted(known))}; "
                          "a parameter needs a value, as in `parameters={'tau': '0.1'}`")  # fmt: skip

    def binary(self, tree: ast.BinOp, depth: int) -> Expr:
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
            if _is_zero(right):
                raise self.refuse("division by zero")
            return self.bounded(left / right)
        raise self.refuse(f"operator {type(tree.op).__name__} is not part of the grammar; allowed: + - * / **")

    def power(self, base: Expr, exponent: Expr) -> Expr:
        named = any(node.head == "parameter" for node in exponent.walk())
        if _positive(base) and (exponent.depends_on_x or (exponent.number is None and not named)):
            return self.bounded(call("exp", exponent if base.head == "e" else exponent * call("log", base)))
        if exponent.depends_on_x:
            raise self.refuse(f"the exponent {str(exponent)!r} depends on x; write exp(...) instead")
        largest = MAX_EXPONENT if self.limited else MAX_BITS // _bits(base)
        if exponent.number is not None and abs(exponent.number) > largest:
            raise self.refuse(f"the exponent {str(exponent)[:40]!r} is above {largest}")
        if exponent.number is None and not named:
            raise self.refuse(f"the exponent {str(exponent)!r} is neither rational nor a parameter")
        if _is_zero(base) and exponent.number is not None and exponent.number <= 0:
            raise self.refuse("zero to a power that is not positive")
        return base**exponent

    def function(self, tree: ast.Call, depth: int) -> Expr:
        name = _dotted(tree.func)
        if not (name or isinstance(tree.func, ast.Attribute)) or name in ("x", *CONSTANTS):
            raise self.refuse(f"{ast.unparse(tree.func)!r} is no function; {_PRODUCT}")
        if isinstance(tree.func, ast.Name) and name in self.parameters:
            raise self.refuse(f"{name!r} is a parameter; {_PRODUCT}")
        known = meaning(name)
        if tree.keywords or (known is None and isinstance(tree.func, ast.Attribute)):
            raise self.refuse("only plain calls such as log(x) are allowed")
        if known is None:
            hint = nearest(name.lower(), [*FUNCTIONS, *SPELLINGS])
            raise self.refuse(f"unknown function {name!r}{hint}; allowed: {', '.join(FUNCTIONS)}")
        return self.operation(name, known, tree.args, depth)

    def operation(self, name: str, known: str, given: list[ast.expr], depth: int) -> Expr:
        """Return the value of a function, called `name` in the text, that means `known`."""
        body, count = _template(known)
        least, most = OPERATIONS[known].arguments if known in OPERATIONS else (count, count)
        if not least <= len(given) <= most:
            allowed = str(least) if least == most else f"{least} to {most}"
            raise self.refuse(f"{name} takes {allowed} argument{'s' if most > 1 else ''}, not {len(given)}")
        if known == "where":
            condition = self.condition(given[0], depth + 1)
            return call("where", condition, *(self.value(branch, depth + 1) for branch in given[1:]))
        arguments = [self.value(argument, depth + 1) for argument in given]
        if known in OPERATIONS:
            return self.bounded(call(known, *arguments))
        outer, self.source, self.bound = (self.source, self.bound), known, dict(zip("uv", arguments, strict=False))
        node = self.value(body, depth + 1)
        self.source, self.bound = outer
        return node

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
        """Raise ParseError for a long number, exponents that multiply to more than MAX_POWER, or exp nested thrice."""
        self.bounded(node)
        if node.power is not None:
            outer = outer * max(abs(node.power), Fraction(1))
            if outer > MAX_POWER:
                raise self.refuse(f"the powers multiply to more than {MAX_POWER}")
        nested = [child for child in node.children if child.head == node.head == "exp"]
        if any(grandchild.head == "exp" for child in nested for grandchild in child.children):
            raise self.refuse("exp may be nested at most twice")
        for child in node.children:
            self.check_powers(child, outer)
