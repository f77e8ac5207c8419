"""A sequence classifier as the reward of an answer to a prompt."""

__all__ = ["RewardModel"]

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpo_full.other_libraries import in_one_line
from gpo_theory.errors import InputError


class RewardModel:
    """r(answer, prompt): the one logit of a `ForSequenceClassification` model that reads prompt and answer.

    Both go through the tokenizer's chat template where it has one, else as one text. Weights are read from safetensors
    only, and no code of the folder is run.
    """

    reads_prompt = True

    def __init__(self, folder: Path, batch_size: int = 16) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        with in_one_line(f"reward model {str(folder)!r} cannot be loaded"):
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)  # fmt: skip
        if model.config.num_labels != 1:
            raise InputError(f"reward model {str(folder)!r} has {model.config.num_labels} outputs; a reward has one")
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._batch_size = batch_size

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether `folder` holds such a model, by its config.json."""
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())
        except (OSError, ValueError, AttributeError):
            return False

    def __call__(self, samples: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return the reward of each sample as an answer to its own prompt."""
        import torch

        pad = self._tokenizer.pad_token_id
        if pad is None:
            pad = self._model.config.pad_token_id
        rewards: list[float] = []
        # One at a time without a padding token: the classifier finds a row's last token by it.
        size = 1 if pad is None else self._batch_size
        self._model.config.pad_token_id = pad
        for start in range(0, len(samples), size):
            pairs = zip(samples[start : start + size], prompts[start : start + size], strict=True)
            rows = [self._tokens(prompt, sample) for sample, prompt in pairs]
            width = max(map(len, rows))
            if width > (self._model.config.max_position_embeddings or width):
                raise InputError(f"the reward model reads {self._model.config.max_position_embeddings} tokens, and a "
                                 f"prompt with its answer has {width}")  # fmt: skip
            ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=self._model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self._model.device)
            with torch.no_grad():
                rewards += self._model(input_ids=ids, attention_mask=mask).logits[:, 0].double().tolist()
        return rewards

    def _tokens(self, prompt: str, sample: str) -> list[int]:
        if self._tokenizer.chat_template is None:
            ids: list[int] = self._tokenizer(prompt + sample)["input_ids"]
            return ids
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": sample}]
        return list(self._tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"])
