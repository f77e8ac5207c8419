"""What people write that is no formula here: the reason, and the text to write instead where that is certain."""

__all__ = ["corrected", "greek", "reason_of"]

import ast
import re
import unicodedata
from collections.abc import Collection
from functools import reduce

from gpo_theory.formula.operations import CONSTANTS
from gpo_theory.formula.spelling import (
    LOWERED,
    ONE_FOR_ONE,
    PREFIXES,
    RAISED,
    SIGNS,
    TOWER,
    meaning,
    respelled,
    tree_of,
)  # fmt: skip

_HEAD = re.compile(r"\s*(?:lambda\s+(?P<a>\w+)\s*:|(?:def\s+)?[\w\\]+\s*(?:\(\s*(?P<b>\w+)\s*\))?\s*:?=(?!=)|"
                   r"def\s+\w+\s*\(\s*(?P<c>\w+)\s*\)\s*:|return\b)\s*(?:return\b)?")  # fmt: skip
# The + of a positive part after its bracket, as in [1-x]_+ and (1-x)**+, and an indicator, as 1_(x<0).
_POSITIVE = re.compile(r"(?<=[\])])\s*(?:_\s*(?:\(\s*\+\s*\)|\+)|\*\*\s*(?:\(\s*\+\s*\)|\+)(?=\s*(?:$|[-+*/)\],])))"
                       r"|(?<=\])\s*\+(?=\s*(?:$|[*/)\],]))")  # fmt: skip
_INDICATOR = re.compile(r"(?<![\w.])(?:1|I|Ind|indicator)\s*_?\s*[\[(](?=[^\])]*[<>])")
_POWER_OF = re.compile(r"(?<![\w.])([A-Za-z]\w*)\s*\*\*\s*(\d+|\(\d+\))\s*\(")  # log^2(x)
# A pattern of the text and what to say of it, the first that is found.
_REASONS = tuple((re.compile(pattern), reason) for pattern, reason in (
    (r"[\])}]\s*_\s*\{?\s*\+|[\])}]\s*\^\s*\{?\s*\+\s*(?:\}|$|[-+*/^)\]])|\]\s*\+\s*(?:$|[*/^)\]])",
     "a positive part is written max(0, ...)"),
    (r"(?<![\w.])(?:1|I|\\math(?:bb|bf)\{[1I]\}|\U0001d7d9)\s*_?\s*[\[({][^\])}]*[<>\u2264\u2265]",
     "an indicator is written where(condition, 1, 0)"),
    (r"\b(?:log|ln|exp|tanh|sigmoid|sin|cos)\s*\^", "a function's power stands behind its argument, as in log(x)**2"),
    (r"\\[A-Za-z,;:!(){}\[\]|]|[${}]|\^\s*\{", "LaTeX is not part of the grammar; it has log(...), (...)/(...) and **"),
    ("^" + _HEAD.pattern, "a formula in x alone is needed, without a name or a variable in front"),
    (r"^\s*(['\"]).*\1\s*$", "a formula stands without quotation marks inside the text"),
    (r"^(?=.*[<>\u2264\u2265]).*(?:&&|\|\||\)\s*[&|]\s*\(|\b(?:AND|OR)\b)", "two comparisons are joined by and, or"),
    (r"^[^()\[\]]*\d,\d|\b(?:log|ln|exp|tanh|sigmoid|sin|cos|abs|sqrt)\([^(),]*\d,\d[^(),]*\)",
     "a number has a decimal point, not a comma"),
    (r"^\s*[A-Za-z_][\w-]*\s*,", "one loss or formula is needed: of several, each is given on its own"),
    (r"\?.*:", "a choice is written where(condition, value, otherwise)"),
))  # fmt: skip
_TOKEN = re.compile(r"\s+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|\.?[A-Za-z]\w*(?:\.[A-Za-z]\w*)*|\*\*|[<>]=|.", re.ASCII)
_LATEX = {"cdot": "*", "times": "*", "ast": "*", "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=",
          "geqslant": ">=", "lt": "<", "gt": ">", "lvert": "|", "rvert": "|", "vert": "|", "land": "and", "lor": "or",
          **dict.fromkeys(("left", "right", "big", "bigl", "bigr", "quad", "qquad", "displaystyle"), "")}  # fmt: skip
_MARGINS = {"rho", "margin", "margins", "logits"}
_CLAMPS = {"clamp": ("min", "max"), "clip": ("min", "max"), "clamp_min": ("min",), "clamp_max": ("max",)}


def greek(character: str) -> str:
    """Return the name of a Greek letter, a capital one with a capital, or an empty text.

    >>> greek("\\u03b2"), greek("\\u03a6"), greek("x")
    ('beta', 'Phi', '')
    """
    found = re.fullmatch(r"GREEK (?:(SMALL|CAPITAL) LETTER )?(\w+)(?: SYMBOL)?", unicodedata.name(character, ""))
    return "" if found is None else found[2].title() if found[1] == "CAPITAL" else found[2].lower()


