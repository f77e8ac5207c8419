"""`gpo toy`: gradient descent in a toy model, where every expectation is computed exactly."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.export import writing
from gpo_full.cli.options.parameters import add_param_option, read_parameters
from gpo_full.output import announce, print_json, progress, show
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_theory.loss import Loss
    from toy_models import Bandit, GaussianMixture, Preferences, Trace

EXAMPLE = "gpo toy bandit --reference 0.7,0.29,0.01 --initial 0.01,0.5,0.49 --lr 0.05 --steps 2000"
_MIXTURE_EXAMPLE = "gpo toy mixture --behaviour 2,1 --initial-means -2,2 --initial-logits 3,0 --plot drift.png"
_MAX_STEPS = 1_000_000
_COLUMNS = ("step", "kl", "regularizer", "objective")
_FORMATS = (".png", ".svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two toys and their options."""
    toys = parser.add_subparsers(dest="toy", required=True, metavar="bandit|mixture")
    bandit = toys.add_parser("bandit", help="a softmax policy over K responses", allow_abbrev=False,
                             description="a softmax bandit: exact sums over responses",
                             epilog=f"example: {EXAMPLE}")  # fmt: skip
    bandit.add_argument("--reference", required=True, metavar="P,P,...", help="reference policy; fractions allowed")
    bandit.add_argument("--initial", metavar="P,P,...", help="initial policy (default for gpo: the reference)")
    bandit.add_argument("--behaviour", metavar="reference|policy|uniform|P,P,...",
                        help="distribution of each of the two responses, independent (default reference)")  # fmt: skip
    bandit.add_argument("--pairs", metavar="I-J,...", help="draw uniformly from these pairs instead, counted from 1")
    bandit.add_argument("--rewards", metavar="R,R,...", help="Bradley-Terry preferences of these rewards (gpo)")
    bandit.add_argument("--preferences", metavar="FILE.csv", help="preference matrix p_ij, no header (gpo)")
    _add_common(bandit, steps=2000)
    mixture = toys.add_parser("mixture", help="a mixture of Gaussians on the real line", allow_abbrev=False,
                              description="a mixture of Gaussians of variance 1: quadrature on a grid",
                              epilog=f"example: {_MIXTURE_EXAMPLE}")  # fmt: skip
    mixture.add_argument("--reference-means", metavar="M,M", default="-2,2", help="default -2,2")
    mixture.add_argument("--reference-weights", metavar="P,P", help="default: all equal")
    mixture.add_argument("--initial-means", metavar="M,M", default="-2,2", help="default -2,2")
    mixture.add_argument("--initial-logits", metavar="Z,Z", default="3,0", help="weight logits, default 3,0")
    mixture.add_argument("--behaviour", metavar="reference|policy|MEAN,VARIANCE", default="reference",
                         help="distribution of each of the two responses, independent (default reference)")  # fmt: skip
    mixture.add_argument("--reward", metavar="FORMULA", help="reward in x, the response, such as \"-(x-2)**2\" (gpo)")
    mixture.add_argument("--grid", metavar="LOW,HIGH,STEP", help="default -14,14,0.01 (step 0.2 for gpo)")
    _add_common(mixture, steps=400)


