"""Exercises: a wrong answer is told by its name, whatever it does; an unsound exercise is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gpo_full.course.exercises import Exercise, agree


def matched(beta: float, a: float, b: float) -> float:
    return beta * a / b


EXERCISE = Exercise(
    draw=lambda rng: tuple(rng.uniform(0.2, 3.0, 3)),
    properties={
        "beta times R must not change": lambda answer, beta, a, b: agree(answer(beta, a, b) * b, beta * a),
        "there and back": lambda answer, beta, a, b: agree(answer(answer(beta, a, b), b, a), beta),
        "a number is wanted": lambda answer, *arguments: isinstance(float(answer(*arguments)), float),
    },
    mistakes={"upside down": lambda beta, a, b: beta * b / a, "beta is left out": lambda beta, a, b: a / b, "the same beta": lambda beta, a, b: beta},
    guards=["a number is wanted"],
)


def test_the_reference_passes_and_the_stub_is_told_that_it_is_its_turn() -> None:
    def stub(beta: float, a: float, b: float) -> float:
        raise NotImplementedError("your turn")

    assert EXERCISE.check(matched) == "correct"
    assert EXERCISE.check(stub) == "your turn"
    EXERCISE.verify(matched)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda beta, a, b: b / a * beta, "upside down"),  # agrees with the planted mistake up to rounding
        (lambda beta, a, b: float(np.float32(beta)), "the same beta"),
        (lambda beta, a, b: 2 * beta * a / b, "beta times R must not change"),  # nobody planted it
        (lambda beta, a, b: None, "beta times R must not change"),
        (lambda beta, a, b: "0.1", "beta times R must not change"),
        (lambda beta, a, b: beta * a / b + (beta > 2.9), "beta times R must not change"),  # wrong in few trials
    ],
)
def test_a_wrong_answer_is_told_one_message(answer: Callable[..., Any], told: str) -> None:
    assert EXERCISE.check(answer) == told
    assert EXERCISE.check(answer) == told  # the draws are the same


def test_what_the_answer_raises_is_told_with_its_arguments() -> None:
    told = replace(EXERCISE, draw=lambda rng: (np.float64(0.25), 2, "x" * 500)).check(matched)
    assert told.startswith("it raised TypeError: ")
    assert told.endswith(f" at (0.25, 2, '{'x' * 56}...)")
    assert EXERCISE.check(lambda: 1.0).startswith("it raised TypeError: ")  # the wrong number of arguments
    assert EXERCISE.check(lambda beta, a, b: 1 / 0 if a > b else matched(beta, a, b)).startswith("it raised ZeroDiv")


def test_a_mistake_that_raises_in_some_trials_is_known_by_its_outcomes() -> None:
    def refuses(beta: float, a: float, b: float) -> float:
        if a < b:
            raise ValueError(f"{a} < {b}")
        return beta

    exercise = replace(EXERCISE, mistakes={**EXERCISE.mistakes, "it must not refuse": refuses}, guards=[])
    assert exercise.check(lambda *arguments: refuses(*arguments)) == "it must not refuse"
    exercise.verify(matched)


def test_an_answer_that_spoils_its_arguments_spoils_only_its_own() -> None:
    def spoils(values: Any) -> Any:
        total = values.sum()
        values[:] = 0
        return total

    exercise = Exercise(
        draw=lambda rng: (rng.uniform(1, 2, 3),),
        properties={"the sum": lambda answer, v: agree(answer(v.copy()), v.sum()),
                    "the order must not matter": lambda answer, v: agree(answer(v[::-1].copy()), answer(v))},
        mistakes={"the mean": lambda v: v.mean(), "the first": lambda v: v[0], "weighted": lambda v: v @ np.arange(3)},
    )  # fmt: skip
    assert exercise.check(spoils) == "correct"
    exercise.verify(np.sum)


def test_functions_are_compared_as_the_exercise_says() -> None:
    exercise = Exercise(
        draw=lambda rng: (rng.uniform(1, 2),),
        properties={"k x": lambda answer, k: agree(answer(k)(3.0), 3 * k), "odd": lambda answer, k: answer(k)(-1) == -answer(k)(1)},
        mistakes={"k + x": lambda k: lambda x: k + x, "a number": lambda k: k, "the square": lambda k: lambda x: k * x**2},
        same=lambda a, b: callable(a) == callable(b) and agree(a(3.0) if callable(a) else a, b(3.0) if callable(b) else b),
    )
    exercise.verify(lambda k: lambda x: x * k)
    assert exercise.check(lambda k: lambda x: x + k) == "k + x"
    assert replace(exercise, same=agree).check(lambda k: lambda x: x + k) == "k x"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mistakes": {**EXERCISE.mistakes, "right": matched}}, "the mistake 'right' is told 'correct'"),
        ({"mistakes": {**EXERCISE.mistakes, "again": lambda beta, a, b: beta}}, "the mistake 'again' is told 'the same beta'"),
        ({"mistakes": dict([*EXERCISE.mistakes.items()][:2])}, "three planted mistakes"),
        ({"properties": {"one": lambda answer, *arguments: True}, "guards": []}, "two properties"),
        ({"guards": []}, "the property 'a number is wanted' rejects no mistake"),
        ({"trials": 0}, "the stub is told 'correct'"),
        ({"guards": ["a number is wanted", "there and back"]}, "the property 'there and back' rejects"),
        ({"guards": ["a number is wanted", "no such"]}, "not all properties"),
    ],
)  # fmt: skip
def test_an_unsound_exercise_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        replace(EXERCISE, **change).verify(matched)


def test_a_wrong_reference_and_a_wrong_draw_are_refused() -> None:
    with pytest.raises(AssertionError, match="the reference is told 'upside down'"):
        EXERCISE.verify(lambda beta, a, b: beta * b / a)
    with pytest.raises(TypeError, match="tuple"):
        replace(EXERCISE, draw=lambda rng: 1.0).check(matched)


def test_a_draw_that_the_reference_cannot_take_is_refused() -> None:
    """The laws pick the arguments that they want, so all else passes, but no answer of a reader would be named."""
    exercise = Exercise(
        draw=lambda rng: tuple(rng.uniform(0.2, 3.0, 4)),
        properties={
            "beta times R must not change": lambda answer, beta, a, b, _: agree(answer(beta, a, b) * b, beta * a),
            "there and back": lambda answer, beta, a, b, _: agree(answer(answer(beta, a, b), b, a), beta),
        },
        mistakes={
            "upside down": lambda beta, a, b, *_: beta * b / a, "beta is left out": lambda beta, a, b, *_: a / b,
            "the same beta": lambda beta, a, b, *_: beta,
        },
    )
    assert exercise.check(lambda beta, a, b: beta * b / a) == "beta times R must not change"  # not its name
    with pytest.raises(AssertionError, match="the reference raises TypeError when called with the arguments drawn"):
        exercise.verify(matched)
    exercise.verify(lambda beta, a, b, *_: beta * a / b)


def test_no_warning_reaches_the_reader() -> None:
    exercise = replace(EXERCISE, mistakes={**EXERCISE.mistakes, "overflow": lambda beta, a, b: np.exp(1e4 * np.float64(beta))})
    exercise.verify(matched)  # warnings are errors in this suite


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0 + 1e-9, True), (1.0, 1.001, False), (None, None, True), (None, 0, False), ("a", "a", True), ("a", "b", False),
        (np.ones(3), [1.0, 1.0, 1.0], True), (np.ones(3), 1.0, False), (np.ones((1, 3)), np.ones(3), False),
        (torch.ones(2, requires_grad=True), np.ones(2), True), (torch.tensor(2.0), 2, True), (float("nan"), float("nan"), True),
        ({"a": 1.0}, {"a": 1}, True), ({"a": 1.0}, {"b": 1.0}, False), ((1, (2.0, None)), [1, [2, None]], True),
        (abs, abs, True), (abs, len, False), (True, 1, True), (float("inf"), float("inf"), True), ("1", 1, False),
    ],
)  # fmt: skip
def test_agreement(a: Any, b: Any, same: bool) -> None:
    assert agree(a, b) is same
    assert agree(b, a) is same
