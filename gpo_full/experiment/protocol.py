"""The stages of the controlled experiment, each on top of those before it."""

__all__ = ["Protocol"]

import copy
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpo_full.data.pairs import Pair
from gpo_full.evaluation.compare import Opponent, opponents, score_prompts, summarize
from gpo_full.evaluation.sampling import sample
from gpo_full.evaluation.scores import PromptScore, write_scores
from gpo_full.experiment.frozen_layers import remembered_trunk
from gpo_full.experiment.inputs.materials import Material, material
from gpo_full.experiment.inputs.scales import Scale
from gpo_full.experiment.labels import label_pairs
from gpo_full.experiment.sft import fine_tune, response_loss, tokenize_tasks
from gpo_full.experiment.stages import Stage, stage
from gpo_full.source_hash import code_hash
from gpo_theory.errors import InputError

if TYPE_CHECKING:
    from gpo_full.experiment.grid import Experiment

# Where what a stage does is written; its key is a hash of all the code that is reached from there.
_SFT_CODE = ("gpo_full.experiment.sft", "gpo_full.evaluation.sampling", "gpo_full.evaluation.golden_reward")
_PAIR_CODE = ("gpo_full.experiment.labels",)
_RUN_CODE = ("gpo_full.evaluation.compare", "gpo_full.experiment.frozen_layers", "gpo_full.training.trainer")
_VALIDATION = 48  # tasks of the pilot split on which the fine-tuning is measured


