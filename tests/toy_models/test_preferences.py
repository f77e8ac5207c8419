"""Preferences: any matrix with p_ij + p_ji = 1, of Bradley-Terry form or not."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from gpo_theory.errors import InputError
from toy_models import Preferences
from toy_models.inputs import read_number, read_numbers


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=6))
def test_bradley_terry_matrix_gives_its_rewards_back(rewards: list[float]) -> None:
    matrix = [[1 / (1 + math.exp(b - a)) for b in rewards] for a in rewards]
    recovered = Preferences(matrix).rewards
    assert recovered is not None
    # logit(p) loses about e^16 ulp where p is 1 - e^-16.
    assert_allclose(np.subtract.outer(recovered, recovered), np.subtract.outer(rewards, rewards), atol=1e-8)
    assert_allclose(Preferences.from_rewards(rewards).matrix, matrix, rtol=1e-12)


def test_rewards_that_saturate_are_kept() -> None:
    preferences = Preferences.from_rewards([0.0, 1000.0])
    assert preferences.rewards is not None
    assert_allclose(preferences.rewards, [0, 1000])
    assert_allclose(preferences.matrix, [[0.5, 0], [1, 0.5]], atol=1e-300)


@pytest.mark.parametrize("matrix", [
    [[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]],  # a cycle of certain wins
    [[0.5, 0.6, 0.4], [0.4, 0.5, 0.6], [0.6, 0.4, 0.5]],  # a cycle
    [[0.5, 0.6, 0.9], [0.4, 0.5, 0.6], [0.1, 0.4, 0.5]],  # transitive, yet no difference of rewards
])  # fmt: skip
def test_other_matrices_have_no_rewards(matrix: list[list[float]]) -> None:
    assert Preferences(matrix).rewards is None


@pytest.mark.parametrize(("matrix", "message"), [
    ([[0.5, 0.6], [0.5, 0.5]], r"p\[1,2\] = 0.6 and p\[2,1\] = 0.5 must add to 1"),
    ([[0.5, 1.2], [-0.2, 0.5]], r"p\[1,2\] = 1.2 is not in \[0, 1\]"),
    ([[0.6, 0.5], [0.5, 0.4]], r"p\[1,1\] = 0.6 must be 1/2"),
    ([[0.5, float("nan")], [0.5, 0.5]], r"p\[1,2\] = nan is not in"),
    ([[0.5, 0.5]], "square matrix of at least 2 rows"),
    ([[0.5]], "square matrix of at least 2 rows"),
    ([[0.5, 0.5], [0.5]], "square matrix"),
])  # fmt: skip
def test_what_is_no_preference_matrix_is_refused(matrix: list[list[float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preferences(matrix)


def test_csv_of_decimals_and_fractions(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("1/2, 2/3, 0.9\n1/3, 1/2, 0.4\n0.1, 0.6, 1/2\n")
    assert_allclose(Preferences.from_csv(file).matrix, [[0.5, 2 / 3, 0.9], [1 / 3, 0.5, 0.4], [0.1, 0.6, 0.5]])


@pytest.mark.parametrize(("text", "message"), [
    ("0.5,0.5\n0.5\n", "row 2: 1 numbers in a file of 2 rows"),
    ("0.5,0.5\n0.5,maybe\n", "row 2: 'maybe' is not a number"),
    ("", "is empty"),
    ("0.5,nan\n0.5,0.5\n", "row 1: 'nan' is not a number"),
])  # fmt: skip
def test_bad_csv_names_the_row(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "p.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        Preferences.from_csv(file)


def test_missing_or_binary_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("none.csv", "p.csv"):
        with pytest.raises(InputError, match="cannot read preferences"):
            Preferences.from_csv(tmp_path / name)


@pytest.mark.parametrize("rewards", [[0.0], [0.0, float("inf")], [[0.0, 1.0]]])
def test_rewards_must_be_finite_numbers(rewards: list[float]) -> None:
    with pytest.raises(InputError, match="reward"):
        Preferences.from_rewards(rewards)


@pytest.mark.parametrize("text", ["", "a", "1/0", "nan", "inf", "1e999", "1/2/3", "--1", "0x10", "1_0", "½", "9" * 101])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        read_number(text)


@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_are_correctly_rounded(numerator: int, denominator: int) -> None:
    assert read_numbers(f"{numerator}/{denominator},0.1") == (numerator / denominator, 0.1)


def test_tensors_are_float64() -> None:
    assert Preferences.from_rewards(torch.tensor([0.0, 1.0])).matrix.dtype == torch.float64
