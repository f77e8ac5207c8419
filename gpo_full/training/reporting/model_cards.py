"""The card of a trained model: what was minimised, what is proved of it, on which data, and what came out."""

__all__ = ["CardFacts", "card_files", "model_card"]

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache

from gpo_full.data.pairs import PairSummary
from gpo_full.diagnosis.log import changes_of
from gpo_full.run_files import METRICS_FILE, SAMPLES_FILE
from gpo_full.training.reporting.length_bias import against_length
from gpo_theory import LOSSES
from gpo_theory.choosing.matching import convention
from gpo_theory.report.certificate_file import certificate_document
from gpo_theory.report.result import Analysis

# Shown of a run, in this order.
METRICS = ("loss", "margin", "log_ratio_chosen", "log_ratio_rejected", "accuracy", "regularizer")
# R of the logistic loss, whose beta is DPO's.
OF_DPO = 0.5


@dataclass(frozen=True)
class CardFacts:
    """What a run knows of itself; `base` is a hub name, or a folder's last name with `on_hub` false.

    `settings` are those of the run's run.json; `first`, `last` objects of metrics.jsonl; `held_out` what evaluate
    returned on the pairs that `held_out_name` describes, `samples` the last object of samples.jsonl, each None where
    there is none.
    """

    base: str
    on_hub: bool
    licence: str | None
    settings: Mapping[str, Any]
    command: str
    data_name: str
    data_hash: str
    data: PairSummary | None
    reference_weights: str
    versions: Mapping[str, str]
    first: Mapping[str, float]
    last: Mapping[str, float]
    held_out: Mapping[str, float] | None = None
    held_out_name: str | None = None
    samples: Mapping[str, Any] | None = None
    changes: Sequence[str] = ()


def card_files(
    trainer: Any, analysis: Analysis, *, words: Sequence[str], held_out: Mapping[str, float] | None
) -> dict[str, str]:
    """Return name and text of what goes beside the model of a `gpo train` run: its card, and the proofs on its loss.

    `words` is the command of the run; of an absolute path only the last name is published. `held_out` is what the
    trainer's `evaluate` returned.
    """
    record = trainer.run_record()
    metrics, samples = (trainer.folder.objects(name) for name in (METRICS_FILE, SAMPLES_FILE))
    metrics = metrics or [dict.fromkeys((*METRICS, "cpu_seconds"), 0.0)]  # before the first step: for a trial
    named = [_last_name(word) for word in words]
    model = str(record["model"])
    on_hub = not Path(model).is_dir()
    facts = CardFacts(
        model if on_hub else Path(model).resolve().name, on_hub, _licence(model), record, shlex.join(named),
        named[named.index("--data") + 1], str(record["data"]), trainer.summaries.get("train"),
        trainer.reference_weights, _versions(hasattr(trainer.model, "peft_config")), metrics[0], metrics[-1], held_out,
        _held_out(named, record), samples[-1] if samples else None, changes_of(trainer.folder.path),
    )  # fmt: skip
    certificate = json.dumps(certificate_document(analysis), indent=1, allow_nan=False) + "\n"
    return {"README.md": model_card(facts, analysis), "certificate.json": certificate}


def _held_out(words: Sequence[str], record: Mapping[str, Any]) -> str | None:
    if "--eval-data" in words:
        return f"`{words[words.index('--eval-data') + 1]}`, {_hash(str(record['eval_data']))}"
    if record.get("test_by") is not None:
        return f"those of the same data with other values of `{record['test_by']}`, no value in both"
    return None


def _last_name(text: str) -> str:
    return Path(text).name if Path(text).is_absolute() else text


def _versions(adapted: bool) -> dict[str, str]:
    names = ["gpo-toolkit", "torch", "transformers", "accelerate", *(["peft"] if adapted else [])]
    return {name: version(name) for name in names}


def _licence(model: str) -> str | None:
    """Return the licence that the base model's own card names, from its folder or the hub's cache; None if unknown."""
    path: Any = Path(model) / "README.md" if Path(model).is_dir() else try_to_load_from_cache(model, "README.md")
    try:
        found = ModelCard.load(path, ignore_metadata_errors=True).data.license if path else None
    except (OSError, ValueError, TypeError):
        return None
    return found if isinstance(found, str) else None


def model_card(facts: CardFacts, analysis: Analysis) -> str:
    """Return the card as Markdown with YAML front matter."""
    paragraphs = [*_loss(facts, analysis), *_proved(analysis), *_strength(facts, analysis), *_data(facts),
                  *_results(facts), *_made(facts)]  # fmt: skip
    return f"---\n{_front(facts, analysis)}\n---\n\n" + "\n\n".join(paragraphs) + "\n"


def _front(facts: CardFacts, analysis: Analysis) -> str:
    of_data: dict[str, Any] = {"task_type": "text-generation", "dataset_type": "preference-pairs",
                               "dataset_name": facts.data_name}  # fmt: skip
    results = [EvalResult(**of_data, metric_type="accuracy", metric_name="accuracy on held-out pairs",
                          metric_value=facts.held_out["eval_accuracy"])] if facts.held_out else None  # fmt: skip
    named = analysis.loss.name if analysis.loss.name in LOSSES else "formula"
    found = ModelCardData(
        base_model=facts.base if facts.on_hub else None,
        library_name="peft" if "peft" in facts.versions else "transformers",
        license=facts.licence, pipeline_tag="text-generation", model_name=_title(facts), eval_results=results,
        tags=["preference-optimization", "gpo", f"loss:{named}"],
    )  # fmt: skip
    return str(found.to_yaml()).strip()


