"""`gpo diagnose`: what the theory says about a training run, ours or another trainer's, from its metrics."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpo_full.cli.options.export import writing
from gpo_full.cli.options.messages import with_options
from gpo_full.cli.options.parameters import add_param_option, read_parameters
from gpo_full.diagnosis.log import RunLog, changes_of, read_run
from gpo_full.output import print_json, show
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_full.diagnosis.rules import Diagnosis
    from gpo_theory.loss import Loss

EXAMPLE = "gpo diagnose checkpoint-500/trainer_state.json --loss dpo --beta 0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo diagnose`."""
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of gpo train, or the log of TRL, LLaMA-Factory, ms-swift, axolotl, "
        "OpenRLHF or NeMo-RL, or a folder that holds it")  # fmt: skip
    add("--loss", metavar="LOSS", help="loss of a run that does not record it (TRL's): name, alias or formula")
    add_param_option(parser, "--loss")
    add("--beta", type=float, help="beta of a run that does not record it, above 0")
    add("--label-noise", type=float, metavar="RATE",
        help="rate at which labels are believed to be flipped, in (0, 1/2); finds margins that fit flips")  # fmt: skip
    add("--plot", metavar="FILE", help="also draw loss, margin, log-ratios and samples (.png, .svg or .pdf)")


def run(args: argparse.Namespace) -> int:
    """Read the run, apply the rules, and print the findings."""
    from gpo_full.diagnosis.rules import diagnose

    log = read_run(args.run)
    found = diagnose(log, _loss(args, log), args.beta, args.label_noise)
    found = replace(found, not_looked_at={name: with_options(why) for name, why in found.not_looked_at.items()})
    if args.plot is not None:
        from gpo_full.diagnosis.plots import run_curves
        from gpo_theory.report.plots import save

        figure = run_curves(found)
        with writing("--plot", args.plot) as temporary:
            save(figure, temporary)
    if args.json:
        print_json(found.as_dict())
    else:
        _print(found, args.loss or str(log.settings.get("loss")))
    return 0


def _loss(args: argparse.Namespace, log: RunLog) -> "Loss | None":
    from gpo_theory import find_loss
    from gpo_theory.catalogue import AVERAGED

    if args.loss is None:
        if args.param:
            raise InputError("--param is for --loss, which is not given")
        return None
    if log.source != "gpo" and args.loss in AVERAGED:
        raise InputError(f"TRL logs the summed margin, and {args.loss} is a function of the length-averaged one: "
                         "without --loss, the other rules apply")  # fmt: skip
    return find_loss(args.loss, read_parameters(args.param))


def _print(found: "Diagnosis", given: str) -> None:
    from rich.text import Text

    from gpo_theory.choosing.matching import convention

    loss = f"loss {found.loss.name}" if found.loss else "loss not known"
    beta = f"beta {found.beta:g}" if found.beta else "beta not known"
    show(f"{found.log.run} ({found.log.source}): {loss}, {beta}, {len(found.log)} logs")
    note = convention(given, found.log.settings.get("margin"))
    if note:
        show(f"convention: {note}")
    for change in changes_of(Path(found.log.run)):
        show(f"resumed with a change {change}; the findings assume the last settings for the whole run")
    if found.log.samples:
        last = found.log.samples[-1]
        show(f"samples for {last['n']} prompts after step {last['step']}: KL {last['kl']:.4g} nats (standard error "
             f"{last['kl_se']:.2g}), win rate {last['win_rate']:.3f} [{last['win_low']:.3f}, {last['win_high']:.3f}]")
    for line in _of_the_log(found):
        show(Text(line))
    for finding in found.findings:
        show(Text.assemble((finding.id, "bold"), f" ({finding.number:.4g}): {finding.because}"))
        show(Text(f"  columns: {', '.join(finding.columns) or 'none, the loss alone'}", style="dim"))
        show(Text(f"  limits: {finding.limits}", style="dim"))
    if not found.findings:
        show("nothing found")
    show(f"rules applied: {', '.join(found.looked_at)}")
    for reason in dict.fromkeys(() if found.log.method else found.not_looked_at.values()):
        names = [name for name, why in found.not_looked_at.items() if why == reason]
        show(f"not applied, because {reason}: {', '.join(names)}")


def _of_the_log(found: "Diagnosis") -> Iterator[str]:
    """Yield what is to be known of the log before its findings: its method, what some rows lack, what is not read."""
    log = found.log
    if log.method:
        how = f"recognised by {', '.join(log.method.by)}:" if log.method.by else "taken for"
        yield (f"{how} {log.method.name}; {log.method.because}, so the {len(found.not_looked_at)} rules on "
               "margins, their start and their drift are not applied")  # fmt: skip
    for count in sorted({*log.lacking.values()}):
        names = [log.names.get(name, name) for name, lacking in log.lacking.items() if lacking == count]
        yield f"{count} of {len(log)} logs lack {', '.join(names)}: rules on them use the others"
    if log.unread:
        yield f"not read: {', '.join(log.unread)}"
