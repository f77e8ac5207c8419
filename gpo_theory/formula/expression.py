"""The formula of a loss as a tree: built, printed and differentiated, with the fold by which others walk it."""

__all__ = ["Expr", "call", "fold", "quotient", "rebuild", "slope_of", "steps", "substitute"]

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, TypeVar

from gpo_theory.budget import spend
from gpo_theory.formula.operations import COMPARISONS, CONSTANTS, OPERATIONS, operation

T = TypeVar("T")
DIGITS, LARGEST = 30, 32  # of a number and of an exponent in one literal of the grammar


@dataclass(frozen=True, slots=True)
class Expr:
    """One node of a formula: `head` names its operation, `args` are its children.

    Heads: number (its argument is a Fraction), parameter (its argument is a name), x, pi, e, +, *, **, the functions of
    `OPERATIONS`, the comparisons, and, or. A difference is a sum; a quotient is a product with a power -1.

    >>> x = Expr.x()
    >>> str(1 / (1 + x) - 2 * x**2)
    '1/(1 + x) - 2*x**2'
    >>> str((x**2).diff())
    '2*x'
    """

    head: str
    args: tuple[Any, ...] = ()
    code: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Trees are keys of caches everywhere, so the hash is computed once and not by walking the tree each time.
        object.__setattr__(self, "code", hash((self.head, self.args)))

    def __hash__(self) -> int:
        return self.code

    def __reduce__(self) -> tuple[Any, ...]:
        # The hash of a text is another in each process.
        return Expr, (self.head, self.args)

    @staticmethod
    def x() -> "Expr":
        """Return the scaled margin x."""
        return Expr("x")

    @staticmethod
    def of(value: "Expr | Fraction | int") -> "Expr":
        """Return `value` as a node."""
        return value if isinstance(value, Expr) else Expr("number", (Fraction(value),))

    @property
    def number(self) -> Fraction | None:
        """The value of a number, else None."""
        return self.args[0] if self.head == "number" else None

    @property
    def power(self) -> Fraction | None:
        """The exponent of a power, if it is a number, else None."""
        return self.args[1].number if self.head == "**" else None

    @property
    def children(self) -> tuple["Expr", ...]:
        """The arguments that are nodes themselves."""
        return self.args if self.head not in ("number", "parameter") else ()

    def walk(self) -> Iterator["Expr"]:
        """Yield this node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def depends_on_x(self) -> bool:
        """Whether x occurs in the formula."""
        return any(node.head == "x" for node in self.walk())

    def __add__(self, other: "Expr | Fraction | int") -> "Expr":
        return _sum((self, Expr.of(other)))

    def __radd__(self, other: "Fraction | int") -> "Expr":
        return _sum((Expr.of(other), self))

    def __neg__(self) -> "Expr":
        return _product((Expr.of(-1), self))

    def __sub__(self, other: "Expr | Fraction | int") -> "Expr":
        return self + (-Expr.of(other))

    def __rsub__(self, other: "Fraction | int") -> "Expr":
        return Expr.of(other) + (-self)

    def __mul__(self, other: "Expr | Fraction | int") -> "Expr":
        return _product((self, Expr.of(other)))

    def __rmul__(self, other: "Fraction | int") -> "Expr":
        return _product((Expr.of(other), self))

    def __truediv__(self, other: "Expr | Fraction | int") -> "Expr":
        return self * Expr.of(other) ** -1

    def __rtruediv__(self, other: "Fraction | int") -> "Expr":
        return Expr.of(other) * self**-1

    def __pow__(self, exponent: "Expr | Fraction | int") -> "Expr":
        return _power(self, Expr.of(exponent))

    def __str__(self) -> str:
        return _text(self, 0)

    def diff(self) -> "Expr":
        """Return the derivative in x of a primitive formula; raises ValueError for one with max, min or where."""
        return _derivative(self)

    def primitive(self) -> "Expr":
        """Return the same formula in primitive functions, max, min and where, with all other functions replaced."""
        return _primitive(self)


def call(name: str, *arguments: "Expr | Fraction | int") -> Expr:
    """Return the node of a function or constant; numbers among the arguments become nodes."""
    return Expr(name, tuple(map(Expr.of, arguments)))


def piecewise(variable: Expr, ends: Iterable[Expr], parts: Iterable[Expr]) -> Expr:
    """Return the formula that is each part up to its end; the last part has none."""
    *others, out = parts
    for end, part in reversed([*zip(ends, others, strict=True)]):
        out = call("where", call("<", variable, end), part, out)
    return out


def _sum(terms: tuple[Expr, ...]) -> Expr:
    """Add; numbers are added up, nested sums flattened and like terms collected."""
    constant, order = Fraction(0), dict[Expr, Fraction]()
    for term in terms:
        for part in term.args if term.head == "+" else (term,):
            scale, rest = _split_number(part)
            if rest is None:
                constant += scale
            else:
                order[rest] = order.get(rest, Fraction(0)) + scale
    kept = ((rest, scale) for rest, scale in order.items() if scale or not _surely_defined(rest))
    parts = [_product((Expr.of(scale), rest)) for rest, scale in kept]
    if any(part.head == "+" for part in parts):  # 3*(1 + x) - 2*(1 + x) is a sum itself
        return _sum((*parts, Expr.of(constant)))
    # A number that the user wrote first stays first when the sum is printed.
    if constant:
        first = terms[0].args[0] if terms[0].head == "+" else terms[0]
        parts.insert(0 if first.number is not None else len(parts), Expr.of(constant))
    if not parts:
        return Expr.of(0)
    return parts[0] if len(parts) == 1 else Expr("+", tuple(parts))


def _surely_defined(node: Expr) -> bool:
    """Whether every operation in the formula is defined for all real arguments."""
    return all(_total(part) for part in node.walk())


def _total(node: Expr) -> bool:
    """Whether one operation is defined for all real arguments."""
    if node.head == "**":
        return node.power is not None and node.power.denominator == 1 and node.power > 0
    return node.head not in OPERATIONS or not OPERATIONS[node.head].partial


def _split_number(node: Expr) -> tuple[Fraction, Expr | None]:
    """Split a term into its rational factor and the rest (None for a plain number)."""
    if node.head == "number":
        return node.args[0], None
    if node.head == "*" and node.args[0].number is not None:
        rest = node.args[1:]
        return node.args[0].args[0], rest[0] if len(rest) == 1 else Expr("*", rest)
    return Fraction(1), node


def _product(factors: tuple[Expr, ...]) -> Expr:
    """Multiply; numbers are multiplied and put first, nested products flattened, powers of equal bases collected.

    A point where the formula is undefined is never cancelled away: x/x stays, and x**(1/3)*x**(2/3) is not x.
    """
    constant, powers, twice = Fraction(1), dict[tuple[Expr, bool], Expr](), dict[Expr, Fraction]()
    for factor in factors:
        for part in factor.args if factor.head == "*" else (factor,):
            if part.number is not None:
                constant *= part.number
            elif part.power == -1 and (below := part.args[0].power) and below < 0 and below.denominator == 1:
                base = part.args[0].args[0]  # 1/(1/x)*1/(1/x**2) is 1/(1/x**3)
                twice[base] = twice.get(base, Fraction(0)) + below
            elif part.head == "**" and (part.power is not None or _floor(part.args[0]) > 0):
                _collect(powers, *part.args)
            else:  # the value of a parameter in an exponent says where the power is defined
                _collect(powers, part, Expr.of(1))
    raised = [_power(base, exponent) for (base, _), exponent in powers.items()]
    raised += [_power(_power(base, Expr.of(number)), Expr.of(-1)) for base, number in twice.items()]
    if any(part.head == "*" or part.number is not None for part in raised):
        return _product((Expr.of(constant), *raised))
    # Denominators stand last, where they are printed, and denominators of denominators after them.
    parts = sorted(raised, key=lambda part: _inverse(part) and 1 + _inverse(part.args[0]))
    if not constant:
        parts = [part for part in parts if not _surely_defined(part)]
        if not parts:
            return Expr.of(0)
    if constant == -1 and len(parts) == 1 and parts[0].head == "+":
        return _sum(tuple(_product((Expr.of(-1), term)) for term in parts[0].args))
    if constant != 1 or not parts:
        parts.insert(0, Expr.of(constant))
    return parts[0] if len(parts) == 1 else Expr("*", tuple(parts))


def _collect(powers: dict[tuple[Expr, bool], Expr], base: Expr, exponent: Expr) -> None:
    """Multiply by base**exponent without defining the product at more points; both signs of exponents are kept apart.

    Roots whose exponents add up to an integer n are collected as (base**(1/2))**(2*n), undefined where base < 0.
    """
    key = base, exponent.number is not None and exponent.number < 0
    before = powers.get(key)
    whole = exponent if before is None else before + exponent
    n, rooted = whole.number, before is not None and before.number is not None and before.number.denominator > 1
    if rooted and n is not None and n.denominator == 1 and _floor(base) <= 0:
        del powers[key]
        _collect(powers, _power(base, Expr.of(Fraction(1, 2))), Expr.of(2 * n))
    else:
        powers[key] = whole


@lru_cache(maxsize=4096)
def _floor(node: Expr) -> int:
    """Return 1 or 0 for a formula that is above 0, or not below it, wherever it is defined by its shape; else -1."""
    if node.number is not None:
        return (node.number > 0) - (node.number < 0)
    if node.head in (*CONSTANTS, "exp", "erfc", "sigmoid", "softplus", "cosh"):
        return 1
    if node.head == "**":
        even = node.power is not None and (node.power.denominator > 1 or node.power.numerator % 2 == 0)
        return max(_floor(node.args[0]), 0) if even else 1 if _floor(node.args[0]) > 0 else -1
    if node.head in ("+", "*"):
        floors = [*map(_floor, node.args)]
        return min(floors) if min(floors) < 0 or node.head == "*" else max(floors)
    return 0 if node.head in ("abs", "sqrt") else -1


def _power(base: Expr, exponent: Expr) -> Expr:
    """Raise to a power; powers of numbers, products and powers are computed where the domain stays the same."""
    value, inner = exponent.number, base.power
    if value == 0:  # x**0 is 1 at 0 too, but log(x)**0 is undefined where log(x) is
        return 1 + 0 * base
    if value == 1 or (value is not None and (base.number == 1 or (base.number == 0 and value > 0))):
        return base
    if value is not None and value.denominator == 1:
        if base.number is not None and (base.number or value > 0):
            return Expr.of(base.number ** int(value))
        if base.head == "*" and value < 0 and base.args[0].number != 0:
            return _product(tuple(_power(factor, exponent) for factor in base.args))
        if base.head == "*" and value > 0 and base.args[0].number is not None:
            number, rest = _split_number(base)
            assert rest is not None
            return _product((Expr.of(number ** int(value)), _power(rest, exponent)))
        if inner is not None and (inner.denominator == 1 or (inner * value).denominator > 1):
            if inner > 0 or value > 0 or _inverse(base.args[0]):
                return _power(base.args[0], Expr.of(inner * value))
            base, exponent = _power(base.args[0], Expr.of(-inner * value)), Expr.of(-1)  # 1/(1/x) is undefined at 0
        elif base.head == "*" and value < -1:
            base, exponent = _power(base, Expr.of(-value)), Expr.of(-1)
    return Expr("**", (base, exponent))


def _inverse(node: Expr) -> bool:
    """Whether a formula is a power with a negative exponent."""
    return node.power is not None and node.power < 0


def fold(node: Expr, rule: Callable[[Expr, Callable[[Expr], T]], T]) -> T:
    """Return rule(node, of), where `of` applies the rule to a part; a part that occurs twice is computed once.

    >>> fold(Expr.x() ** 2 + 1, lambda part, of: 1 + sum(map(of, part.children)))  # the number of nodes
    5
    """
    values: dict[Expr, T] = {}

    def of(part: Expr) -> T:
        if part not in values:
            values[part] = rule(part, of)
        return values[part]

    return of(node)


def substitute(node: Expr, values: Mapping[Expr, Expr]) -> Expr:
    """Replace parts of a formula: parameters by numbers, or x by another formula.

    >>> str(substitute(Expr.x() ** 2, {Expr.x(): -Expr.x() + 1}))
    '(-x + 1)**2'
    """
    return fold(node, lambda part, of: values[part] if part in values else rebuild(part, map(of, part.children)))


def rebuild(node: Expr, children: Iterable[Expr]) -> Expr:
    """Return `node` with other children, simplified as when it was built."""
    parts = tuple(children)
    match node.head:
        case "+":
            return _sum(parts)
        case "*":
            return _product(parts)
        case "**":
            return _power(*parts)
    return Expr(node.head, parts) if parts else node


Step = tuple[str, tuple[int, ...], Any]


@lru_cache(maxsize=512)
def steps(node: Expr) -> tuple[Step, ...]:
    """Return a primitive formula as a list of steps (head, places of its arguments in the list, datum).

    Arguments come before what uses them, and a part that occurs twice is one step. The datum is the value of a number
    or the exponent of a power with a rational exponent, else None.

    >>> steps(Expr.x() ** 2 + 1)
    (('x', (), None), ('**', (0,), Fraction(2, 1)), ('number', (), Fraction(1, 1)), ('+', (1, 2), None))
    """
    places: dict[Expr, int] = {}
    out: list[Step] = []

    def place(part: Expr) -> int:
        if part not in places:
            power = part.power
            inside = tuple(map(place, part.args[:1] if power is not None else part.children))
            out.append((part.head, inside, part.number if part.head == "number" else power))
            places[part] = len(out) - 1
        return places[part]

    place(node)
    return tuple(out)


@lru_cache(maxsize=4096)
def _primitive(node: Expr) -> Expr:
    children = tuple(map(_primitive, node.children))
    definition = OPERATIONS[node.head].definition if node.head in OPERATIONS else None
    return _primitive(definition(children[0], call)) if definition else rebuild(node, children)


@lru_cache(maxsize=4096)
def _derivative(node: Expr) -> Expr:
    """Differentiate by the sum, product, power and chain rules."""
    spend()
    if node.head == "x":
        return Expr.of(1)
    if not node.depends_on_x:
        return Expr.of(0)
    if node.head == "+":
        return _sum(tuple(_derivative(term) for term in node.args))
    if node.head == "*":
        factors = node.args
        moving = [(i, f) for i, f in enumerate(factors) if f.depends_on_x]
        return _sum(tuple(_product((*factors[:i], _derivative(f), *factors[i + 1 :])) for i, f in moving))
    if node.head == "**":
        base, exponent = node.children
        if exponent.depends_on_x:
            raise ValueError(f"the exponent of {node} depends on x")
        return exponent * base ** (exponent - 1) * _derivative(base)
    asinh = _asinh_argument(node) if node.head == "log" else None
    if asinh is not None:
        return _derivative(asinh) * (1 + asinh**2) ** Fraction(-1, 2)
    return slope_of(node.head, node.args[0]) * _derivative(node.args[0])


def slope_of(name: str, u: Expr) -> Expr:
    """Return the derivative of a primitive function at u; raises ValueError for another.

    >>> str(slope_of("log", Expr.x() ** 2))
    '1/x**2'
    """
    rule = operation(name).derivative
    if rule is None:
        raise ValueError(f"{name} is no primitive function: use `primitive`, and split max, min and where into pieces")
    slope: Expr = rule(u, call)
    return slope


def _asinh_argument(node: Expr) -> Expr | None:
    """Return u if `node` is log(u + sqrt(1 + u^2)), else None.

    Its slope is u'/sqrt(1 + u^2); the chain rule gives an equal one that loses all digits for large negative u.
    """
    terms = node.args[0].args if node.args[0].head == "+" else ()
    for part in terms:
        if part.head == "**" and part.args[1].number == Fraction(1, 2):
            u = _sum(tuple(term for term in terms if term != part))
            for square in part.args[0].args if part.args[0].head == "+" else ():
                v = square.args[0] if square.head == "**" and square.args[1].number == 2 else square
                same = set(v.args if v.head == "+" else (v,)) == set(u.args if u.head == "+" else (u,))
                if same and part.args[0] - square == Expr.of(1) and square.head == "**":
                    return u
    return None


def _text(node: Expr, binding: int) -> str:
    """Return the text of a formula in the grammar.

    `binding` says where it stands: 0 alone, 1 a term of a sum, 2 a factor, 3 a denominator, 4 the base of a power.
    """
    head, args = node.head, node.args
    if head == "number":
        value: Fraction = args[0]
        weak = value < 0 or value.denominator != 1
        bare = "-" * (value < 0) + _digits(abs(value.numerator))
        bare += f"/{_digits(value.denominator)}" if value.denominator != 1 else ""
        return f"({bare})" if weak and (binding >= 2 or (binding == 1 and value < 0)) else bare
    if head == "x" or head in CONSTANTS:
        return head
    if head == "parameter":
        return str(args[0])
    if head == "+":
        body = _text(args[0], 0) + "".join(_signed(term) for term in args[1:])
        return f"({body})" if binding >= 2 else body
    if head == "*":
        body = _product_text(args)
        return f"({body})" if binding >= 3 or (binding >= 1 and body.startswith("-")) else body
    if head == "**":
        if node.power is not None and node.power < 0:
            body = f"1/{_text(args[0] ** -args[1], 3)}"
            return f"({body})" if binding >= 2 else body
        if node.power is not None and node.power > LARGEST:
            return _large_power(args[0], node.power, binding)
        body = f"{_text(args[0], 4)}**{_text(args[1], 4)}"
        return f"({body})" if binding >= 4 else body
    if head in COMPARISONS:
        return f"{_text(args[0], 0)} {head} {_text(args[1], 0)}"
    if head in ("and", "or"):
        return f" {head} ".join(_text(part, 0) for part in args)
    return f"{head}({', '.join(_text(argument, 0) for argument in args)})"


def _digits(n: int) -> str:
    """Return the text of a natural number in literals of at most DIGITS digits.

    >>> _digits(10**30), _digits(10**31 + 7)
    ('1e30', '(10*1e30 + 7)')
    """
    text = str(n)
    short = text.rstrip("0") if len(text) > DIGITS else text
    if len(short) <= DIGITS and len(text) - len(short) < 100:
        return short if short == text else f"{short}e{len(text) - len(short)}"
    high, low = divmod(n, 10**DIGITS)
    return f"({_digits(high)}*1e{DIGITS} + {_digits(low)})"


def _large_power(base: Expr, exponent: Fraction, binding: int) -> str:
    """Return the text of a power whose exponent is too large for one literal, as a product or a square of others."""
    if exponent.denominator > 1:
        square = f"({_text(Expr('**', (base, Expr.of(exponent / 2))), 0)})**2"
        return f"({square})" if binding > 3 else square
    body = f"{_text(base, 4)}**{LARGEST}*{_text(base ** (exponent - LARGEST), 2)}"
    return f"({body})" if binding >= 3 else body


def _signed(term: Expr) -> str:
    """Return a term after the first with the sign in front of it."""
    scale, _ = _split_number(term)
    return f" - {_text(-term, 1)}" if scale < 0 else f" + {_text(term, 1)}"


def quotient(factors: tuple[Expr, ...]) -> tuple[bool, list[Expr], list[Expr]]:
    """Return a product as one prints it: whether a minus sign stands in front, and what stands above and below."""
    above, below, negative = list[Expr](), list[Expr](), False
    for factor in factors:
        if factor.number is not None:
            value, negative = abs(factor.number), factor.number < 0
            above += [Expr.of(value.numerator)] if value.numerator != 1 else []
            below += [Expr.of(value.denominator)] if value.denominator != 1 else []
        elif factor.power is not None and factor.power < 0:
            below.append(factor.args[0] ** -factor.power)
        else:
            above.append(factor)
    return negative, above, below


def _product_text(factors: tuple[Expr, ...]) -> str:
    """Return the text of a product as numerator/denominator, with the sign in front."""
    negative, above, below = quotient(factors)
    top = "*".join(_text(factor, 2) for factor in above) or "1"
    bottom = "*".join(_text(factor, 3 if len(below) == 1 else 2) for factor in below)
    body = top if not below else f"{top}/({bottom})" if len(below) > 1 else f"{top}/{bottom}"
    # Without the brackets the minus would be read as that of the first factor alone.
    return f"-({body})" if negative and above and above[0].head == "+" else "-" * negative + body
