"""`gpo evaluate`: a trained policy against its reference on prompts with human targets."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.export import writing
from gpo_full.cli.options.training import add_columns_option, columns_of
from gpo_full.evaluation.tasks import Task, read_tasks
from gpo_full.output import announce, print_json
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_full.evaluation.scores import PromptScore

EXAMPLE = "gpo evaluate --policy out/dpo --reference out/sft --data test.jsonl"
# Of an Evaluation, what --json prints.
NUMBERS = ("kl", "kl_se", "win_rate", "win_low", "win_high", "ties", "length_ratio", "n", "seed")
# The file in which peft keeps an adapter's configuration.
ADAPTER = "adapter_config.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo evaluate`."""
    parser.add_argument("--policy", required=True, help="folder of the trained model")
    parser.add_argument("--reference", required=True, help="folder of the model that its training started from")
    parser.add_argument("--data", required=True, help="JSON, CSV or Parquet with `prompt` and `target` in each row (a "
                        "reward model needs no target)")  # fmt: skip
    add_columns_option(parser, "prompt, target, system")
    parser.add_argument("--reward", help="folder of a sentence encoder (cosine to the target) or of a reward model (a "
                        "sequence classifier), or module:function (samples, targets) -> one number each, your own "
                        "code, which is run (default: the prepared encoder)")  # fmt: skip
    parser.add_argument("--scores", metavar="FILE", help="write the responses and scores of each prompt, as JSONL")
    parser.add_argument("--against", metavar="FILE", help="the --scores of another policy on the same data, reference "
                        "and seed: compare the two prompt by prompt")  # fmt: skip
    parser.add_argument("--limit", type=int, help="use only the first LIMIT rows")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="longest response (default: 32)")
    parser.add_argument("--batch-size", type=int, default=32, help="prompts in a batch (default: 32)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's choice)")


def run(args: argparse.Namespace) -> int:
    """Sample one response per prompt from each model, score them, and print the summary."""
    announce("evaluate")
    from gpo_full.evaluation.scores import compare_scores, read_scores, summarize, write_scores

    tasks = read_tasks(args.data, args.limit, columns_of(args.columns))
    for name in (args.policy, args.reference):
        if not any((Path(name) / each).is_file() for each in ("config.json", ADAPTER)):
            raise InputError(f"{name!r} is not the folder of a model or an adapter: it has no config.json and no "
                             f"{ADAPTER}")  # fmt: skip
    other = None if args.against is None else read_scores(args.against)
    from gpo_full.evaluation.golden_reward import REWARD_NAME

    rows = _score(args, tasks)
    found = asdict(summarize(rows, args.seed))
    payload = {**{name: found[name] for name in NUMBERS}, "reward": args.reward or REWARD_NAME,
               "policy": args.policy, "reference": args.reference}  # fmt: skip
    if args.scores is not None:
        with writing("--scores", args.scores) as temporary:
            write_scores(temporary, rows)
    if other is not None:
        payload["paired"] = asdict(compare_scores(rows, other, seed=args.seed))
    if args.json:
        print_json(payload)
    else:
        _print(payload, args.against)
    return 0


def _print(payload: dict[str, Any], against: str | None) -> None:
    from gpo_full.evaluation.golden_reward import REWARD_NAME

    judge = "golden win rate" if payload["reward"] == REWARD_NAME else f"win rate by {payload['reward']}"
    print(f"{judge} {payload['win_rate']:.3f}  95% interval [{payload['win_low']:.3f}, "
          f"{payload['win_high']:.3f}]  ({payload['ties']} ties of {payload['n']})")  # fmt: skip
    print(f"KL(policy || reference) {payload['kl']:.4f} nats per response, standard error {payload['kl_se']:.4f}")
    print(f"length ratio {payload['length_ratio']:.3f}")
    if against is not None:
        paired = payload["paired"]
        print(f"win rate minus that of {against}: {paired['difference']:+.3f}  95% interval [{paired['low']:+.3f}, "
              f"{paired['high']:+.3f}], paired by prompt")  # fmt: skip
        print(f"win rate against it, head to head: {paired['win_rate']:.3f}  [{paired['win_low']:.3f}, "
              f"{paired['win_high']:.3f}]")  # fmt: skip


def _score(args: argparse.Namespace, tasks: list[Task]) -> "list[PromptScore]":
    import torch
    from transformers.utils import logging

    from gpo_full.evaluation.compare import reference_answers, score_prompts
    from gpo_full.evaluation.golden_reward import load_reward
    from gpo_full.evaluation.prompts import shared_layers
    from gpo_full.reference.weights import weights_hash
    from gpo_full.training.start.model import loaded, loaded_tokenizer

    logging.disable_progress_bar()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    reward, tokenizer = load_reward(args.reward), loaded_tokenizer(args.reference)
    tasks = [task.as_text(tokenizer) for task in tasks]
    judged = [task.judged_against(reward) for task in tasks]
    policy, reference = loaded(args.policy), loaded(args.reference)
    _note_another_start(args, weights_hash(reference))
    if _start_of(args.reference) == weights_hash(policy) != _start_of(args.policy):
        print(f"gpo evaluate: the training of --reference {args.reference!r} started from --policy {args.policy!r}: "
              "the two seem to be swapped", file=sys.stderr)  # fmt: skip
    policy, reference = _merged(policy), _merged(reference)
    if policy.config.vocab_size != reference.config.vocab_size:
        raise InputError(f"{args.policy!r} and {args.reference!r} have different vocabularies: "
                         f"{policy.config.vocab_size} and {reference.config.vocab_size} tokens")  # fmt: skip
    options = {"seed": args.seed, "max_new_tokens": args.max_new_tokens}
    against = reference_answers(reference, tokenizer, [task.prompt for task in tasks], judged,
                                batch_size=args.batch_size, shared=shared_layers(policy, reference),
                                **options)  # fmt: skip
    return score_prompts(policy, reference, tokenizer, against, reward, total=-(-len(tasks) // args.batch_size),
                         **options)  # fmt: skip


def _note_another_start(args: argparse.Namespace, weights: str) -> None:
    """Say so if the policy's run recorded that its reference had other weights than those of --reference."""
    if _start_of(args.policy) not in (None, weights):
        print(f"gpo evaluate: --reference {args.reference!r} is not the model that the training of {args.policy!r} "
              "started from; KL and win rate are against it all the same", file=sys.stderr)  # fmt: skip


def _start_of(folder: str) -> str | None:
    """Return the hash of the weights from which the training of a folder started, None if it records none."""
    from gpo_full.run_files import RUN_FILE
    from gpo_full.training.reporting.run_folder import RunFolder

    return RunFolder(Path(folder)).settings().get("reference_weights") if (Path(folder) / RUN_FILE).is_file() else None


def _merged(model: Any) -> Any:
    """Return the model for sampling, an adapter merged into its base."""
    import torch

    model = model.merge_and_unload() if hasattr(model, "peft_config") else model
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
