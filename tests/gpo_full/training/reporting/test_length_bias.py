"""Accuracy beside a taste for length: counted by hand, and the same through the trainer's own evaluation."""

from pathlib import Path

import pytest
import torch

from gpo_full.data.pairs import read_pairs
from gpo_full.training.reporting.length_bias import against_length, length_metrics, length_sums, wilson_interval
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import trained
from tests.support.two_sequences import response_sums

ROWS = [{"prompt": "the cat", "chosen": f" {'sat ' * a}on", "rejected": f" {'ran ' * b}off"}
        for a, b in ((1, 4), (4, 1), (2, 2), (3, 5), (5, 3), (1, 2), (6, 1))]  # fmt: skip
# The other way round in some, so that a policy trained on ROWS is wrong there.
HELD_OUT = [row if i % 3 else {**row, "chosen": row["rejected"], "rejected": row["chosen"]} for i, row in enumerate(ROWS)]


def test_sums_are_those_counted_by_hand() -> None:
    """Longer and right, longer and wrong, equal and right, shorter and wrong, shorter and tied."""
    ratios = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    lengths = torch.tensor([[7, 3], [7, 3], [4, 4], [2, 9], [2, 9]])
    assert length_sums(ratios, lengths).tolist() == [5, 2.5, 2.5, 3, 1.5]
    found = length_metrics([5, 2.5, 2.5, 3, 1.5])
    assert {name: found[name] for name in found if not name.endswith(("_low", "_high"))} == {
        "pairs": 5, "longer_wins": 0.5, "pairs_not_longer": 3, "accuracy_not_longer": 0.5}  # fmt: skip


def test_a_share_of_no_pairs_is_left_out() -> None:
    found = length_metrics([2, 1, 2, 0, 0])
    assert not [name for name in found if name.startswith("accuracy_not_longer")]
    said = against_length({f"eval_{name}": value for name, value in {"accuracy": 0.5, **found}.items()})
    assert said.endswith("where the chosen is not longer: no such pair")


@pytest.mark.parametrize(("right", "n"), [(3, 4), (0, 10), (10, 10), (137, 183)])
def test_the_interval_is_scipy_s(right: int, n: int) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson_interval(right / n, n, z=1.959963984540054) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_trainer_s_evaluation_agrees_with_each_pair_apart(tmp_path: Path) -> None:
    """Log-ratios of each response alone, from a plain forward pass of the trained model and of its reference."""
    tokenizer = tiny_tokenizer()
    made = trained(tmp_path, tiny_model(seed=1), ROWS, beta=1.0, max_steps=3, learning_rate=1e-2, eval_dataset=HELD_OUT,
                   per_device_eval_batch_size=3, processing_class=tokenizer)  # fmt: skip
    found = made.evaluate()
    start, pairs = tiny_model(seed=1), read_pairs(HELD_OUT, tokenizer)[0]
    with torch.no_grad():
        ratios = response_sums(made.model.eval(), pairs) - response_sums(start, pairs)
    margins = (ratios[:, 0] - ratios[:, 1]).tolist()
    longer = [len(pair.chosen) - len(pair.rejected) for pair in pairs]
    short = [m > 0 for m, more in zip(margins, longer, strict=True) if more <= 0]
    assert found["eval_pairs"] == len(ROWS)
    assert found["eval_accuracy"] == pytest.approx(sum(m > 0 for m in margins) / len(ROWS))
    assert (found["eval_accuracy_low"], found["eval_accuracy_high"]) == wilson_interval(found["eval_accuracy"], len(ROWS))
    assert found["eval_pairs_not_longer"] == len(short)
    assert found["eval_accuracy_not_longer"] == pytest.approx(sum(short) / len(short))
    assert found["eval_longer_wins"] == pytest.approx(sum((more > 0) + (more == 0) / 2 for more in longer) / len(ROWS))
    assert 0 < sum(m > 0 for m in margins) < len(ROWS)  # neither all right nor all wrong, or the test would say little
