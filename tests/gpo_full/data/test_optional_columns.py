"""Weights, uncertain labels and given references: read alike from every file, and in the loss by their definition."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from gpo_full.data.pairs import Pair, read_pairs
from gpo_full.data.pairs_on_disk import optional_columns_of, pair_table, response_lengths_of
from gpo_full.training.resumption import data_hash
from gpo_theory import InputError
from tests.gpo_full.cli.test_command_train import Train, model, train  # noqa: F401
from tests.support.pairs import distance, ranked_pairs
from tests.support.pairs import gradients as gradients_of_sums
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, objects, step0, trainer, weights
from tests.support.two_sequences import response_sums

TOKENIZER = tiny_tokenizer()
GOOD = {"prompt": "the cat sat", "chosen": " on the mat", "rejected": " on a dog"}
NUMBERS = [{}, {"weight": 2}, {"p": 0.75, "weight": 0.5}, {"ref_chosen_logps": -3.5, "ref_rejected_logps": -1e-3}]
ROWS = [{**GOOD, "chosen": f" on mat {i}", **numbers} for i, numbers in enumerate(NUMBERS)]
EXPECTED = [(1.0, 1.0, None), (2.0, 1.0, None), (0.5, 0.75, None), (1.0, 1.0, (-3.5, -1e-3))]
COLUMNS = ["prompt", "chosen", "rejected", "weight", "p", "ref_chosen_logps", "ref_rejected_logps", "other"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_kind_of_file_tells_the_same(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"pairs{suffix}", ROWS, COLUMNS)
    found, summary = read_pairs(path, TOKENIZER)
    assert [(pair.weight, pair.p, pair.reference_log_probabilities) for pair in found] == EXPECTED
    assert (summary.weighted, summary.uncertain, summary.referred) == (2, 1, 1)
    assert "2 with a weight, 1 with a probability p, 1 with the reference's log-probabilities" in str(summary)
    on_disk = pair_table(path, TOKENIZER, folder=tmp_path / "tables")
    assert list(on_disk) == found
    assert on_disk.summary == summary
    for each in (on_disk, found):
        assert response_lengths_of(each).tolist() == [[len(response) for response in pair.responses] for pair in found]
        assert optional_columns_of(each)[:, :2].tolist() == [[1, 1], [2, 1], [0.5, 0.75], [1, 1]]
        assert optional_columns_of(each)[3, 2:].tolist() == [-3.5, -1e-3]
        assert all(math.isnan(value) for value in optional_columns_of(each)[:3, 2:].flatten())
    assert data_hash(on_disk) == data_hash(found) != data_hash(found[::-1])


@pytest.mark.parametrize(("numbers", "said"), [
    ({"weight": -1}, "weight -1.0 is not a finite number of at least 0"),
    ({"weight": 1e999}, "weight inf is not"),
    ({"weight": "heavy"}, "'weight' must be a number, not 'heavy'"),
    ({"weight": True}, "'weight' must be a number, not True"),
    ({"weight": [1]}, "'weight' must be a number"),
    ({"p": 1.01}, "p 1.01 is not a probability"),
    ({"p": math.nan}, "p nan is not a probability"),
    ({"ref_chosen_logps": -1.0}, "ref_chosen_logps and ref_rejected_logps go together"),
    ({"ref_chosen_logps": -1.0, "ref_rejected_logps": None}, "go together"),
    ({"ref_chosen_logps": -1.0, "ref_rejected_logps": 0.1}, "ref_rejected_logps 0.1 is not the logarithm of a probab"),
    ({"ref_chosen_logps": -math.inf, "ref_rejected_logps": -1}, "ref_chosen_logps -inf is not the logarithm"),
])  # fmt: skip
def test_numbers_that_cannot_be_meant_are_bad_rows(numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match="data: row 2: ") as caught:
        read_pairs([GOOD, {**GOOD, **numbers}], TOKENIZER)
    assert said in str(caught.value)
    pairs, summary = read_pairs([GOOD, {**GOOD, **numbers}], TOKENIZER, bad_rows="skip")
    assert (len(pairs), sum(summary.skipped.values())) == (1, 1)


def test_a_pair_of_such_numbers_cannot_be_made() -> None:
    with pytest.raises(InputError, match="p 2 is not a probability"):
        replace(PAIRS[0], p=2)


@pytest.mark.parametrize(("part", "options"), [("prompt", {"max_prompt_length": 2}), ("response", {"max_length": 5})])
def test_the_reference_of_a_text_that_is_cut_is_of_another(part: str, options: dict[str, int]) -> None:
    row = {**GOOD, **NUMBERS[3]}
    options = {"max_length": 20, "max_prompt_length": 4, **options}
    assert len(read_pairs([GOOD], TOKENIZER, **options)[0]) == 1
    with pytest.raises(InputError, match=f"row 1: its {part} is cut, and the reference's log-probabilities are of the wh"):
        read_pairs([row], TOKENIZER, **options)


def margins(policy: Any, reference: Any, pairs: list[Pair] = PAIRS) -> torch.Tensor:
    """rho of each pair, of sequences that are computed alone."""
    ratios = response_sums(policy, pairs) - response_sums(reference, pairs).detach()
    return ratios[:, 0] - ratios[:, 1]


def certain(pairs: list[Pair], columns: list[dict[str, float]]) -> list[Pair]:
    return [replace(pair, **each) for pair, each in zip(pairs, columns, strict=True)]  # type: ignore[arg-type]


def test_the_gradient_is_that_of_the_definition(tmp_path: Path) -> None:
    """mean of w (p (1-x)^2 + (1-p) (1+x)^2), of two separate sequences each; the batches are uneven."""
    draw = random.Random(0)
    numbers = [{"weight": draw.choice([0.0, 0.5, 3.0]), "p": draw.choice([0.0, 0.6, 1.0])} for _ in PAIRS]
    reference, policy = (tiny_model(seed=seed, dtype=torch.float64) for seed in (1, 2))
    made = trainer(tmp_path, policy, certain(PAIRS, numbers), reference=reference, loss="squared", beta=0.02)
    batch = made.data_collator([made.train_dataset[i] for i in range(len(PAIRS))])
    found = made.compute_loss(policy, batch)
    x = 0.02 * margins(policy, reference)
    w, p = torch.tensor([[each["weight"], each["p"]] for each in numbers], dtype=torch.float64).T
    expected = (w * (p * (1 - x) ** 2 + (1 - p) * (1 + x) ** 2)).mean()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    slopes = [gradients_of_sums(policy, each.view(1)) for each in (found, expected)]
    assert distance(slopes[0], slopes[1]) < 1e-6


def test_metrics_are_of_the_weighted_loss_and_flatness_is_not(tmp_path: Path) -> None:
    reference, policy = (tiny_model(seed=seed, dtype=torch.float64) for seed in (1, 2))
    numbers = [{"weight": 0.001 if i % 2 else 4.0} for i in range(len(PAIRS))]
    options: dict[str, Any] = {"loss": "hinge", "beta": 0.2, "max_steps": 3, "learning_rate": 0.0, "logging_steps": 3}
    trainer(tmp_path, policy, certain(PAIRS, numbers), reference=reference, **options).train()
    rho = margins(policy, reference).detach()
    x, w = 0.2 * rho, torch.tensor([each["weight"] for each in numbers], dtype=torch.float64)
    (found,) = objects(tmp_path)
    assert found["regularizer_share"] == 0
    expected = {"loss": (w * (1 - x).clamp(min=0)).mean(), "weight": (w * (x < 1)).mean(), "margin": rho.mean(),
                "accuracy": (rho > 0).double().mean(), "flat_right": (x > 1).double().mean()}  # fmt: skip
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-7), name
    assert 0 < found["flat_right"] < 1
    assert bool(((x > 0) & (x < 1) & (w < 0.01)).any())  # moved little, and not because f is flat there


def test_the_share_of_the_regulariser_is_that_of_the_pair_s_own_loss(tmp_path: Path) -> None:
    """Slope and curvature at 0 of w (p (1-x)^2 + (1-p) (1+x)^2) are -2 w (2p-1) and 2 w."""
    reference, policy = (tiny_model(seed=seed, dtype=torch.float64) for seed in (1, 2))
    numbers = [{"weight": 1.0 + i, "p": (0.5, 0.75, 1.0)[i % 3]} for i in range(len(PAIRS))]
    trainer(tmp_path, policy, certain(PAIRS, numbers), reference=reference, loss="squared", beta=0.2, max_steps=3,
            learning_rate=0.0, logging_steps=3).train()  # fmt: skip
    x = 0.2 * margins(policy, reference).detach()
    p = torch.tensor([each["p"] for each in numbers], dtype=torch.float64)
    expected = (x.abs() / ((2 * p - 1).abs() + x.abs())).mean()
    assert objects(tmp_path)[0]["regularizer_share"] == pytest.approx(float(expected), rel=1e-7)


@pytest.mark.slow
def test_a_label_turned_round_is_the_pair_turned_round(tmp_path: Path) -> None:
    """p = 0 is the pair with its sides exchanged, and p = 1/2 of a symmetric choice pushes nowhere at the reference."""
    turned = [Pair(pair.prefix, pair.rejected, pair.chosen, pair.prompt_length) for pair in PAIRS]
    found = []
    for run, pairs in (("turned", turned), ("p", certain(PAIRS, [{"p": 0.0}] * len(PAIRS)))):
        made = trainer(tmp_path, tiny_model(dtype=torch.float64), pairs, run=run, max_steps=2, scale_gradient=True)
        made.train()
        found.append(weights(made.model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)
    undecided = trainer(tmp_path, tiny_model(dtype=torch.float64), certain(PAIRS, [{"p": 0.5}] * len(PAIRS)),
                        run="undecided", reference=tiny_model(dtype=torch.float64))  # fmt: skip
    undecided.train()
    assert objects(tmp_path, "undecided")[0]["grad_norm"] < 1e-12
    assert objects(tmp_path, "undecided")[0]["loss"] == pytest.approx(math.log(2), rel=1e-12)


def with_reference(pairs: list[Pair], reference: Any) -> list[Pair]:
    sums = response_sums(reference, pairs).detach().tolist()
    return [replace(pair, reference_log_probabilities=(one, two)) for pair, (one, two) in zip(pairs, sums, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("margin", ["sum", "mean"])
def test_given_references_are_used_and_no_pass_is_made(margin: str, tmp_path: Path, caplog: Any) -> None:
    found = {}
    for run in ("computed", "given"):
        policy = tiny_model(dtype=torch.float64)
        pairs = with_reference(PAIRS, policy) if run == "given" else PAIRS
        made = trainer(tmp_path, policy, pairs, run=run, margin=margin, max_steps=3, reference_store=str(tmp_path / f"store of {run}"))
        assert step0(made) == pytest.approx(math.log(2), rel=1e-12)
        made.train()
        found[run] = weights(made.model)
    torch.testing.assert_close(found["given"], found["computed"], rtol=1e-6, atol=1e-8)
    assert not caplog.messages
    # Three pairs are looked at, whatever their number.
    tokens = {run: sum(len(load_file(path)["keys"]) for path in (tmp_path / f"store of {run}").iterdir()) for run in found}
    assert tokens == {"computed": len(PAIRS), "given": 3}


def test_a_reference_of_another_model_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = trainer(tmp_path, tiny_model(seed=1), with_reference(PAIRS, tiny_model(seed=2)), max_steps=1)
    assert "are not this model's: up to" in caplog.text
    assert abs(step0(made) - math.log(2)) > 1e-3


def test_references_are_given_for_all_pairs_or_none_and_not_twice(tmp_path: Path) -> None:
    given = with_reference(PAIRS, tiny_model())
    with pytest.raises(InputError, match="10 of 11 pairs bring the reference's log-probabilities: all must, or none"):
        trainer(tmp_path, tiny_model(), [*given[:-1], PAIRS[-1]])
    with pytest.raises(InputError, match="choose one"):
        trainer(tmp_path, tiny_model(), given, reference=tiny_model(seed=2))


def test_the_command_makes_no_pass_for_what_the_data_brings(train: Train) -> None:  # noqa: F811
    rows = [{**GOOD, "chosen": f" on mat {i}", "ref_chosen_logps": -20 - i, "ref_rejected_logps": -20} for i in range(8)]
    write_rows(train.data, rows)
    _, out, err = train("--reference-only")
    assert out == "the reference's log-probabilities of 8 pairs are in the data\n"
    assert "8 of 8 pairs, 8 with the reference's log-probabilities" in err
    assert "are not this model's: up to" in err


def test_a_resume_with_other_numbers_is_refused(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    trainer(tmp_path, tiny_model(), **saving).train()
    heavier = certain(PAIRS, [{"weight": 2.0}, *[{}] * (len(PAIRS) - 1)])
    with pytest.raises(InputError, match="is of another run: data: "):
        trainer(tmp_path, tiny_model(), heavier, **saving).train(resume_from_checkpoint=True)


def test_a_response_of_two_pairs_may_count_differently_in_each(tmp_path: Path) -> None:
    pairs = ranked_pairs(responses=3, prompts=1)
    numbers = [{"weight": 1.0}, {"weight": 0.0}, {"weight": 2.0, "p": 0.7}]
    policy, reference = tiny_model(seed=1, dtype=torch.float64), tiny_model(seed=2, dtype=torch.float64)
    made = trainer(tmp_path, policy, certain(pairs, numbers), reference=reference, loss="squared", beta=0.1)
    x = 0.1 * margins(policy, reference, pairs).detach()
    expected = ((1 - x[0]) ** 2 + 2 * (0.7 * (1 - x[2]) ** 2 + 0.3 * (1 + x[2]) ** 2)) / 3
    assert step0(made) == pytest.approx(float(expected), rel=1e-10)


def test_the_command_says_what_the_data_tells_and_keeps_it_when_it_splits(train: Train, tmp_path: Path) -> None:  # noqa: F811
    rows = [{**GOOD, "topic": f"t{i % 4}", "chosen": f" on mat {i}", "rejected": f" on dog {i}", "p": 0.8} for i in range(8)]
    path = write_rows(tmp_path / "pairs.csv", rows, ["topic", *COLUMNS])
    assert "6 of 6 pairs, 6 with a probability p" in train("--test-by", "topic", data=path).stderr
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    # 0.8 f(0) + 0.2 f(0)
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert first["weight"] == pytest.approx(0.8 / 2 - 0.2 / 2, rel=1e-3)
