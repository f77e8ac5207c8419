"""What the benchmark compares: ways to take the same training step on the same pairs."""

__all__ = ["CONTENDERS", "Step", "missing"]

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gpo_full.bench.device import Place
from gpo_full.data.pairs import Pair
from gpo_full.versions import versions_of

BETA = 0.1
LEARNING_RATE = 1e-5
# TRL changes its interface every two weeks; the comparison is with this one.
TRL = "1.16"

# One step: token ids to batch, forward, backward, AdamW. Returns the loss before the step.
Step = Callable[[], float]


def missing(name: str) -> str | None:
    """Return why a contender cannot run here, or None."""
    if not name.startswith("trl"):
        return None
    found = versions_of(["trl"]).get("trl")
    if found is None:
        return f"trl is not installed (trl=={TRL}.*)"
    return None if found.startswith(f"{TRL}.") else f"trl {found} is installed, not {TRL}"


def _ours(model: nn.Module, pairs: Sequence[Pair], folder: Path, place: Place) -> Step:
    from gpo_full.config import GPOConfig
    from gpo_full.training.trainer import GPOTrainer

    args = GPOConfig(output_dir=str(folder / "gpo"), reference_store=str(folder), beta=BETA, loss="dpo",
                     use_cpu=place.device == "cpu", bf16=place.bf16, report_to="none")  # fmt: skip
    trainer = GPOTrainer(model, args, list(pairs))
    rows = [trainer.train_dataset[i] for i in range(len(pairs))]
    prepared = trainer._prepare_inputs
    return _step(model, place, lambda: trainer.compute_loss(model, prepared(trainer.data_collator(rows))))


def _lean(model: nn.Module, pairs: Sequence[Pair], folder: Path, place: Place) -> Step:
    """Two padded rows per pair in one batch, the head on response positions only, and a stored reference."""
    model.to(place.device)

    def log_probabilities() -> Tensor:
        sequences, starts = [], []
        for side in range(2):
            for pair in pairs:
                sequences.append(torch.tensor(pair.prefix[: pair.prompt_length] + pair.responses[side]))
                starts.append(pair.prompt_length)
        ids = pad_sequence(sequences, batch_first=True)
        end = torch.tensor([len(each) for each in sequences])[:, None]
        token = torch.arange(ids.shape[1])
        predicted = (token >= torch.tensor(starts)[:, None]) & (token < end)
        ids, predicted = ids.to(place.device), predicted.to(place.device)
        inner: Any = model
        # Padding is on the right, where no causal row looks: a mask would only cost it the fast kernel.
        hidden = inner.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0]
        logits = inner.get_output_embeddings()(hidden[:, :-1][predicted[:, 1:]])
        per_token = -F.cross_entropy(logits, ids[predicted], reduction="none")
        row = predicted.nonzero()[:, 0]
        return per_token.new_zeros(len(ids)).index_add(0, row, per_token).view(2, -1)

    with torch.no_grad(), place.precision():
        reference = log_probabilities()

    def loss() -> Tensor:
        chosen, rejected = log_probabilities() - reference
        return -F.logsigmoid(BETA * (chosen - rejected)).mean()

    return _step(model, place, loss)


def _trl(model: nn.Module, pairs: Sequence[Pair], folder: Path, place: Place, live: bool) -> Step:
    from copy import deepcopy

    import datasets
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    datasets.disable_progress_bars()
    # Checkpointing, which it switches on by itself, would cost it a second forward pass.
    args = DPOConfig(output_dir=str(folder / "trl"), beta=BETA, use_cpu=place.device == "cpu", bf16=place.bf16,
                     report_to="none", gradient_checkpointing=False, max_length=None, disable_tqdm=True,
                     remove_unused_columns=False)  # fmt: skip
    # It wants text; the batches below are made by its own collator from the benchmark's token ids.
    text = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = DPOTrainer(model=model, ref_model=deepcopy(model), args=args, train_dataset=text,
                         processing_class=_tokenizer())  # fmt: skip
    rows = [{"prompt_ids": list(pair.prefix[: pair.prompt_length]), "chosen_ids": list(pair.responses[0]),
             "rejected_ids": list(pair.responses[1])} for pair in pairs]  # fmt: skip
    prepared = trainer._prepare_inputs
    if not live:
        with place.precision():
            chosen, rejected = trainer.compute_ref_log_probs(trainer.ref_model, prepared(trainer.data_collator(rows)))
        for row, a, b in zip(rows, chosen.tolist(), rejected.tolist(), strict=True):
            row |= {"ref_chosen_logps": a, "ref_rejected_logps": b}
        trainer.precompute_ref_logps, trainer.ref_model = True, None
    return _step(model, place, lambda: trainer.compute_loss(model, prepared(trainer.data_collator(rows))))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "</s>": 3}, unk_token="</s>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")


def _step(model: nn.Module, place: Place, loss: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    model.train()

    def step() -> float:
        with place.precision():
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return float(value.detach())

    logging.getLogger("transformers").setLevel(logging.ERROR)
    return step


# Each makes a step from a model in float32, pairs, a folder that it may write into, and where it runs.
CONTENDERS: dict[str, Callable[[nn.Module, Sequence[Pair], Path, Place], Step]] = {
    "ours": _ours, "lean": _lean, "trl live": partial(_trl, live=True), "trl precomputed": partial(_trl, live=False)}
