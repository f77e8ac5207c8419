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
from gpo_full.experiment.grid import PlannedRun
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.inputs.workload import Workload, load_workload
from gpo_full.experiment.labels import read_pairs, sampled_and_labelled
from gpo_full.experiment.pilot import decide_plan, try_learning_rates
from gpo_full.experiment.sft import fine_tuned, load_policy
from gpo_full.experiment.stages import Stage, stage
from gpo_full.experiment.trained_run import Start, answered, trained_and_evaluated


class Protocol:
    """The stages at one scale, cached in `folder`; what several of them need is loaded once, when first needed."""

    def __init__(self, scale: Scale, folder: Path, policy: str | None = None, reward: str | None = None) -> None:
        self.scale, self.folder = scale, folder
        self.arguments = scale, folder, policy, reward
        self._finished: dict[str, Stage] = {}

    @cached_property
    def workload(self) -> Workload:
        """The policy as it was prepared, its tokenizer, the tasks that fit, and the reward."""
        return load_workload(self.scale, *self.arguments[2:]).selected(self.scale.longest_prompt, self.scale.seed)

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
        return self._stage("pairs", inputs, sampled_and_labelled, lambda: (self.workload, self.scale, self._reference))

    def pilot(self, base: PlannedRun) -> Stage:
        """Try the learning rates in turn, on held-out prompts of other packages than the test's."""
        settings = self._settings("seed", "learning_rates", "reached", "pilot_prompts", "steps", "pairs_per_step",
                                  "trained_layers", "precision")  # fmt: skip
        inputs = {"pairs": self.pairs().key, "base": asdict(base), "settings": settings}
        return self._stage("pilot", inputs, try_learning_rates, lambda: (self._start, base))

    def plan(self, elapsed: float, runs: int) -> Stage:
        """Decide on steps and test prompts: the scale's, or fewer of both if the pilot took too long for that."""
        pilot = self._finished["pilot"]
        inputs = {"pilot": pilot.key, "settings": self._settings("steps", "test_prompts")}
        return self._stage("plan", inputs, decide_plan, lambda: (self.scale, pilot.payload, elapsed, runs))

    def train_and_evaluate(self, one: PlannedRun) -> Stage:
        """Train one policy from the SFT policy on the pairs, and evaluate it on the test prompts."""
        plan, rate = self._finished["plan"].payload, self._finished["pilot"].payload["learning_rate"]
        inputs = {"pairs": self.pairs().key, "run": asdict(one), "plan": plan, "learning_rate": rate,
                  "settings": self._settings("seed", "pairs_per_step", "trained_layers", "precision")}  # fmt: skip
        return self._stage(one.name, inputs, trained_and_evaluated,
                           lambda: (self._start, self._test_answers, one, rate, plan["steps"]))  # fmt: skip

    def _stage(
        self, name: str, inputs: dict[str, Any], compute: Callable[..., dict[str, Any]],
        arguments: Callable[[], tuple[Any, ...]],
    ) -> Stage:  # fmt: skip
        if name not in self._finished:
            self._finished[name] = stage(self.folder, name, inputs, compute, arguments)
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
    def _test_answers(self) -> list[ReferenceAnswers]:
        return answered(self._start, self.workload.tasks["test"][: self._finished["plan"].payload["test_prompts"]])
