"""Which method wrote a log, by its keys and first rewards: f(beta rho) needs pairs, and rewards against a reference."""

__all__ = ["Method", "method_of"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from gpo_full.diagnosis.names import LOGPS

NO_REFERENCE = "its rewards are beta log pi, without a reference"
UNPAIRED = "its responses are single, without a pair"
HEADS = "its rewards are a head's, without a policy"
NO_PAIRS = "no column of pairs is logged"
MISSING = f"{NO_PAIRS}: rewards/chosen, rewards/rejected and rewards/margins are missing"
OFF = 0.05  # a reward at the first step that is not 0


@dataclass(frozen=True)
class Method:
    """A method whose log is not of an f(beta rho), the keys it was recognised by, and the reason."""

    name: str
    by: tuple[str, ...]
    because: str


# Keys that one method alone logs. ORPO: trl/experimental/orpo, LLaMA-Factory train/dpo/trainer.py; KTO: trl/trainer/
# kto_trainer.py, LLaMA-Factory train/kto/trainer.py, openrlhf/trainer/kto_trainer.py; rewards: trl/trainer/
# reward_trainer.py, swift/trainers/rlhf_trainer/reward_trainer.py; sampled: trl/trainer/grpo_trainer.py and
# rloo_trainer.py, LLaMA-Factory train/ppo/trainer.py, TRL's PPO.
BY_KEY = (
    ("ORPO", ("log_odds_ratio", "log_odds_chosen", "odds_ratio_loss"), NO_REFERENCE),
    ("reward modelling", ("min_reward", "mean_reward", "max_reward", "center_rewards_loss"),
     HEADS),
    ("training on sampled responses (GRPO, RLOO or PPO)",
     ("reward", "reward_std", "completions/mean_length", "objective/rlhf_reward"), NO_PAIRS),
)  # fmt: skip
KTO = ("kto_loss", "kl", "count/chosen")  # beside rewards of chosen responses
SFT = ("mean_token_accuracy", "token_acc", "gpt_loss")  # of TRL, ms-swift and OpenRLHF
REWARDS = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "chosen_reward",
           "reject_reward", "rewards_chosen_mean", "rewards_rejected_mean")  # fmt: skip


def method_of(rows: Sequence[Mapping[str, float]], keys: frozenset[str], step: float | None) -> Method | None:
    """Return the method of a log that is not of an f(beta rho), or None where nothing speaks against that.

    `rows` hold numbers by the log's keys, `keys` are all of those, and `step` is the first row's.
    """
    for name, signs, because in BY_KEY:
        if by := tuple(sign for sign in signs if sign in keys):
            return Method(name, by, because)
    if "rewards_chosen_mean" in keys and "preference_loss" not in keys:  # of NeMo-RL
        return Method("reward modelling", ("rewards_chosen_mean",), HEADS)
    paired = tuple(key for key in REWARDS if key in keys)
    if paired and (by := tuple(key for key in KTO if key in keys)):
        return Method("KTO", by, UNPAIRED)
    if not paired:
        by = tuple(key for key in SFT if key in keys)
        # LLaMA-Factory's own log keeps of all rewards only their accuracy; another, the log-probabilities of pairs.
        if not by and ({"current_steps", "accuracy"} <= keys or LOGPS.keys() <= keys):
            return None
        return Method("SFT", by, NO_PAIRS) if by else Method("SFT or another method", (), MISSING)
    return _without_reference(rows, keys, step)


def _without_reference(rows: Sequence[Mapping[str, float]], keys: frozenset[str], step: float | None) -> Method | None:
    """Recognise SimPO and CPO, which log DPO's keys: their rewards are the log-probabilities times one constant."""
    sides = [(f"rewards/{side}", f"logps/{side}") for side in ("chosen", "rejected")]
    ratios = [row[reward] / row[logp] for row in rows for reward, logp in sides if row.get(logp) and reward in row]
    constant = median(ratios) if ratios else 0.0
    named = "SimPO, CPO or another method without a reference"
    if len(ratios) > 2 and constant > 1e-9 and all(abs(each / constant - 1) < 0.01 for each in ratios):
        return Method(named, tuple(key for side in sides for key in side), NO_REFERENCE)
    first = rows[0] if rows else {}
    # TRL's CPOTrainer always logs nll_loss, its DPOTrainer only with a likelihood term: then rewards still start at 0.
    away = [reward for reward, _ in sides if first.get(reward, 0.0) < -OFF]
    if "nll_loss" in keys and step is not None and step <= 1 and len(away) == len(sides):
        return Method(named, ("nll_loss", *away), NO_REFERENCE)
    return None
