"""`gpo evaluate`: a trained policy against its reference on prompts with human targets."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpo_full.cli.options.export import writing
from gpo_full.cli.options.training import add_columns_option, columns_of
from gpo_full.evaluation.tasks import Task, read_tasks
from gpo_full.output import print_json
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
    add_columns_option(parser, "prompt, target")
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
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from gpo_full.evaluation.compare import reference_answers, score_prompts
    from gpo_full.evaluation.golden_reward import load_reward
    from gpo_full.evaluation.prompts import shared_layers

    logging.disable_progress_bar()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    reward = load_reward(args.reward)
    judged = [task.judged_against(reward) for task in tasks]
    tokenizer = _load(AutoTokenizer, args.reference)
    policy, reference = (_model(folder) for folder in (args.policy, args.reference))
    if policy.config.vocab_size != reference.config.vocab_size:
        raise InputError(f"{args.policy!r} and {args.reference!r} have different vocabularies: "
                         f"{policy.config.vocab_size} and {reference.config.vocab_size} tokens")  # fmt: skip
    options = {"seed": args.seed, "max_new_tokens": args.max_new_tokens}
    against = reference_answers(reference, tokenizer, [task.prompt for task in tasks], judged,
                                batch_size=args.batch_size, shared=shared_layers(policy, reference),
                                **options)  # fmt: skip
    return score_prompts(policy, reference, tokenizer, against, reward, total=-(-len(tasks) // args.batch_size),
                         **options)  # fmt: skip


def _model(folder: str) -> Any:
    """Return the causal language model in `folder`, an adapter merged into its base, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    if (Path(folder) / ADAPTER).is_file():
        from peft import AutoPeftModelForCausalLM

        from gpo_full.training.model import without_peft_warning

        with without_peft_warning():
            model = _load(AutoPeftModelForCausalLM, folder, dtype=torch.float32).merge_and_unload()
    else:
        model = _load(AutoModelForCausalLM, folder, dtype=torch.float32)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _load(kind: Any, folder: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder!r} cannot be loaded: {str(error).splitlines()[0]}") from None
