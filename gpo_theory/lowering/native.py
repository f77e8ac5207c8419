"""Torch's own kernels for the losses that are one of them at a line: faster, and as accurate as the normal form."""

__all__ = ["KERNELS", "native_kernel"]

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from itertools import permutations
from typing import TYPE_CHECKING, Any

from gpo_theory.calculus.rational import as_rational
from gpo_theory.formula.expression import Expr
from gpo_theory.formula.grammar import parse_formula
from gpo_theory.lowering.cancellation import polynomials_near_zeros

if TYPE_CHECKING:
    from torch import Tensor

# name: its formula. torch's softplus is not used for the first: measured, it is 6e5 ulp off above 20.
KERNELS: dict[str, str] = {
    "logsigmoid": "log(1 + exp(-x))",
    "residue": "log(1 + exp(-abs(x)))",
    "relu": "max(0, x)",
    "exp": "exp(x)",
    "square": "x**2",
}
Kernel = Callable[["Tensor"], "Tensor"]


def native_kernel(f: Expr) -> Kernel | None:
    """Return f as c K(a x + b) + d x + e with K a kernel of the table, or one of another; None where f is no such form.

    None too where that form cancels. At the kink of relu torch's gradient is 0, which is the slope on the right only
    where a < 0, so relu is used for a < 0 alone.

    >>> import torch
    >>> hinge = native_kernel(parse_formula("max(0, 1-x)").primitive())
    >>> hinge(torch.tensor([-1.0, 3.0]))
    tensor([2., 0.])
    """
    import torch

    kernel = _matched(f)
    # The kernels are accurate; the line that is added may cancel, as in exp(u) - u - 1 at 0.
    if kernel is None or polynomials_near_zeros(f, lambda x: float(kernel(torch.tensor(x, dtype=torch.float64)))):
        return None
    return kernel


def _matched(f: Expr) -> Kernel | None:
    terms = f.args if f.head == "+" else (f,)
    lines = [(term, _line(term)) for term in terms]
    curved = [term for term, line in lines if line is None]
    if len(curved) != 1:
        return None
    slope = sum((line[0] for _, line in lines if line), Fraction(0))
    offset = sum((line[1] for _, line in lines if line), Fraction(0))
    factor, node = Fraction(1), curved[0]
    if node.head == "*" and len(node.args) == 2 and node.args[0].number is not None:
        factor, node = node.args[0].number, node.args[1]
    inner = _kernel(node, 2)
    return None if inner is None else _combined(inner, float(factor), float(slope), float(offset))


def _combined(inner: Kernel, factor: float, slope: float, offset: float) -> Kernel:
    def run(x: "Tensor") -> "Tensor":
        value = inner(x) if factor == 1 else inner(x) * factor
        value = value - x if slope == -1 else value + slope * x if slope else value
        return value + offset if offset else value

    return run


def _kernel(node: Expr, depth: int) -> Kernel | None:
    """Return the kernel of which `node` is a value at a line or, `depth` allowing, at another kernel's value."""
    for name, formula in KERNELS.items():
        argument = _unify(parse_formula(formula).primitive(), node)
        if argument is None:
            continue
        line = _line(argument)
        if line is None:
            inner = _kernel(argument, depth - 1) if depth > 1 else None
        elif name == "exp":
            return _exp_of_line(*map(float, line))
        else:
            inner = None if name == "relu" and line[0] > 0 else _affine(*line)
        if inner is not None:
            return _composed(name, inner)
    return None


def _composed(name: str, inner: Kernel) -> Kernel:
    import torch
    from torch.nn import functional

    outer: dict[str, Kernel] = {
        "logsigmoid": lambda u: -functional.logsigmoid(u), "residue": lambda u: -functional.logsigmoid(u.abs()),
        "relu": torch.relu, "exp": torch.exp, "square": _square(),
    }  # fmt: skip
    kernel = outer[name]
    return lambda x: kernel(inner(x))


def _exp_of_line(a: float, b: float) -> Kernel:
    """exp(a x + b), whose gradient a exp(a x + b) is computed in place, which saves a pass over the data."""
    import torch

    class ExpOfLine(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: "Tensor") -> "Tensor":
            u = x.neg() if a == -1 else x * a
            shifted: Tensor = u.add_(b) if b else u
            return shifted.exp_()

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple["Tensor"], output: "Tensor") -> None:
            ctx.save_for_backward(output)

        @staticmethod
        def backward(ctx: Any, gradient: "Tensor") -> "Tensor":
            slope: Tensor = gradient * ctx.saved_tensors[0]
            return slope.neg_() if a == -1 else slope.mul_(a)

    line = _affine(Fraction(a), Fraction(b))
    return _uncompiled(ExpOfLine, lambda x: torch.exp(line(x)))


def _affine(a: Fraction, b: Fraction) -> Kernel:
    slope, offset = float(a), float(b)
    if slope == -1:
        return (lambda x: offset - x) if offset else (lambda x: -x)
    if slope == 1:
        return (lambda x: x + offset) if offset else (lambda x: x)
    return (lambda x: slope * x + offset) if offset else (lambda x: slope * x)


def _line(node: Expr) -> tuple[Fraction, Fraction] | None:
    """Return (a, b) for a formula equal to a x + b with rational a and b."""
    form = as_rational(node)
    if form is None or form.slope is not None or form.denominator.degree() > 0 or form.constant.number != 1:
        return None
    if form.numerator.degree() > 1:
        return None
    scale = form.denominator[0]
    return Fraction(str(form.numerator[1] / scale)), Fraction(str(form.numerator[0] / scale))


def _unify(template: Expr, node: Expr) -> Expr | None:
    """Return what x stands for where `node` is the template, up to the order of its arguments; None where it is not."""
    if template.head == "x":
        return node
    if template.head == "*":  # the template -x: any formula is minus another
        return _unify(template.args[1], -node)
    if template.head != node.head or len(template.children) != len(node.children):
        return None
    for order in permutations(node.children) if template.head in ("+", "max") else [node.children]:
        pairs = list(zip(template.children, order, strict=True))
        found = {_unify(part, child) for part, child in pairs if part.depends_on_x}
        if len(found) == 1 and all(part == child for part, child in pairs if not part.depends_on_x):
            return found.pop()
    return None


@lru_cache(maxsize=1)
def _square() -> Kernel:
    """u^2, whose gradient 2 u is computed in place; torch's own takes one pass more."""
    import torch

    class Square(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(u: "Tensor") -> "Tensor":
            return u.square()

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple["Tensor"], output: "Tensor") -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: "Tensor") -> "Tensor":
            slope: Tensor = gradient * ctx.saved_tensors[0]
            return slope.mul_(2)

    return _uncompiled(Square, torch.square)


def _uncompiled(function: Any, plain: Kernel) -> Kernel:
    """Apply an autograd Function, or under torch.compile, which fuses by itself, the plain expression."""
    import torch

    def run(x: "Tensor") -> "Tensor":
        value: Tensor = plain(x) if torch.compiler.is_compiling() else function.apply(x)
        return value

    return run
