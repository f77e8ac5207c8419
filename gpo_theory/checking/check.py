"""Numerical tests of a user's own torch function of the scaled margin; their findings are evidence, not proofs."""

__all__ = ["TESTS", "Report", "check_loss"]

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpo_theory.checking.calling import Finding, Function, UserCodeError
from gpo_theory.checking.comparison import AGAINST_A_LOSS, against
from gpo_theory.checking.conduct import CONDUCT, STAGES, Batches, repeats, settings_kept
from gpo_theory.checking.dtypes import finite, precision
from gpo_theory.checking.margins import random_margins
from gpo_theory.checking.properties import PROPERTIES, alone
from gpo_theory.errors import InputError, nearest
from gpo_theory.loss import Loss
from gpo_theory.lowering.lower import to_torch

TESTS = (*CONDUCT, "finite", *AGAINST_A_LOSS, "gradient", *PROPERTIES)
DTYPES = ("float32", "float64")
_NEEDED = ("runs", "shape", "state", "elementwise")  # without them what follows means nothing


@dataclass(frozen=True)
class Report:
    """The tests that ran and what they found; a report without findings is no proof that there are no faults.

    `unfinished` names the tests that could not finish because another one failed, as when the function raises an error.
    `inherent` names those that the formula fails too, so that they say nothing against the code. `seed` and `margins`
    (how many random ones) repeat the report. In a test-suite: `assert not check_loss(my_loss).findings`.
    """

    tests: tuple[str, ...]
    findings: tuple[Finding, ...]
    unfinished: tuple[str, ...] = ()
    inherent: tuple[str, ...] = ()
    seed: int = 0
    margins: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        names = {name: list(getattr(self, name)) for name in ("tests", "unfinished", "inherent")}
        return {**names, "findings": [asdict(finding) for finding in self.findings], "seed": self.seed,
                "margins": self.margins}  # fmt: skip


@settings_kept()
def check_loss(function: Function, loss: Loss | None = None, *, skip: Collection[str] = (), seed: int = 0,
               margins: int = 10_000) -> Report:  # fmt: skip
    """Test a torch function of x = beta * rho, |x| <= 1e6, in float32 and float64, at fixed and `margins` random x.

    As torch code: shapes (empty ones too), dtypes, batches of several sizes and orders, memory layouts, repeated calls,
    calls without gradients, random upstream gradients, the input left as it was. As a loss: no NaN or infinity in value
    or gradient (also in bfloat16, unless refused), the gradient against finite differences, f'(0) < 0, no chord below f
    (convexity), and the least C_p(x) = p f(x) + (1-p) f(-x) at x > 0 for p > 1/2 (consistency). With `loss` also value
    and gradient against f and f' computed with 256 bits, to half the dtype's digits. `skip` names tests that are not
    run. Raises InputError for a name that is no test.

    >>> import torch
    >>> for finding in check_loss(lambda x: torch.log(1 + torch.exp(-x)), skip=["gradient"]).findings:
    ...     print(finding)
    finite (float32 at x = -89): the value is inf; also at 10 margins farther out
    finite (float32 at x = -89): the gradient is nan; also at 10 margins farther out
    finite (float64 at x = -711): the value is inf; also at 5 margins farther out
    finite (float64 at x = -711): the gradient is nan; also at 5 margins farther out
    """
    for name in skip:
        if name not in TESTS:
            raise InputError(f"unknown test {name!r}{nearest(name, TESTS)}; allowed: {', '.join(TESTS)}")
    if seed < 0 or margins < 1:
        raise InputError(f"seed {seed} must be at least 0 and margins {margins} at least 1")
    numbers = [test for test in TESTS if test not in CONDUCT and (loss or test not in AGAINST_A_LOSS)]
    batches, seen = Batches(margins, seed), _Seen([], set(), set())
    try:
        repeated = repeats(function, batches)
    except UserCodeError:  # which a test below meets again, and names
        repeated = _nothing
    for dtype in DTYPES:
        for tests, run in STAGES.items():
            if any(finding.test in _NEEDED and finding.dtype == dtype for finding in seen.findings):
                seen.cut_short.update(tests)
            else:
                seen.look(tests, dtype, run(function, dtype, batches))
    if any(finding.test in (*_NEEDED, "dtype") for finding in seen.findings):
        seen.cut_short.update(numbers)
    else:
        _numbers(function, loss, batches, seen)
    changed = _Seen([], set(), set())
    changed.look((), "float64", repeated())
    if changed.findings and not any(finding.test == "state" for finding in seen.findings):
        seen.findings[:] = changed.findings  # the others may be those of another state
        seen.cut_short.update(TESTS)
    return seen.report([test for test in (*CONDUCT, *numbers) if test not in skip], batches)


def _nothing() -> Iterator[Finding]:
    return iter(())


def _numbers(function: Function, loss: Loss | None, batches: Batches, seen: "_Seen") -> None:
    random = random_margins(batches.count, batches.seed)
    for dtype in DTYPES:
        seen.look(("finite",), dtype, finite(function, dtype, random))
        if loss is not None:
            seen.look(AGAINST_A_LOSS, dtype, against(function, loss, dtype, random))
    if not any(finding.test == "finite" and finding.dtype == "float32" for finding in seen.findings):
        seen.look(("finite",), "bfloat16", finite(function, "bfloat16", random))
    seen.look(("dtype",), "float64", precision(function, batches))
    seen.look(("gradient", *PROPERTIES), "float64", alone(function, batches))
    if loss is not None and any(finding.test in PROPERTIES for finding in seen.findings):
        seen.inherent.update({finding.test for finding in alone(to_torch(loss), batches)} & {*PROPERTIES})


@dataclass(frozen=True)
class _Seen:
    """The findings so far, the tests that did not finish, and those that the formula fails too."""

    findings: list[Finding]
    cut_short: set[str]
    inherent: set[str]

    def look(self, tests: Sequence[str], dtype: str, findings: Iterator[Finding]) -> None:
        """Collect the findings of a group of tests, until the user's function raises an error."""
        try:
            self.findings.extend(findings)
        except UserCodeError as error:
            self.findings.append(Finding(error.test, dtype, None, str(error)))
            self.cut_short.update(tests)

    def report(self, wanted: Sequence[str], batches: Batches) -> Report:
        found = tuple(each for each in self.findings if each.test in wanted and each.test not in self.inherent)
        unfinished = (self.cut_short - {each.test for each in self.findings}) & {*wanted}
        return Report(tuple(test for test in wanted if test not in unfinished | self.inherent), found,
                      tuple(test for test in wanted if test in unfinished),
                      tuple(test for test in wanted if test in self.inherent), batches.seed, batches.count)  # fmt: skip