def _title(facts: CardFacts) -> str:
    return f"{facts.base.rpartition('/')[2]}, trained on preferences"


def _loss(facts: CardFacts, analysis: Analysis) -> list[str]:
    how = "averaged" if facts.settings.get("margin") == "mean" else "summed"
    base = f"[{facts.base}](https://huggingface.co/{facts.base})" if facts.on_hub else f"`{facts.base}`"
    note = convention(str(facts.settings.get("loss")), facts.settings.get("margin"))
    noise = facts.settings.get("label_noise")
    return [
        f"# {_title(facts)}",
        f"{base}, fine-tuned with Generalized Preference Optimization: over preference pairs it minimises the mean of "
        r"$f(\beta\rho)$, where $\rho$ is the log-ratio of policy to reference of the chosen response minus that of "
        f"the rejected one, in nats, {how} over tokens.",
        "## The loss",
        f"$$f(x) = {analysis.latex}$$",
        f"`{analysis.loss.formula}`, given as `{facts.settings.get('loss')}`, "
        f"with $\\beta$ = {facts.settings['beta']:g}."
        + (f" It includes label noise at rate {noise:g}." if noise else "")
        + (f" Convention: {note}." if note else "")
    ]  # fmt: skip


def _proved(analysis: Analysis) -> list[str]:
    rows = [(name.replace("_", " "), one.verdict.value, _cell(one.because)) for name, one in analysis.claims.items()]
    return ["## What is proved of it",
            "`certificate.json` holds the proofs; `gpo verify certificate.json` replays them.",
            _table(("claim", "verdict", "because"), rows)]  # fmt: skip


def _cell(text: str) -> str:
    return re.sub(r"([|*_<>`$\\])", r"\\\1", " ".join(text.split()))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([first, "|---" * len(head) + "|", *others])


def _strength(facts: CardFacts, analysis: Analysis) -> list[str]:
    terms = ", ".join(f"`{one.text if one else 'unknown or none'}`" for one in analysis.taylor)
    tails = [(side, *(f"{by[name].kind} ({by[name].verdict})" for name in ("loss", "slope")))
             for side, by in analysis.tails.items()]  # fmt: skip
    return ["## How it acts", f"Taylor coefficients at 0: {terms}.", _matches(facts, analysis),
            _table(("tail", "$f$", "$-f'$"), tails)]  # fmt: skip


def _matches(facts: CardFacts, analysis: Analysis) -> str:
    strength, beta = analysis.strength.value, float(facts.settings["beta"])
    if strength is None:
        return "Regularisation strength: R = |f''(0)/f'(0)| is unknown or does not exist, so no DPO beta is equivalent."
    felt, sign = beta * strength, analysis.strength.sign
    like = (f"near the reference it regularises like DPO at beta = {felt / OF_DPO:.4g}" if felt and sign and sign > 0
            else "f''(0) is not above 0, so near the reference no DPO beta is equivalent")  # fmt: skip
    averaged = " (on the length-averaged margin as well)" if facts.settings.get("margin") == "mean" else ""
    return (f"Regularisation strength: R = |f''(0)/f'(0)| = `{analysis.strength.exact or f'{strength:.6g}'}`, "
            f"beta R = {felt:.4g}: {like}{averaged}.")  # fmt: skip


def _data(facts: CardFacts) -> list[str]:
    lines = [f"- preference pairs: `{facts.data_name}`, {_hash(facts.data_hash)}"]
    if facts.data:
        lines.append(f"- used: {facts.data}")
    if facts.data and (facts.data.weighted or facts.data.uncertain):
        lines.append(r"- a pair of weight $w$ and probability $p$ counts $w\,(p f(\beta\rho) + (1-p) f(-\beta\rho))$")
    if facts.held_out_name:
        lines.append(f"- held-out pairs: {facts.held_out_name}")
    handed_in = f"the base model as it was handed in, weights {_hash(facts.reference_weights)}"
    brought = "as the data brings its log-probabilities, pair by pair"
    lines += [f"- at most {facts.settings['max_length']} tokens, {facts.settings['max_prompt_length']} of them the "
              "prompt's", f"- reference: {brought if facts.data and facts.data.referred else handed_in}"]  # fmt: skip
    return ["## Data and reference", "\n".join(lines)]


def _hash(text: str) -> str:
    return f"`{text}`" if ":" in text else f"sha256 `{text}`"


def _results(facts: CardFacts) -> list[str]:
    held, one = facts.held_out, facts.samples
    columns = {"first": facts.first, "last": facts.last}
    if held:
        columns["held out"] = {name: held[f"eval_{name}"] for name in METRICS}
    rows = [(name, *(f"{column[name]:.4f}" for column in columns.values())) for name in METRICS]
    found = ["## Results", "Means over the pairs of a logging interval; log-ratios in nats.",
             _table(("metric", *columns), rows)]  # fmt: skip
    if held:
        found.append(f"Against length: {against_length(held)}.")
    if one:
        found.append(f"On samples for {one['n']} prompts after step {one['step']}: KL to the reference "
                     f"{one['kl']:.4f} nats per response (standard error {one['kl_se']:.4f}), win rate against it "
                     f"{one['win_rate']:.3f} (95% interval {one['win_low']:.3f} to {one['win_high']:.3f}) by the "
                     f"reward `{_last_name(one['judge'])}`.")  # fmt: skip
    return found


def _made(facts: CardFacts) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    changed = f" The run was resumed with changes: {'; '.join(facts.changes)}." if facts.changes else ""
    return ["## How it was made", f"```\n{facts.command}\n```", f"With {versions}.{changed}"]
