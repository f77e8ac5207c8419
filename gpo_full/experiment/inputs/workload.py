"""What an experiment works on: the policy, the texts, the reward, and a hash of all three."""

__all__ = ["Workload", "load_workload"]

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gpo_full.evaluation.golden_reward import REWARD_NAME, GoldenReward, Reward, load_reward
from gpo_full.experiment.inputs.policy import POLICY_NAME
from gpo_full.experiment.inputs.scales import Scale


@dataclass(frozen=True)
class Workload:
    """A policy and its tokenizer, tasks by split, a reward, their names, and what identifies each of the three."""

    model: Any
    tokenizer: Any
    tasks: dict[str, list[dict[str, str]]]
    reward: Reward
    policy_name: str
    reward_name: str
    identity: tuple[str, str, str]

    @property
    def fingerprint(self) -> str:
        """A text that changes with the policy, the reward or the tasks."""
        return json.dumps(self.identity)

    def rewards(self, answers: Sequence[str], tasks: Sequence[Mapping[str, str]]) -> list[float]:
        """Return the reward of each answer to its own task."""
        return self.reward(answers, self.judged_against(tasks))

    def selected(self, longest_prompt: int, seed: int) -> "Workload":
        """Return the workload with those tasks of at most `longest_prompt` tokens, in random order."""
        tasks = {}
        for split, whole in self.tasks.items():
            fits = [task for task in whole if len(self.tokenizer(task["prompt"])["input_ids"]) <= longest_prompt]
            order = torch.randperm(len(fits), generator=torch.Generator().manual_seed(seed)).tolist()
            tasks[split] = [fits[i] for i in order]
        return replace(self, tasks=tasks)

    def judged_against(self, tasks: Sequence[Mapping[str, str]]) -> list[str]:
        """Return the second argument of the reward: the prompts for a reward model, else the human's texts."""
        key = "prompt" if getattr(self.reward, "reads_prompt", False) else "target"
        return [task[key] for task in tasks]


def load_workload(scale: Scale, policy: str | None = None, reward: str | None = None) -> Workload:
    """Return the workload of `scale`: prepared on disk, or at scale "smoke" made in memory.

    `policy`, a folder or a name on the hub, and `reward` (see `load_reward`) replace the scale's own.
    """
    found = _prepared(policy, reward) if scale.real else _toy()
    if policy is not None:
        found = _with_policy(found, policy)
    return found if reward is None else _with_reward(found, reward)


def _prepared(policy: str | None, reward: str | None) -> Workload:
    """Prepare and load what neither `policy` nor `reward` replaces."""
    from gpo_full.experiment.inputs.preparation import prepare

    parts = [part for part, own in (("policy", policy), ("reward", reward), ("data", None)) if own is None]
    folders = prepare(parts)
    made = {part: json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
            for part, folder in folders.items()}  # fmt: skip
    identity = tuple(json.dumps(made.get(part), sort_keys=True) for part in ("policy", "reward", "data"))
    tasks = {split: _lines(folders["data"] / f"{split}.jsonl") for split in ("train", "pilot", "test")}
    model, tokenizer = (None, None) if policy else _load(str(folders["policy"]))
    judge: Any = None if reward else GoldenReward(folders["reward"])
    return Workload(model, tokenizer, tasks, judge, POLICY_NAME, REWARD_NAME, identity)  # type: ignore[arg-type]


def _load(policy: str) -> tuple[Any, Any]:
    from gpo_full.training.start.model import loaded, loaded_tokenizer

    tokenizer = loaded_tokenizer(policy)
    return loaded(policy).to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def _with_policy(found: Workload, policy: str) -> Workload:
    from gpo_full.reference.weights import weights_hash

    model, tokenizer = _load(policy)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    words = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    identity = f"{weights_hash(model)} {hashlib.sha256(words.encode()).hexdigest()}"
    name = Path(policy).name if Path(policy).is_dir() else policy
    return replace(found, model=model, tokenizer=tokenizer, policy_name=name, identity=(identity, *found.identity[1:]))


def _with_reward(found: Workload, reward: str) -> Workload:
    from gpo_full.download import sha256_of
    from gpo_full.source_hash import code_hash

    judge, folder = load_reward(reward), Path(reward)
    if folder.is_dir():
        identity = json.dumps({path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()})
    else:
        identity = f"{reward} {code_hash((reward.partition(':')[0],))}"
    return replace(found, reward=judge, reward_name=folder.name if folder.is_dir() else reward,
                   identity=(found.identity[0], identity, found.identity[2]))  # fmt: skip


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _toy() -> Workload:
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
    return Workload(model, tokenizer, tasks, _same_letters, "a random network of 3 layers",
                    "overlap of letters with the target", ("toy 1",) * 3)  # fmt: skip


def _toy_task(rng: random.Random) -> dict[str, str]:
    words = [rng.choice(("table", "row", "sum", "of", "the", "list", "keep", "read")) for _ in range(8)]
    return {"prompt": f"{' '.join(words)}\nSummary:", "target": " ".join(words[:2]), "package": "toy"}


def _same_letters(samples: Any, targets: Any) -> list[float]:
    """Return the share of letters in common, so that random texts differ in reward."""
    pairs = zip(samples, targets, strict=True)
    return [(Counter(a) & Counter(b)).total() / max(len(a), len(b), 1) for a, b in pairs]