class Protocol:
    """The stages at one scale, cached in `folder`; what several of them need is loaded once, when first needed."""

    def __init__(self, scale: Scale, folder: Path, policy: str | None = None, reward: str | None = None) -> None:
        self.scale, self.folder = scale, folder
        self.arguments = scale, folder, policy, reward
        self._finished: dict[str, Stage] = {}
        # The frozen layers' part of each batch; another seed brings other batches, so only one seed's are kept.
        self._trunk: dict[int, dict[bytes, torch.Tensor]] = {}

    @cached_property
    def material(self) -> Material:
        """The policy as it was prepared, its tokenizer, the tasks that fit, and the reward."""
        whole = material(self.scale, *self.arguments[2:])
        fits = {split: [t for t in tasks if len(whole.tokenizer(t["prompt"])["input_ids"]) <= self.scale.longest_prompt]
                for split, tasks in whole.tasks.items()}  # fmt: skip
        shuffled = {split: _shuffled(tasks, self.scale.seed) for split, tasks in fits.items()}
        return replace(whole, tasks=shuffled)

    def data(self) -> dict[str, Any]:
        """Return how many tasks of each split fit, and the fingerprint of the material."""
        return {**{split: len(tasks) for split, tasks in self.material.tasks.items()},
                "fingerprint": self.material.fingerprint}  # fmt: skip

    def sft(self) -> Stage:
        """Fine-tune the policy on human summaries; its folder holds the model from which everything starts."""
        s = self.scale
        inputs = {"material": self.material.fingerprint, "code": code_hash(_SFT_CODE),
                  **_settings(s, "seed", "longest", "sft")}  # fmt: skip
        return self._stage("sft", inputs, self._fine_tune)

    def pairs(self) -> Stage:
        """Sample two summaries for each of the next prompts from the SFT policy, and label them."""
        inputs = {"sft": self.sft().key, "code": code_hash(_PAIR_CODE),
                  **_settings(self.scale, "seed", "pair", "longest", "label")}  # fmt: skip
        return self._stage("pairs", inputs, self._sample_and_label)

    def pilot(self, base: "Experiment") -> Stage:
        """Try the learning rates in turn, on held-out prompts of other packages than the test's."""
        inputs = {"pairs": self.pairs().key, "code": code_hash(_RUN_CODE), "base": asdict(base),
                  **_settings(self.scale, "seed", "learning", "reached", "pilot", "steps", "trained",
                              "precision")}  # fmt: skip
        return self._stage("pilot", inputs, lambda folder: self._try_rates(base))

    def plan(self, elapsed: float, runs: int) -> Stage:
        """Decide on steps and test prompts: the scale's, or fewer of both if the pilot took too long for that."""
        pilot = self._finished["pilot"]
        inputs = {"pilot": pilot.key, **_settings(self.scale, "steps", "test")}
        return self._stage("plan", inputs, lambda folder: self._shorten(pilot, elapsed, runs))

    def train_and_evaluate(self, one: "Experiment") -> Stage:
        """Train one policy from the SFT policy on the pairs, and evaluate it on the test prompts."""
        plan, pilot = self._finished["plan"], self._finished["pilot"]
        inputs = {"pairs": self.pairs().key, "code": code_hash(_RUN_CODE), "run": asdict(one), "plan": plan.payload,
                  "learning_rate": pilot.payload["learning_rate"],
                  **_settings(self.scale, "seed", "trained", "pairs", "precision")}  # fmt: skip

        def compute(folder: Path) -> dict[str, Any]:
            policy, curves = self._train(one, pilot.payload["learning_rate"], plan.payload["steps"])
            scores = self._scores(policy, self._opponents, one.name, one.seed)
            write_scores(folder / "scores.jsonl", scores)
            return {**asdict(summarize(scores, one.seed)), "width": _width(scores), **curves}

        return self._stage(one.name, inputs, compute)

    def _stage(self, name: str, inputs: Mapping[str, Any], compute: Any) -> Stage:
        if name not in self._finished:
            self._finished[name] = stage(self.folder, name, inputs, compute)
        return self._finished[name]

    def _fine_tune(self, folder: Path) -> dict[str, Any]:
        s, m = self.scale, self.material
        count = s.sft_steps * s.sft_batch
        chosen = m.tasks["train"][: max(0, min(count, len(m.tasks["train"]) - s.pair_prompts))]
        tasks = tokenize_tasks(m.tokenizer, [t["prompt"] for t in chosen], [t["target"] for t in chosen])
        loss_before, reward_before = self._validate(m.model)
        losses = fine_tune(m.model, tasks, steps=s.sft_steps, batch_size=s.sft_batch, seed=s.seed,
                           learning_rate=s.sft_learning_rate, last_layers=s.sft_layers)  # fmt: skip
        loss_after, reward_after = self._validate(m.model)
        m.model.save_pretrained(folder)
        m.tokenizer.save_pretrained(folder)
        return {"steps": s.sft_steps, "learning_rate": s.sft_learning_rate, "examples": len(tasks), "losses": losses,
                "loss_before": loss_before, "loss_after": loss_after,
                "reward_before": reward_before, "reward_after": reward_after}  # fmt: skip

    @torch.no_grad()
    def _validate(self, model: Any) -> tuple[float, float]:
        """Return the loss in nats per target token and the mean golden reward of samples, on the pilot split."""
        m = self.material
        chosen = m.tasks["pilot"][-_VALIDATION:]
        prompts, targets = [t["prompt"] for t in chosen], [t["target"] for t in chosen]
        tasks = tokenize_tasks(m.tokenizer, prompts, targets)
        sums = [response_loss(model.eval(), tasks[i : i + 16]) for i in range(0, len(tasks), 16)]
        drawn = sample(model, m.tokenizer, prompts, seed=self.scale.seed, label="sampling for validation",
                       max_new_tokens=self.scale.longest_response)  # fmt: skip
        rewards = m.rewards([one.text for one, in drawn], chosen)
        return sum(float(loss) for loss, _ in sums) / sum(n for _, n in sums), sum(rewards) / len(rewards)

    def _sample_and_label(self, folder: Path) -> dict[str, Any]:
        s, m = self.scale, self.material
        chosen = m.tasks["train"][-s.pair_prompts :]
        prompts = [t["prompt"] for t in chosen]
        drawn = sample(self.reference, m.tokenizer, prompts, per_prompt=2, seed=s.seed + 1, label="sampling pairs",
                       max_new_tokens=s.longest_response)  # fmt: skip
        rewards = [m.rewards([several[j].text for several in drawn], chosen) for j in range(2)]
        slope = _slope(*rewards) if s.label_slope is None else s.label_slope
        ids = [m.tokenizer(prompt)["input_ids"] for prompt in prompts]
        found = label_pairs(ids, drawn, list(zip(*rewards, strict=True)), slope=slope, seed=s.seed,
                            limit=s.pairs)  # fmt: skip
        rows = [asdict(pair) for pair in found.pairs]
        (folder / "pairs.json").write_text(json.dumps(rows), encoding="utf-8")
        return {"k": slope, "pairs": len(rows), "equal_dropped": found.equal_dropped,
                "agreement": found.agreement, "expected_agreement": found.expected_agreement}  # fmt: skip

    def _try_rates(self, base: "Experiment") -> dict[str, Any]:
        """Return the first learning rate at which the logistic loss reaches the wanted mean beta rho, or the last."""
        s, m = self.scale, self.material
        tasks = m.tasks["pilot"][: s.pilot_prompts]
        against = list(self._read(tasks))
        tried: list[dict[str, Any]] = []
        for rate in s.learning_rates:
            start = time.monotonic()
            policy, curves = self._train(base, rate, s.steps)
            trained = time.monotonic()
            found = summarize(self._scores(policy, against, "pilot", s.seed), s.seed)
            seconds = {"train_seconds": trained - start, "evaluate_seconds": time.monotonic() - trained}
            reached = _tail_mean(curves["scaled_margin"])
            kept = {key: getattr(found, key) for key in ("kl", "win_rate", "win_low", "win_high")}
            tried.append({"learning_rate": rate, "mean_scaled_margin": reached, **kept, **seconds})
            print(f"pilot: learning rate {rate:g} reaches a mean beta rho of {reached:.2f}; KL {found.kl:.2f}, "
                  f"win rate {found.win_rate:.3f}", file=sys.stderr, flush=True)  # fmt: skip
            if reached >= s.reached:
                break
        return {"tried": tried, "learning_rate": tried[-1]["learning_rate"], "prompts": len(tasks),
                "frozen_layers": self.frozen_layers,
                "reached": tried[-1]["mean_scaled_margin"]}  # fmt: skip

    def _shorten(self, pilot: Stage, elapsed: float, runs: int) -> dict[str, Any]:
        s = self.scale
        last = pilot.payload["tried"][-1]
        # The pilot also computes what the frozen layers make of each batch, one unit of work per layer and pass; each
        # later run pays for the trained layers only, forward and backward.
        work = 3 * s.trained_layers / (3 * s.trained_layers + pilot.payload["frozen_layers"])
        one = work * last["train_seconds"] + last["evaluate_seconds"] * s.test_prompts / pilot.payload["prompts"]
        left = math.inf if s.budget_seconds is None else s.budget_seconds - elapsed
        if runs * one <= left:
            return {"steps": s.steps, "test_prompts": s.test_prompts, "shortened": None}
        factor = max(0.2, left / (runs * one))
        steps, prompts = max(2, int(s.steps * factor)), max(10, int(s.test_prompts * factor))
        because = (f"{runs} runs at {one:.0f} s each would not fit into the {left:.0f} s that are left of "
                   f"{s.budget_seconds:.0f} s: every run has {steps} steps instead of {s.steps} and {prompts} test "
                   f"prompts instead of {s.test_prompts}")  # fmt: skip
        return {"steps": steps, "test_prompts": prompts, "shortened": {"factor": factor, "because": because}}

    @cached_property
    def reference(self) -> Any:
        """The SFT policy, as it was saved."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.sft().folder, dtype=torch.float32)
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @property
    def frozen_layers(self) -> int:
        """The number of lower layers that no run trains."""
        return len(self.reference.get_decoder().layers) - self.scale.trained_layers

    @cached_property
    def _pairs(self) -> list[Pair]:
        rows = json.loads((self.pairs().folder / "pairs.json").read_text(encoding="utf-8"))
        return [Pair(tuple(r["prefix"]), tuple(r["chosen"]), tuple(r["rejected"]), r["prompt_length"]) for r in rows]

    @cached_property
    def _opponents(self) -> list[Opponent]:
        return list(self._read(self.material.tasks["test"][: self._finished["plan"].payload["test_prompts"]]))

    def _read(self, tasks: Sequence[Mapping[str, str]]) -> Any:
        # What training leaves frozen is shared by all policies, so its reading of the prompts is kept.
        return opponents(self.reference, self.material.tokenizer, [t["prompt"] for t in tasks],
                         self.material.judged_against(tasks), seed=self.scale.seed + 2, keep=self.frozen_layers,
                         max_new_tokens=self.scale.longest_response)  # fmt: skip

    def _scores(self, policy: Any, against: list[Opponent], name: str, seed: int) -> list[PromptScore]:
        return score_prompts(policy, self.reference, self.material.tokenizer, against, self.material.reward, seed=seed,
                             max_new_tokens=self.scale.longest_response, label=f"evaluating {name}",
                             total=len(against))  # fmt: skip

    def _train(self, one: "Experiment", rate: float, steps: int) -> tuple[Any, dict[str, Any]]:
        """Return the policy trained from the reference, and its curves."""
        from transformers import PrinterCallback

        from gpo_full import GPOConfig, GPOTrainer
        from gpo_full.training.callbacks import ProgressLines

        s = self.scale
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".training-") as output:
            # AdamW is scale-free: dividing the loss by beta |f'(0)| matters through its epsilon and to clipping,
            # which is off because f'(0) runs from -1/4 to -2.
            args = GPOConfig(
                output_dir=output, loss=one.loss, beta=one.beta, scale_gradient=True, max_grad_norm=0.0,
                learning_rate=rate, lr_scheduler_type="constant_with_warmup", warmup_steps=max(1, steps // 10),
                weight_decay=0.0, max_steps=steps, per_device_train_batch_size=s.pairs_per_step, seed=one.seed,
                train_last_layers=s.trained_layers, reference_store=str(self.folder / "references"),
                save_strategy="no", report_to=[], disable_tqdm=True, bf16=s.precision == "bfloat16",
            )  # fmt: skip
            trainer = GPOTrainer(copy.deepcopy(self.reference), args, self._pairs,
                                 processing_class=self.material.tokenizer, callbacks=[ProgressLines()])  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            if one.seed not in self._trunk:
                self._trunk = {one.seed: {}}
            with remembered_trunk(trainer.model, self.frozen_layers, self._trunk[one.seed]):
                trainer.train()
            lines = [json.loads(line) for line in (Path(output) / "metrics.jsonl").read_text("utf-8").splitlines()]
        last = lines[-max(1, len(lines) // 5) :]
        means = {key: sum(line[key] for line in last) / len(last)
                 for key in ("accuracy", "log_ratio_chosen", "log_ratio_rejected")}  # fmt: skip
        return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval(), {
            **means,
            "scaled_margin": [one.beta * line["margin"] for line in lines],
            "objective": [line["loss"] for line in lines],
        }


def _settings(scale: Scale, *prefixes: str) -> dict[str, Any]:
    return {key: value for key, value in asdict(scale).items() if key.startswith(prefixes)}


def _slope(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the k at which two answers that differ by the mean difference are told apart with probability 0.98."""
    mean = sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)
    if not mean:
        raise InputError("the reward is the same for every two answers to a prompt: nothing can be labelled")
    return 4 / mean


def _width(scores: Sequence[PromptScore]) -> float:
    """Return the largest |s(y) - s(y')| seen between two draws of the reference, s = log pi/pi_ref in nats."""
    return max(math.sqrt(2 * row.half_square) for row in scores)


def _shuffled(tasks: Sequence[dict[str, str]], seed: int) -> list[dict[str, str]]:
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(seed)).tolist()
    return [tasks[i] for i in order]


def _tail_mean(values: Sequence[float]) -> float:
    tail = values[-max(1, len(values) // 5) :]
    return sum(tail) / len(tail)
