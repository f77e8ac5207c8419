"""KL and win rate while a policy trains, by samples at an interval that change nothing of the training, bitwise."""

__all__ = ["LiveEvaluation"]

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from transformers import TrainerCallback

from gpo_full.checkpoints.state import random_state, set_random_state
from gpo_full.evaluation.compare import evaluate, reference_answers
from gpo_full.evaluation.golden_reward import REWARD_NAME, load_reward
from gpo_full.evaluation.prompts import shared_layers
from gpo_full.evaluation.sampling import Sample
from gpo_full.evaluation.scores import Evaluation
from gpo_full.evaluation.tasks import read_tasks
from gpo_full.run_files import SAMPLES_FILE
from gpo_theory.errors import InputError

BATCH = 32
# Of an Evaluation, what a tracker draws over the steps.
SHOWN = ("kl", "kl_se", "kl_sequence", "win_rate", "win_low", "win_high", "reward", "length_ratio")


class LiveEvaluation(TrainerCallback):  # type: ignore[misc]
    """Every `args.sample_every` steps and at the end, `evaluate` the policy of a GPOTrainer on `args.sample_prompts`.

    `samples.jsonl` gets an object each time, the trackers its means as `sample_kl`, `sample_win_rate` and so on. The
    same random numbers every time: what changes from step to step is the policy. The reference answers once.

    `reference` is the model that the trainer was given as one; without it, the policy as it is now, before training.
    Of that one only the trained parameters are copied (with LoRA: the adapter), the frozen ones are shared. Every rank
    measures the same prompts, so that none waits for another.
    """

    def __init__(self, trainer: Any, reference: Any = None) -> None:
        args = trainer.args
        if trainer.is_fsdp_enabled:
            raise InputError("sample_every needs a whole policy on each device, and FSDP shards it")
        if trainer.processing_class is None:
            raise InputError("sample_every needs the tokenizer: processing_class")
        tasks = [task.as_text(trainer.processing_class) for task in read_tasks(args.sample_prompts)]
        self._reward = load_reward(args.sample_reward)
        self._prompts = [task.prompt for task in tasks]
        self._judged = [task.judged_against(self._reward) for task in tasks]
        self._trainer = trainer
        self._reference = _bare(_twin(trainer.model if reference is None else reference, trainer.model))
        self._drawn: dict[int, tuple[Sample, ...]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, write and log at the interval; before the step's checkpoint is saved."""
        if state.global_step % args.sample_every and state.global_step < state.max_steps:
            return
        found = asdict(self._measure(args))
        del found["examples"]
        self._trainer.folder.append(SAMPLES_FILE, {"schema": 1, "step": state.global_step, **found,
                                                   "judge": args.sample_reward or REWARD_NAME})  # fmt: skip
        due = control.should_log
        self._trainer.log({f"sample_{name}": found[name] for name in SHOWN})
        control.should_log = due  # the Trainer takes any log for that of the step

    def _measure(self, args: Any) -> Evaluation:
        policy, options = _bare(self._trainer.model), {"seed": args.seed, "max_new_tokens": args.sample_length}
        with _unchanged(self._trainer.model), torch.no_grad(), self._trainer.accelerator.autocast():
            against = reference_answers(self._reference, self._trainer.processing_class, self._prompts, self._judged,
                                        batch_size=BATCH, shared=shared_layers(policy, self._reference),
                                        drawn=self._drawn, **options)  # fmt: skip
            return evaluate(policy, self._reference, self._trainer.processing_class, against, self._reward,
                            label="sampling", total=-(-len(self._prompts) // BATCH), **options)  # fmt: skip


def _twin(model: Any, policy: Any) -> Any:
    """Return `model` if it shares no parameter that is trained with `policy`, else a copy that does not change."""
    trained = {id(parameter) for parameter in policy.parameters() if parameter.requires_grad}
    kept = {id(parameter): parameter for parameter in model.parameters() if id(parameter) not in trained}
    if len(kept) == sum(1 for _ in model.parameters()):
        return model
    return copy.deepcopy(model, kept).requires_grad_(False)


def _bare(model: Any) -> Any:
    """Return the causal language model itself, which with an adapter lies within."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _unchanged(model: torch.nn.Module) -> Iterator[None]:
    """Put the random generators, and what trains and what evaluates, back afterwards."""
    before, modes = random_state(), {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        set_random_state(before)