def reason_of(text: str) -> str | None:
    """Return what is wrong with a text that is no formula, if it is a known slip.

    >>> reason_of("[1-x]_+")
    'a positive part is written max(0, ...)'
    """
    return next((reason for pattern, reason in _REASONS if pattern.search(text)), None)


def corrected(text: str, parameters: Collection[str] = ()) -> str:
    """Return a text with every known slip mended; raises SyntaxError or ValueError where it cannot be read then.

    >>> corrected("f(x) = [1-2x]_+")
    'max(0, 1-2*x)'
    """
    if TOWER.search(text):
        raise ValueError("two powers follow each other")
    head = _HEAD.match(text)
    variable = next(filter(None, head.groups()), "") if head else ""
    body = _ascii(text[head.end() if head else 0 :].strip(" \t\n;,'\"$"))
    body = re.sub(r"([^?]*)\?([^:]*):(.*)", r"where(\1,\2,\3)", body)
    operands = {"x", *CONSTANTS, *parameters, *_MARGINS, "beta", variable}
    plain = respelled(_joined(_applied(_TOKEN.findall(_bracketed(body))), operands))[0]
    plain = re.sub(r"\bsigma\(", "sigmoid(", plain)
    tree = tree_of(plain)
    if isinstance(tree, ast.Compare | ast.BoolOp):
        raise SyntaxError("a comparison alone is no formula")
    meant = _renamed(_Meant(parameters).visit(tree_of(plain)), parameters, variable)
    if ast.dump(meant) == ast.dump(tree) and not re.search(r"[\\{]", text):
        return plain
    if any(isinstance(node, ast.Constant) and len(str(node.value)) > 15 for node in ast.walk(tree)):
        raise ValueError("a number would be rounded")
    return re.sub(r" (\*\*|\*|/) ", r"\1", ast.unparse(meant))


def _ascii(text: str) -> str:
    """Return a text with superscripts, Greek letters and LaTeX commands in ASCII, its brackets round or square."""
    text = re.sub(f"[{RAISED}]+", lambda m: f"^({m[0].translate(LOWERED)})", text)
    text = unicodedata.normalize("NFKC", text.translate(ONE_FOR_ONE).replace("\U0001d7d9", "1"))
    text = "".join(SIGNS.get(c) or (f" {name} " if (name := greek(c)) else c) for c in text)
    if re.search("[<>\u2264\u2265]", text):
        text = re.sub(r"\|\||(?<=\))\s*\|\s*(?=\()|\bOR\b", " or ", re.sub(r"&&|\bAND\b", " and ", text))
    text = re.sub(r"\\(?:mathrm|operatorname\*?|text|mathit|textrm|mathbf|mathbb)\s*\{(\w+)\}", r" \1 ", text)
    while start := re.search(r"\\[dt]?frac\s*", text):
        middle = _group(text, start.end())
        end = _group(text, middle)
        text = f"{text[: start.start()]}({text[start.end() : middle]}/{text[middle:end]}){text[end:]}"
    text = re.sub(r"\\[,;:! ()\[\]]", " ", text)
    text = re.sub(r"\\([A-Za-z]+)", lambda m: f" {_LATEX.get(m[1], m[1])} ", text)
    return text.replace("\\", "").replace("{", "(").replace("}", ")")


def _group(text: str, start: int) -> int:
    """Return where the LaTeX group that begins at `start` ends: a pair of braces, or one character."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0 and not text[at].isspace():
            return at + 1
    raise SyntaxError("a group is not closed")


def _bracketed(text: str) -> str:
    """Return a text with positive parts, indicators and powers of functions as calls, and every bracket round."""
    text = re.sub(r"(?i)\bexp\s*\*\*\s*(?=\()", "exp", text)
    while (found := _POWER_OF.search(text)) and meaning(found[1]):
        end = _other_end(text, found.end() - 1, 1)
        text = f"{text[: found.start()]}{found[1]}{text[found.end() - 1 : end + 1]}**{found[2]}{text[end + 1 :]}"
    while found := _POSITIVE.search(text):
        start = _other_end(text, found.start() - 1, -1)
        text = f"{text[:start]}max(0, {text[start + 1 : found.start() - 1]}){text[found.end() :]}"
    while found := _INDICATOR.search(text):
        end = _other_end(text, found.end() - 1, 1)
        text = f"{text[: found.start()]}where({text[found.end() : end]}, 1, 0){text[end + 1 :]}"
    return text.replace("[", "(").replace("]", ")")


def _other_end(text: str, at: int, step: int) -> int:
    """Return where the bracket that stands at `at` is closed, or opened for a step of -1."""
    depth = 0
    while 0 <= at < len(text):
        depth += (text[at] in "([") - (text[at] in ")]")
        if depth == 0:
            return at
        at += step
    raise SyntaxError("a bracket has no other end")


def _applied(tokens: list[str]) -> list[str]:
    """Return tokens without spaces, and with the parentheses of a function's argument, as in log sigma(x)."""
    out = [token for token in tokens if not token.isspace()]
    for at in range(len(out) - 2, -1, -1):
        if meaning(out[at]) and (out[at + 1] == "x" or meaning(out[at + 1])):
            end = at + 2
            if meaning(out[at + 1]):
                depth = 0
                while end < len(out) and (depth := depth + (out[end] == "(") - (out[end] == ")")):
                    end += 1
                end += 1
            if end < len(out) and out[end] not in ("+", "-", ")", ",", "<", ">", "<=", ">="):
                raise SyntaxError("what follows may belong to the argument or not")
            out[at + 1 : end] = ["(", *out[at + 1 : end], ")"]
    return out


