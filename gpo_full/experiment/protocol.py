"""The stages of the controlled experiment in order: what each takes from those before it, and what its key is made of.

What a stage computes is written in a module of its own, whose code is part of its key (`gpo_full.experiment.stages`).
"""

__all__ = ["Protocol"]

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from gpo_full.evaluation.compare import ReferenceAnswers
from gpo_full.experiment.answers import drawn_answers, read_answers
from gpo_full.experiment.grid import PlannedRun, all_runs, base_of
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload, load_workload
from gpo_full.experiment.labels import read_pairs, sampled_and_labelled
from gpo_full.experiment.pilot import try_learning_rates
from gpo_full.experiment.sft import fine_tuned, load_policy
from gpo_full.experiment.stages import Stage, is_finished, stage
from gpo_full.experiment.trained_run import Start, answered, store_references, trained_and_evaluated


class Protocol:
    """The stages at one scale, cached in `folder`; what several of them need is loaded once, when first needed."""

    def __init__(
        self, scale: Scale, folder: Path, policy: str | None = None, reward: str | None = None, workers: int = 1
    ) -> None:
        self.scale, self.folder, self.workers = scale, folder, workers
        self.arguments = scale, folder, policy, reward
        self._finished: dict[str, Stage] = {}

    @cached_property
    def workload(self) -> Workload:
        """The policy as it was prepared, its tokenizer, the tasks that fit, and the reward."""
        return load_workload(self.scale, *self.arguments[2:4]).selected(self.scale.longest_prompt, self.scale.seed)

    def data(self) -> dict[str, Any]:
        """Return how many tasks of each split fit, and the fingerprint of the workload."""
        return {**{split: len(tasks) for split, tasks in self.workload.tasks.items()},
                "fingerprint": self.workload.fingerprint}  # fmt: skip

    def sft(self) -> Stage:
        """Fine-tune the policy on human summaries; its folder holds the model from which everything starts."""
        settings = self._settings("seed", "longest_prompt", "longest_response", "pair_prompts", "sft_steps",
                                  "sft_batch", "sft_layers", "sft_learning_rate")  # fmt: skip
        inputs = {"workload": self.workload.fingerprint, "settings": settings}
        return self._stage("sft", inputs, fine_tuned, lambda: (self.workload, self.scale))

    def pairs(self) -> Stage:
        """Sample two summaries for each of the next prompts from the SFT policy, and label them."""
        settings = self._settings("seed", "longest_response", "pair_prompts", "pairs", "label_slope")
        inputs = {"sft": self.sft().key, "settings": settings}
        return self._stage("pairs", inputs, sampled_and_labelled,
                           lambda: (self.workload, self.scale, self._reference, self.workers))  # fmt: skip

    def answers(self) -> Stage:
        """Draw and judge the SFT policy's answers to the test prompts, for all runs and all processes."""
        settings = self._settings("seed", "longest_response", "test_prompts")
        inputs = {"sft": self.sft().key, "settings": settings}
        return self._stage("answers", inputs, drawn_answers,
                           lambda: (self.workload, self.scale, self._reference, self.workers))  # fmt: skip

    def pilot(self, base: PlannedRun) -> Stage:
        """Try the learning rates in turn, on held-out prompts of other packages than the test's."""
        settings = self._settings("seed", "learning_rates", "reached", "pilot_prompts", "steps", "pairs_per_step",
                                  "trained_layers", "precision")  # fmt: skip
        inputs = {"pairs": self.pairs().key, "base": asdict(base), "settings": settings}
        return self._stage("pilot", inputs, try_learning_rates, lambda: (self._start, base))

    def rate(self) -> float:
        """The learning rate of every run: the scale's only one, or the one that the pilot chose."""
        only, *others = self.scale.learning_rates
        return float(self.pilot(base_of(all_runs(self.scale))).payload["learning_rate"]) if others else only

    def train_and_evaluate(self, one: PlannedRun) -> Stage:
        """Train one policy from the SFT policy on the pairs, and evaluate it on the test prompts."""
        return self._stage(one.name, self._inputs(one), trained_and_evaluated,
                           lambda: (self._start, *self._test, one, self.rate()))  # fmt: skip

    def is_trained(self, one: PlannedRun) -> bool:
        """Return whether this run is finished."""
        return is_finished(self.folder, one.name, self._inputs(one), trained_and_evaluated)

    def ready(self, one: PlannedRun) -> None:
        """Load and compute all that `one` and the runs after it share, so that forks of this process have it."""
        store_references(self._start, one, self.rate())
        assert self._test

    def _inputs(self, one: PlannedRun) -> dict[str, Any]:
        """What a run depends on: no seconds and no other run, so that a change of the plan keeps what is finished."""
        settings = self._settings("seed", "steps", "pairs_per_step", "trained_layers", "precision")
        return {"pairs": self.pairs().key, "answers": self.answers().key, "run": asdict(one),
                "learning_rate": self.rate(), "settings": settings}  # fmt: skip

    def _stage(
        self, name: str, inputs: dict[str, Any], compute: Callable[..., dict[str, Any]],
        arguments: Callable[[], tuple[Any, ...]],
    ) -> Stage:  # fmt: skip
        if name not in self._finished:
            self._finished[name] = stage(self.folder, name, inputs, compute, arguments, continued=True)
        return self._finished[name]

    def _settings(self, *names: str) -> dict[str, Any]:
        """Return those settings of the scale: what a stage depends on and no stage before it has in its key."""
        return {name: getattr(self.scale, name) for name in names}

    @cached_property
    def _reference(self) -> Any:
        return load_policy(self.sft().folder)

    @cached_property
    def _start(self) -> Start:
        return Start(self.workload, self.scale, self._reference, read_pairs(self.pairs().folder), self.folder)

    @cached_property
    def _test(self) -> tuple[list[ReferenceAnswers], list[tuple[float, ...]]]:
        """The reference's answers to the test prompts, read by it, and their rewards."""
        found, tasks = read_answers(self.answers().folder), self.workload.tasks["test"][: self.scale.test_prompts]
        return answered(self._start, tasks, found.samples), found.rewards
