"""`gpo evaluate`: a trained policy against its reference on prompts with human targets."""

__all__ = ["EXAMPLE", "add_arguments", "run"]

import argparse
import json
from pathlib import Path
from typing import Any

from gpo_theory.errors import InputError

EXAMPLE = "gpo evaluate --policy out/dpo --reference out/sft --data test.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpo evaluate`."""
    parser.add_argument("--policy", required=True, help="folder of the trained model")
    parser.add_argument("--reference", required=True, help="folder of the model that it started from")
    parser.add_argument("--data", required=True, help="JSONL with `prompt` and `target` in each row")
    parser.add_argument("--reward", help="folder of a sentence encoder, or module:function (samples, targets) -> one "
                        "number each, which is your own code and is run (default: the prepared encoder)")  # fmt: skip
    parser.add_argument("--limit", type=int, help="use only the first LIMIT rows")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="longest response (default: 32)")
    parser.add_argument("--batch-size", type=int, default=32, help="prompts in a batch (default: 32)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's choice)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Sample once per prompt from each policy, score, and print."""
    for name in ("limit", "max_new_tokens", "batch_size", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value} must be at least 1")
    tasks = _tasks(Path(args.data), args.limit)
    for name in (args.policy, args.reference):
        if not (Path(name) / "config.json").is_file():
            raise InputError(f"{name!r} is not the folder of a model: it has no config.json")
    from gpo_full.output import print_json

    payload = _evaluate(args, tasks)
    if args.json:
        print_json(payload)
        return 0
    print(f"golden win rate {payload['win_rate']:.3f}  95% interval [{payload['win_low']:.3f}, "
          f"{payload['win_high']:.3f}]  ({payload['ties']} ties of {payload['n']})")  # fmt: skip
    print(f"KL(policy || reference) {payload['kl']:.4f} nats per response, standard error {payload['kl_se']:.4f}")
    print(f"length ratio {payload['length_ratio']:.3f}")
    return 0


def _evaluate(args: argparse.Namespace, tasks: list[tuple[str, str]]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from gpo_full.evaluation import evaluate, opponents
    from gpo_full.golden_reward import REWARD_NAME, load_reward
    from gpo_full.prompts import shared_layers

    logging.disable_progress_bar()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    reward = load_reward(args.reward)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def load(kind: Any, folder: str, **options: Any) -> Any:
        try:
            return kind.from_pretrained(folder, **options)
        except (OSError, ValueError) as error:
            raise InputError(f"{folder!r} cannot be loaded: {str(error).splitlines()[0]}") from None

    tokenizer = load(AutoTokenizer, args.reference)
    policy, reference = (load(AutoModelForCausalLM, folder, dtype=torch.float32).to(device).eval()
                         for folder in (args.policy, args.reference))  # fmt: skip
    if policy.config.vocab_size != reference.config.vocab_size:
        raise InputError(f"{args.policy!r} and {args.reference!r} have different vocabularies: "
                         f"{policy.config.vocab_size} and {reference.config.vocab_size} tokens")  # fmt: skip
    against = opponents(reference, tokenizer, [prompt for prompt, _ in tasks], [target for _, target in tasks],
                        seed=args.seed, max_new_tokens=args.max_new_tokens, batch_size=args.batch_size,
                        keep=shared_layers(policy, reference))  # fmt: skip
    found = evaluate(policy, reference, tokenizer, against, reward, seed=args.seed,
                     max_new_tokens=args.max_new_tokens, total=-(-len(tasks) // args.batch_size))  # fmt: skip
    names = ("kl", "kl_se", "win_rate", "win_low", "win_high", "ties", "length_ratio", "n", "seed")
    return {**{name: getattr(found, name) for name in names}, "reward": args.reward or REWARD_NAME,
            "policy": args.policy, "reference": args.reference}  # fmt: skip


def _tasks(path: Path, limit: int | None) -> list[tuple[str, str]]:
    """Return (prompt, target) of each row; a bad row is named by its number."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None
    tasks = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            tasks.append(_task(f"{path}: row {number}", line))
        if limit is not None and len(tasks) == limit:
            break
    if not tasks:
        raise InputError(f"{str(path)!r} has no rows")
    return tasks


def _task(where: str, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON") from None
    if not isinstance(row, dict):
        raise InputError(f"{where} is not an object with `prompt` and `target`")
    for key in ("prompt", "target"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise InputError(f"{where}: {key!r} is missing, empty or not text")
    return row["prompt"], row["target"]
