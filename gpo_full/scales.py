"""How large the controlled experiment is: every number that defines a scale, and the material it works on."""

__all__ = ["LOSS_NAMES", "Material", "SCALES", "Scale", "find_scale", "material"]

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpo_full.golden_reward import REWARD_NAME, GoldenReward, Reward
from gpo_full.policy import POLICY_NAME
from gpo_theory.errors import InputError, nearest

LOSS_NAMES = ("logistic", "hinge", "squared", "exponential", "truncated_squared", "savage")


@dataclass(frozen=True)
class Scale:
    """The settings of one scale; all were fixed before its final runs were looked at."""

    name: str
    longest_prompt: int  # tokens; longer tasks are left out
    longest_response: int  # tokens; sampling stops there
    sft_steps: int
    sft_batch: int
    sft_layers: int
    sft_learning_rate: float
    pair_prompts: int
    pairs: int
    steps: int
    pairs_per_step: int
    trained_layers: int
    learning_rates: tuple[float, ...]  # tried by the pilot in this order
    beta: float  # of the logistic loss, to which the others are matched
    pilot_prompts: int
    test_prompts: int
    budget_seconds: float  # of the whole experiment
    seed: int = 0
    label_slope: float = 20.0  # k of P(y1 preferred) = sigmoid(k (r1 - r2))
    unmatched: float = 4.0  # the unmatched beta over the matched one
    certainty: float = 0.9  # p at which a loss with R = 0 is matched by its target margin
    reached: float = 1.0  # mean beta rho that ends the pilot


SCALES = {
    "smoke": Scale(
        "smoke", longest_prompt=64, longest_response=8, sft_steps=3, sft_batch=4, sft_layers=2, sft_learning_rate=1e-3,
        pair_prompts=24, pairs=16, steps=6, pairs_per_step=4, trained_layers=1, learning_rates=(3e-2,), beta=0.5,
        pilot_prompts=6, test_prompts=12, budget_seconds=3600.0,
    ),
    "cpu": Scale(
        "cpu", longest_prompt=96, longest_response=32, sft_steps=60, sft_batch=8, sft_layers=12,
        sft_learning_rate=1e-4, pair_prompts=160, pairs=120, steps=60, pairs_per_step=4, trained_layers=8,
        learning_rates=(5e-5, 1e-4), beta=0.2, pilot_prompts=64, test_prompts=200, budget_seconds=1080.0,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What a scale works on: a policy and its tokenizer, tasks by split, a reward, and a hash of it all."""

    model: Any
    tokenizer: Any
    tasks: dict[str, list[dict[str, str]]]
    reward: Reward
    policy_name: str
    reward_name: str
    fingerprint: str


def material(scale: Scale) -> Material:
    """Return the material of `scale`: prepared (and loaded) for "cpu", made on the spot for "smoke"."""
    return _toy() if scale.name == "smoke" else _prepared()


def find_scale(name: str) -> Scale:
    """Return the scale called `name`, or raise InputError."""
    if name not in SCALES:
        raise InputError(f"unknown scale {name!r}; allowed: {', '.join(SCALES)}{nearest(name, SCALES)}")
    return SCALES[name]


def _prepared() -> Material:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gpo_full.preparation import prepare

    folders = prepare()
    manifests = [json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
                 for folder in (folders.policy, folders.reward, folders.data)]  # fmt: skip
    tasks = {split: _lines(folders.data / f"{split}.jsonl") for split in ("train", "pilot", "test")}
    model = AutoModelForCausalLM.from_pretrained(folders.policy, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folders.policy)
    return Material(model, tokenizer, tasks, GoldenReward(folders.reward), POLICY_NAME, REWARD_NAME,
                    json.dumps(manifests, sort_keys=True))  # fmt: skip


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _toy() -> Material:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")
    config = LlamaConfig(vocab_size=len(alphabet), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0,
                         eos_token_id=0, pad_token_id=0, tie_word_embeddings=True)  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    rng = random.Random(0)
    tasks = {split: [_toy_task(rng) for _ in range(60)] for split in ("train", "pilot", "test")}
    return Material(model, tokenizer, tasks, _same_letters, "a random network of 3 layers",
                    "overlap of letters with the target", "toy 1")  # fmt: skip


def _toy_task(rng: random.Random) -> dict[str, str]:
    words = [rng.choice(("table", "row", "sum", "of", "the", "list", "keep", "read")) for _ in range(8)]
    return {"prompt": f"{' '.join(words)}\nSummary:", "target": " ".join(words[:2]), "package": "toy"}


def _same_letters(samples: Any, targets: Any) -> list[float]:
    """Return the share of letters in common, so that random texts differ in reward."""
    def share(a: str, b: str) -> float:
        return sum(min(a.count(c), b.count(c)) for c in set(a)) / max(len(a), len(b), 1)

    return [share(a, b) for a, b in zip(samples, targets, strict=True)]
