"""Labelling: the probabilities asked for, no equal texts, the sampled tokens themselves."""

import math

import pytest

from gpo_full.evaluation.sampling import Sample
from gpo_full.experiment.labels import label_pairs


def drawn(*tokens: tuple[int, ...]) -> tuple[Sample, ...]:
    return tuple(Sample(" ".join(map(str, each)), each, ended=True) for each in tokens)


def test_the_pair_has_the_sampled_tokens_and_their_shared_prefix() -> None:
    found = label_pairs([[1, 2]], [drawn((3, 4, 0), (3, 5, 0))], [(0.0, 100.0)], slope=20, seed=0)
    (pair,) = found.pairs
    assert (pair.prefix, pair.prompt_length, pair.chosen, pair.rejected) == ((1, 2, 3), 2, (5, 0), (4, 0))
    assert found.agreement == 1
    assert found.expected_agreement == pytest.approx(1, abs=1e-12)


def test_equal_texts_are_dropped_and_counted() -> None:
    samples = [drawn((3, 0), (3, 0)), drawn((3, 0), (4, 0))]
    found = label_pairs([[1], [2]], samples, [(1.0, 1.0), (1.0, 0.0)], slope=20, seed=0)
    assert (len(found.pairs), found.equal_dropped) == (1, 1)
    assert found.pairs[0].prefix == (2,)


@pytest.mark.parametrize("difference", [-0.1, 0.0, 0.03, 0.2])
def test_labels_follow_the_stated_probability(difference: float) -> None:
    """10,000 draws; the share is within 5 standard errors of sigmoid(20 d)."""
    n, p = 10_000, 1 / (1 + math.exp(-20 * difference))
    found = label_pairs([[1]] * n, [drawn((3, 0), (4, 0))] * n, [(difference, 0.0)] * n, slope=20, seed=7)
    share = sum(pair.chosen == (3, 0) for pair in found.pairs) / n
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert found.expected_agreement == pytest.approx(max(p, 1 - p))
    if difference:
        assert found.agreement == pytest.approx(share if difference > 0 else 1 - share)


def test_the_draw_is_seeded_and_the_limit_keeps_the_first() -> None:
    arguments = ([[i] for i in range(1, 40)], [drawn((3, 0), (4, 0))] * 39, [(0.0, 0.0)] * 39)
    one, same, other = (label_pairs(*arguments, slope=20, seed=seed) for seed in (0, 0, 1))
    assert one == same != other
    assert label_pairs(*arguments, slope=20, seed=0, limit=5).pairs == one.pairs[:5]