def _add_common(parser: argparse.ArgumentParser, steps: int) -> None:
    parser.add_argument("--objective", choices=("regularizer", "gpo"), default="regularizer",
                        help="E[rho^2/2] (default) or the GPO loss")  # fmt: skip
    parser.add_argument("--loss", metavar="LOSS", help="name, alias or formula in x = beta * rho (gpo)")
    add_param_option(parser, "the loss (gpo)")
    parser.add_argument("--beta", metavar="B", help="default 1 (gpo)")
    parser.add_argument("--lr", metavar="RATE", default="0.05", help="gradient step, default 0.05")
    parser.add_argument("--steps", metavar="N", default=str(steps), help=f"default {steps}")
    parser.add_argument("--plot", metavar="FILE", help="write a figure, .png or .svg")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run gradient descent, plot it if `--plot` is given, and print the trace."""
    announce(f"toy {args.toy}")
    if args.plot and Path(args.plot).suffix.lower() not in _FORMATS:
        raise InputError(f"--plot {args.plot!r}: allowed endings: {', '.join(_FORMATS)}")
    steps, lr = _steps(args.steps), _number(args, "lr")
    _check_gpo_options(args)
    import torch

    from toy_models import descend
    from toy_models.optima import kl_to_optimum, optimum

    torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other
    model, start = _bandit(args) if args.toy == "bandit" else _mixture(args)
    loss, preferences, beta = _objective(args, model)
    best = optimum(model, loss, beta=beta, preferences=preferences)
    trace = descend(model, start, loss, beta=beta, preferences=preferences, lr=lr, steps=steps,
                    watch=lambda items: progress(items, "descent", steps + 1))  # fmt: skip
    distance = kl_to_optimum(model, trace.parameters[-1], best)
    payload: dict[str, Any] = {name: getattr(trace, name).tolist() for name in _COLUMNS}
    payload["policy"] = _policy(args.toy, model, trace.parameters[-1])
    payload["kl_to_optimum"] = None if distance is None else distance.item()
    if args.toy == "mixture":
        payload["quadrature_error"] = _quadrature_error(model, trace, loss, beta, preferences)
    if args.plot:
        _draw(args.plot, model, trace)
    if args.json:
        print_json(payload)
    else:
        _show(payload, loss, args.plot)
    return 0


def _check_gpo_options(args: argparse.Namespace) -> None:
    """Raise InputError for an option that would be ignored and for one that is missing."""
    sources = ("rewards", "preferences") if args.toy == "bandit" else ("reward",)
    given = [name for name in ("loss", "param", "beta", *sources) if getattr(args, name) not in (None, [])]
    if args.objective == "regularizer":
        if given:
            raise InputError(f"--{given[0]} is for --objective gpo; the regulariser does not use it")
        if args.toy == "bandit" and args.initial is None:
            raise InputError("--objective regularizer needs --initial: at the reference it is 0 already")
        return
    if args.loss is None:
        raise InputError("--objective gpo needs --loss, such as --loss dpo")
    if sum(name in given for name in sources) != 1:
        raise InputError(f"--objective gpo needs {' or else '.join('--' + name for name in sources)}")


def _bandit(args: argparse.Namespace) -> tuple["Bandit", Any]:
    from toy_models import Bandit

    behaviour = args.behaviour
    if behaviour is not None and not behaviour[:1].isalpha():
        behaviour = _numbers(args, "behaviour")
    pairs = None if args.pairs is None else _pairs(args.pairs)
    model = Bandit(_numbers(args, "reference"), behaviour, pairs)
    return model, model.start(_numbers(args, "reference" if args.initial is None else "initial"))


def _mixture(args: argparse.Namespace) -> tuple["GaussianMixture", Any]:
    from toy_models import GaussianMixture

    means = _numbers(args, "reference_means")
    weights = _numbers(args, "reference_weights") or (1 / len(means),) * len(means)
    behaviour: Any = args.behaviour if args.behaviour[:1].isalpha() else _numbers(args, "behaviour")
    grid = _numbers(args, "grid") or (-14.0, 14.0, 0.2 if args.objective == "gpo" else 0.01)
    if len(grid) != 3:
        raise InputError(f"--grid {args.grid!r}: needed: LOW,HIGH,STEP")
    model = GaussianMixture(means, weights, behaviour, *grid)
    return model, model.start(_numbers(args, "initial_means"), _numbers(args, "initial_logits"))


def _objective(args: argparse.Namespace, model: "Bandit | GaussianMixture"
               ) -> tuple["Loss | None", "Preferences | None", float]:  # fmt: skip
    if args.objective == "regularizer":
        return None, None, 1.0
    from gpo_theory import find_loss
    from toy_models import GaussianMixture, Preferences

    loss = find_loss(args.loss, read_parameters(args.param))
    beta = 1.0 if args.beta is None else _number(args, "beta")
    if isinstance(model, GaussianMixture):
        return loss, Preferences.from_rewards(_rewards(args.reward, model)), beta
    if args.preferences is not None:
        return loss, Preferences.from_csv(args.preferences), beta
    return loss, Preferences.from_rewards(_numbers(args, "rewards")), beta


def _rewards(formula: str, model: "GaussianMixture") -> Any:
    from gpo_theory import parse, to_torch

    rewards = to_torch(parse(formula))(model.grid)
    if not rewards.isfinite().all():
        where = model.grid[~rewards.isfinite()][0].item()
        raise InputError(f"--reward {formula!r} is not finite at x = {where:g}")
    return rewards


def _policy(toy: str, model: "Bandit | GaussianMixture", parameters: Any) -> Any:
    if toy == "bandit":
        return model.log_policy(parameters).exp().tolist()
    means, logits = parameters.chunk(2)
    return {"means": means.tolist(), "weights": logits.softmax(dim=-1).tolist(), "logits": logits.tolist()}


def _quadrature_error(model: Any, trace: "Trace", loss: Any, beta: float, preferences: Any) -> float:
    """The largest error estimate at five steps of the path; a policy that left the grid is refused."""
    from toy_models.quadrature import quadrature_error

    chosen = {round(part * (len(trace.step) - 1) / 4) for part in range(5)}
    worst = max(quadrature_error(model, trace.parameters[step], loss, beta=beta, preferences=preferences).item()
                for step in chosen)  # fmt: skip
    if not worst <= 1e-2:
        raise InputError(f"the quadrature may be off by {worst:.2g}: the policy left the grid or the grid is too "
                         "coarse; give a wider or finer --grid")  # fmt: skip
    return worst


def _draw(path: str, model: "Bandit | GaussianMixture", trace: "Trace") -> None:
    from matplotlib.figure import Figure

    from gpo_theory.report.plots import save
    from toy_models import Bandit
    from toy_models.plots import plot_densities, plot_simplex, plot_trace

    policies = model.log_policy(trace.parameters[[0, -1]]).exp()
    beside = not isinstance(model, Bandit) or len(model.log_reference) == 3
    figure = Figure(figsize=(11 if beside else 5.5, 4.2), layout="constrained", dpi=150)
    axes = figure.subplots(1, 2 if beside else 1, squeeze=False)[0]
    plot_trace(axes[0], trace.step, trace.kl, trace.regularizer)
    if not isinstance(model, Bandit):
        densities = {"reference": model.log_reference.exp(), "start": policies[0], "end": policies[1]}
        if model.mu is not None and model.behaviour != "reference":
            densities["behaviour"] = model.mu
        plot_densities(axes[1], model.grid, {name: mass / model.step for name, mass in densities.items()})
    elif beside:
        plot_simplex(axes[1], {"policy": model.log_policy(trace.parameters).exp()}, model.log_reference.exp())
    with writing("--plot", path) as temporary:
        save(figure, temporary)


def _show(payload: dict[str, Any], loss: "Loss | None", plot: str | None) -> None:
    from rich.table import Table
    from rich.text import Text

    objective = "E[rho^2 / 2]" if loss is None else "E[p f(beta rho) + (1-p) f(-beta rho)]"
    # A Text, because rich would read the brackets as markup.
    table = Table(title=Text(f"Descent on {objective}"))
    for column in ("step", "KL (nats)", "regulariser (nats²)", "objective"):
        table.add_column(column, justify="right")
    last = len(payload["step"]) - 1
    highest = max(range(last + 1), key=payload["kl"].__getitem__)  # it may lie between the rows
    for step in sorted({highest, *(round(part * last / 10) for part in range(11))}):
        table.add_row(str(step), *(f"{payload[name][step]:.6g}" for name in _COLUMNS[1:]))
    show(table, f"the KL is highest at step {highest}: {payload['kl'][highest]:.6g} nats")
    if loss is not None:
        show(f"f(x) = {loss.formula}, x = beta * rho, rho in nats")
    policy = payload["policy"] if isinstance(payload["policy"], dict) else {"policy": payload["policy"]}
    for name, values in policy.items():
        show(f"final {name}: {', '.join(f'{value:.6g}' for value in values)}")
    distance = payload["kl_to_optimum"]
    show(f"KL to the optimum: {'no closed form known' if distance is None else f'{distance:.6g} nats'}")
    if "quadrature_error" in payload:
        show(f"quadrature error at most about {payload['quadrature_error']:.2g}")
    if plot:
        show(f"figure: {plot}")


def _numbers(args: argparse.Namespace, name: str) -> tuple[float, ...]:
    """Return the numbers of an option, none if it is not given; InputError, which names it, for anything else."""
    from toy_models.inputs import read_numbers

    text = getattr(args, name)
    try:
        return () if text is None else read_numbers(text)
    except InputError as error:
        raise InputError(f"--{name.replace('_', '-')}: {error}") from None


def _number(args: argparse.Namespace, name: str) -> float:
    """Return the number of an option."""
    found = _numbers(args, name)
    if len(found) != 1:
        raise InputError(f"--{name}: {getattr(args, name)!r} is not one number")
    return found[0]


def _steps(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= _MAX_STEPS:
        raise InputError(f"--steps {text!r}: allowed: 1 to {_MAX_STEPS}")
    return int(text)


def _pairs(text: str) -> list[tuple[int, int]]:
    pairs = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,9})-([0-9]{1,9})\s*", part)
        if found is None:
            raise InputError(f"--pairs: {part!r} is not a pair; allowed: such as 1-2,2-3, counted from 1")
        pairs.append((int(found[1]) - 1, int(found[2]) - 1))
    return pairs