def _joined(tokens: list[str], operands: Collection[str]) -> str:
    """Return the text of tokens, a * where two operands touch; raises SyntaxError where that could mean two things."""
    out, opened, start, operand, bars = list[str](), list[int](), 0, False, 0  # the last operand begins at `start`
    for token in tokens:
        method, keyword = re.match(r"\.[A-Za-z]", token), token in ("and", "or", "not", "if", "else", "in")
        word = (token[0].isalnum() or token[0] == ".") and not keyword
        called = token == "(" and operand and re.match(r"\.?[A-Za-z]", out[-1]) and out[-1] not in operands
        if operand and not method and not called and (word or token == "(" or (token == "|" and not bars)):
            before = "".join(out[max(start - 2, 0) : start])
            if re.search(r"(\^|\*\*)[-+]?$|/$", before):  # e^-2x, 1/2x
                raise SyntaxError("a product without * behind a power or a quotient")
            out.append("*")
            operand = False
        if token in ("(", "|") and not (token == "|" and operand):
            opened.append(start if called else len(out))
        elif (token == ")" or token == "|") and opened:
            start = opened.pop()
        elif word and not method:
            start = len(out)
        bars += 0 if token != "|" else -1 if operand else 1
        operand = word or token == ")" or (token == "|" and operand)
        out.append(f" {token} " if keyword else ", " if token == "," else token)
    return "".join(out)


class _Meant(ast.NodeTransformer):
    """Choices and comparisons as where, methods as functions, clamp as max and min, and beta * rho as x."""

    def __init__(self, parameters: Collection[str]) -> None:
        self.parameters = parameters

    def condition(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            return ast.BoolOp(ast.And(), [self.condition(node.left), self.condition(node.right)])
        if isinstance(node, ast.BoolOp):
            return ast.BoolOp(node.op, [*map(self.condition, node.values)])
        if isinstance(node, ast.Compare):
            ends = [self.visit(part) for part in (node.left, *node.comparators)]
            pairs = [ast.Compare(a, [op], [b]) for a, op, b in zip(ends, node.ops, ends[1:], strict=False)]
            return pairs[0] if len(pairs) == 1 else ast.BoolOp(ast.And(), [*pairs])
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        return _call("where", self.condition(node.test), self.visit(node.body), self.visit(node.orelse))

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        return _call("where", self.condition(node), ast.Constant(1), ast.Constant(0))

    def visit_Call(self, node: ast.Call) -> ast.expr:
        name, given = ast.unparse(node.func).rpartition(".")[2], node.args
        if name == "where" and len(given) == 3:
            return _call("where", self.condition(given[0]), *map(self.visit, given[1:]))
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and not {*ast.unparse(node.func.value).split(".")} <= {*PREFIXES}:
            given = [node.func.value, *given]
        if name not in _CLAMPS or not given:
            return _call(name, *given) if len(given) > len(node.args) and meaning(name) else node
        named = {(each.arg or "").removeprefix("a_"): each.value for each in node.keywords}
        bounds = dict(zip(_CLAMPS[name], given[1:], strict=False)) | named
        inner = given[0]
        for end, function in (("min", "max"), ("max", "min")):
            if end in bounds and not (isinstance(bounds[end], ast.Constant) and ast.unparse(bounds[end]) == "None"):
                inner = _call(function, bounds[end], inner)
        return inner

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        sign, factors = _factors(node)
        names = [ast.unparse(factor) if isinstance(factor, ast.Name) else "" for factor in factors]
        margin = next((at for at, name in enumerate(names) if name in {*_MARGINS, "x"}), None)
        if "beta" not in names or "beta" in self.parameters or margin is None:
            return node
        factors[margin] = ast.Name("x")
        del factors[names.index("beta")]
        product = reduce(lambda a, b: ast.BinOp(a, ast.Mult(), b), factors)
        return product if sign > 0 else ast.UnaryOp(ast.USub(), product)


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name), [*arguments], [])


def _factors(node: ast.expr) -> tuple[int, list[ast.expr]]:
    """Return the sign and the factors of a product."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, factors = _factors(node.operand)
        return -sign, factors
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        (one, left), (two, right) = _factors(node.left), _factors(node.right)
        return one * two, left + right
    return 1, [node]


def _renamed(tree: ast.expr, parameters: Collection[str], variable: str) -> ast.expr:
    """Return a formula in one other name than x, such as rho or a letter, as a formula in x."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called
             and node.id not in {*CONSTANTS, *parameters, *PREFIXES}]  # fmt: skip
    (one, *others) = {node.id for node in names} or {"x"}
    if not others and (one in _MARGINS or one == variable or len(one) == 1):
        for node in names:
            node.id = "x"
    return tree
