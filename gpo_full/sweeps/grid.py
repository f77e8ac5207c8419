"""A sweep: a grid of losses, betas and seeds, each an ordinary run of `gpo train`, and one table of the results."""

__all__ = ["Run", "all_runs", "write_results"]

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo_full.files import atomic_file
from gpo_full.sweeps.jobs import Outcome
from gpo_theory import InputError, find_loss, match_beta, strength
from gpo_theory.catalogue import AVERAGED, find_losses
from gpo_theory.choosing.matching import unmatchable

# Characters of a formula in a folder's name; file systems allow 255 bytes for a name.
LONGEST = 100


@dataclass(frozen=True)
class Run:
    """One point of the grid; `loss` is as the user wrote it, `beta` that of the training.

    `like` is the given beta to which it was matched, `beta` itself without a match. `parameters` are the given values
    of this loss's parameters.
    """

    loss: str
    beta: float
    seed: int
    like: float
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The name of the run's folder; `all_runs` refuses a grid in which two runs share one."""
        loss = re.sub(r"[^A-Za-z0-9._+-]", "_", self.loss)
        if len(loss) > LONGEST:
            loss = f"{loss[:LONGEST]}-{hashlib.sha256(self.loss.encode()).hexdigest()[:12]}"
        return f"{loss}-beta{repr(float(self.beta)).removesuffix('.0')}-seed{self.seed}"

    def words(self, shared: Sequence[str], folder: Path) -> list[str]:
        """Return the arguments of `gpo train`; a formula may begin with a minus, hence `--loss=`."""
        given = [f"--param={name}={value}" for name, value in self.parameters]
        return [f"--loss={self.loss}", *given, f"--beta={self.beta!r}", f"--seed={self.seed}",
                "--output", str(folder / "runs" / self.name), *shared]  # fmt: skip


def all_runs(losses: Sequence[str], betas: Sequence[float], seeds: Sequence[int], betas_of: str | None = None,
         parameters: Mapping[str, str] | None = None) -> list[Run]:  # fmt: skip
    """Return every loss at every beta with every seed, the first loss's runs first.

    With `betas_of` the betas are that loss's, and each loss gets the one of equal strength beta R. Each of `parameters`
    goes to the losses that have it. Raises InputError for an unknown loss, if there is no such beta, for a beta that is
    not above 0, and for anything given twice, a loss under two names too.

    >>> [(run.name, run.beta) for run in all_runs(["dpo", "ipo"], [0.1], [0], betas_of="dpo")]
    [('dpo-beta0.1-seed0', 0.1), ('ipo-beta0.05-seed0', 0.05)]
    """
    for name, values in (("loss", losses), ("beta", betas), ("seed", seeds)):
        for value in values:
            if values.count(value) > 1:
                raise InputError(f"`{name}={value}` is given twice")
    for beta in betas:
        if not 0 < beta < float("inf"):
            raise InputError(f"`beta={beta}` must be a finite number above 0")
    asked = [*losses, *([betas_of] if betas_of else [])]
    # Raises for a wrong name before anything runs.
    found = dict(zip(asked, find_losses(asked, parameters or {}), strict=True))
    same: dict[tuple[str, bool], str] = {}
    for text in losses:
        other = same.setdefault((str(found[text][0].f), text in AVERAGED), text)
        if other != text:
            raise InputError(f"`loss={text}` is the loss of `loss={other}` again")
    # What match_beta looks up: the user's word, or the formula with the parameters' values.
    known = {text: str(loss.f) if own else text for text, (loss, own) in found.items()}
    runs = [Run(loss, _beta(known, loss, beta, betas_of), seed, beta, tuple(found[loss][1].items()))
            for loss in losses for beta in betas for seed in seeds]  # fmt: skip
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            raise InputError(f"two runs of the grid would be called {run.name!r}; give them to two sweeps")
    return runs


def _beta(known: Mapping[str, str], loss: str, beta: float, betas_of: str | None) -> float:
    if betas_of is None:
        return beta
    match = match_beta(known[betas_of], known[loss], beta)
    if match.beta_to is None:
        # Not the match's own words, which offer arguments that a sweep does not have.
        reasons = [reason for text in (betas_of, loss) if (reason := unmatchable(find_loss(known[text]))) is not None]
        averaged = [text for text in (betas_of, loss) if text in AVERAGED]
        reasons += [f"{averaged[0]} averages the margin over tokens"] if len(averaged) == 1 else []
        raise InputError(f"no beta of {loss} does what `beta={beta:g}` does for `betas_of={betas_of}`: "
                         f"{'; '.join(reasons)}; `gpo beta` knows other ways to match two betas")  # fmt: skip
    return float(match.beta_to)


def write_results(runs: Iterable[Run], outcomes: dict[str, Outcome], path: Path) -> None:
    """Write one row a run to the Parquet file `path`: the point, how it ended, its last and its held-out metrics."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [_row(run, outcomes.get(run.name)) for run in runs]
    columns = {name: None for row in rows for name in row}
    table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})
    with atomic_file(path) as temporary:
        parquet.write_table(table, temporary)


def _row(run: Run, outcome: Outcome | None) -> dict[str, Any]:
    loss = find_loss(run.loss, dict(run.parameters))
    R = strength(loss).value
    row: dict[str, Any] = {"run": run.name, "loss_name": run.loss, "formula": loss.formula,
                           "parameters": ", ".join(map("=".join, run.parameters)), "beta": run.beta,
                           "beta_asked": run.like, "seed": run.seed, "strength": R,
                           "beta_R": None if R is None else run.beta * R}  # fmt: skip
    if outcome is None:
        return row | {"status": "not run"}
    row |= {"status": "done" if outcome.code == 0 else "failed", "exit_code": outcome.code,
            "attempts": outcome.attempts, "message": outcome.message}  # fmt: skip
    if outcome.code == 0:
        result = json.loads(outcome.printed)
        row |= {"pairs": result["pairs"], **result["last"], **(result["evaluation"] or {})}
    return row
