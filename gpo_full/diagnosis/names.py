"""The columns that logs of other trainers are read for: their keys, and their values as numbers."""

__all__ = ["columns_of", "numbers_of", "source_of"]

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

# key of a log: our column. Rewards are beta times the log-ratio.
NAMES = {
    # NeMo-RL (nemo_rl/algorithms/loss_functions.py, DPOLossFn): f is `preference_loss`, a part of its `loss`, and the
    # rewards are log-ratios without beta.
    "preference_loss": "loss", "rewards_chosen_mean": "log_ratio_chosen", "rewards_rejected_mean": "log_ratio_rejected",
    # transformers/trainer.py and trl/trainer/dpo_trainer.py write these to trainer_state.json. axolotl subclasses that
    # trainer; LLaMA-Factory (src/llamafactory/train/dpo/trainer.py) and ms-swift (swift/trainers/rlhf_trainer, and
    # swift/megatron/trainers/dpo_trainer.py without TRL) log the same keys.
    "rewards/margins": "margin", "rewards/chosen": "log_ratio_chosen", "rewards/rejected": "log_ratio_rejected",
    "rewards/accuracies": "accuracy", "loss": "loss", "grad_norm": "grad_norm", "step": "step", "epoch": "epoch",
    # LLaMA-Factory's trainer_log.jsonl (src/llamafactory/train/callbacks.py); `accuracy` is rewards/accuracies there,
    # and no margin is written.
    "current_steps": "step", "accuracy": "accuracy",
    # ms-swift's logging.jsonl: swift/trainers/patcher.py, and swift/megatron/callbacks/print.py. Texts: "12/100".
    "global_step/max_steps": "step", "iteration": "step",
    # OpenRLHF (openrlhf/trainer/dpo_trainer.py) logs to W&B or TensorBoard only, each key behind "train/": an export of
    # that is read. Its `loss_mean` was a running mean that starts at 0 in older versions, so `loss` is read instead.
    "chosen_reward": "log_ratio_chosen", "reject_reward": "log_ratio_rejected", "acc": "accuracy",
    "global_step": "step", "gpt_loss": "loss", "kto_loss": "loss",
}  # fmt: skip
LOGPS = {"logps/chosen": "logp_chosen", "logps/rejected": "logp_rejected"}  # read where no reward is logged
METRICS = {key for key, name in NAMES.items() if name not in ("step", "epoch")}  # an evaluation logs those two as well
LARGEST = 1e100  # a larger number counts as infinite: its square is
PREFIX = "train/"  # of TRL's keys on W&B as well
OURS = {"log_ratio_chosen", "regularizer", "saturated_left", "flat_right"}  # keys that only our metrics.jsonl has
# A key that one trainer alone writes.
SIGNS = {"current_steps": "llama-factory", "global_step/max_steps": "ms-swift", "iteration": "ms-swift",
         "chosen_reward": "openrlhf", "reject_reward": "openrlhf", "preference_loss": "nemo-rl",
         "rewards_chosen_mean": "nemo-rl"}  # fmt: skip


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what a row holds of numbers, infinite where one is not finite, by plain keys."""
    found = {plain(key): _number(value) for key, value in row.items()}
    return {key: value for key, value in found.items() if value is not None}


def plain(key: str) -> str:
    """Return a key without "train/" and without the run that W&B's charts write before it."""
    return key.rpartition(" - ")[2].removeprefix(PREFIX)


def source_of(keys: Set[str]) -> str | None:
    """Return the trainer that logs such keys, "gpo" for ours, "trl" for those that several share, or None."""
    foreign = keys & NAMES.keys() - {*NAMES.values()}
    other = "trl" if foreign else "gpo" if keys & OURS else None
    return next((source for key, source in SIGNS.items() if key in keys), other)


def columns_of(
    rows: Sequence[Mapping[str, float]], names: Mapping[str, str]
) -> tuple[dict[str, tuple[float, ...]], dict[str, str]]:
    """Return the columns by our names, and the log's own name of each; `names` maps keys to our columns.

    A value is NaN where a row lacks it.
    """
    own: dict[str, str] = {}
    for key, name in names.items():
        if any(key in row for row in rows):
            own.setdefault(name, key)
    columns = {name: tuple(row.get(key, math.nan) for row in rows) for name, key in own.items()}
    _complete(columns, own)
    return columns, own


def _complete(columns: dict[str, tuple[float, ...]], own: dict[str, str]) -> None:
    """Add the margin where only its two parts are logged, and make percentages shares."""
    parts = ("log_ratio_chosen", "log_ratio_rejected")
    if "margin" not in columns and all(name in columns for name in parts):
        # An infinity less another is one that was logged.
        columns["margin"] = tuple(math.inf if math.inf in map(abs, (a, b)) else a - b
                                  for a, b in zip(*(columns[name] for name in parts), strict=True))  # fmt: skip
        own["margin"] = " - ".join(own[name] for name in parts)
    shares = columns.get("accuracy", ())
    if any(2 < share < math.inf for share in shares):  # a share of 1 may be rounded up
        columns["accuracy"] = tuple(share / 100 for share in shares)


def _number(value: Any) -> float | None:
    """Return a number, or a text that is one: "0.6931", "75.00%" as a share, "12/100" as the first of both."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.strip().partition("/")[0] if isinstance(value, str) else ""
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1) if text else float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < LARGEST else math.inf  # also for a NaN
