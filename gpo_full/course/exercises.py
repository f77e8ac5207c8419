"""Exercises that check themselves: laws on random inputs, and planted mistakes that name what is wrong."""

__all__ = ["Exercise", "agree"]

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

Answer = Callable[..., Any]
_STUB = "your turn"


def agree(a: Any, b: Any) -> bool:
    """Return whether two results are the same up to rounding: numbers, arrays, tensors, None, and containers of them.

    Floating-point numbers to numpy's default tolerances, shapes exactly. Functions agree only with themselves.

    >>> agree((1.0, [0.1 + 0.2]), (1, [0.3])), agree([1.0, 1.0], 1.0), agree(None, 0.0)
    (True, False, False)
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(agree(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(agree, a, b))
    if a is b or a is None or b is None:
        return a is b
    left, right = (np.asarray(value.detach().cpu() if hasattr(value, "detach") else value) for value in (a, b))
    if left.dtype.kind not in "biufc" or right.dtype.kind not in "biufc":
        return bool(type(a) is type(b) and not callable(a) and a == b)
    return left.shape == right.shape and bool(np.isclose(left, right, equal_nan=True).all())


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings."""
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        yield


class _AnswerError(Exception):
    """The reader's function raised the error that is this one's cause."""


@dataclass(frozen=True)
class Exercise:
    """A function to be written by the reader, described by what is true of it and by the ways in which it goes wrong.

    `draw` maps a numpy Generator to the tuple of arguments of one trial; `properties` maps a message to a law
    `law(answer, *arguments) -> bool`, where `answer` is the reader's function; `mistakes` maps a message to a wrong
    function. `same` compares two results (default: `agree`; needed where the results are functions). `guards` lists
    the properties that no planted mistake violates; they catch mistakes that were not planted.

    >>> square = Exercise(
    ...     draw=lambda rng: (rng.uniform(0.5, 2),),
    ...     properties={"a square is x times x": lambda answer, x: agree(answer(x), x * x),
    ...                 "the sign of x must not matter": lambda answer, x: agree(answer(-x), answer(x))},
    ...     mistakes={"twice, not squared": lambda x: 2 * x, "the cube": lambda x: x**3, "the sign": lambda x: -x * x},
    ... )
    >>> square.check(lambda x: x**2), square.check(lambda x: x + x), square.check(lambda x: abs(x))
    ('correct', 'twice, not squared', 'a square is x times x')
    >>> square.verify(lambda x: x**2)
    """

    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    properties: Mapping[str, Callable[..., bool]]
    mistakes: Mapping[str, Answer]
    same: Callable[[Any, Any], bool] = agree
    guards: Sequence[str] = ()
    trials: int = 50
    seed: int = 0

    @_quiet()
    def check(self, answer: Answer) -> str:
        """Return "correct", or one message: "your turn", a mistake's name, what it raised, or the property it violates.

        It does not raise, whatever the answer does; the draws are the same at every call.
        """
        found = next(self._violations(answer, self.properties), "correct")
        if found in ("correct", _STUB):
            return found
        return next((name for name, wrong in self.mistakes.items() if self._equal(answer, wrong)), found)

    @_quiet()
    def verify(self, reference: Answer) -> None:
        """Raise AssertionError unless the exercise is sound.

        The reference takes what is drawn and passes, the stub is told "your turn", each of at least three mistakes is
        rejected by its own name, and each of at least two properties is violated by a planted mistake, or is among the
        guards and is not.
        """
        _require(len(self.properties) >= 2, "an exercise needs two properties")
        _require(len(self.mistakes) >= 3, "an exercise needs three planted mistakes")
        for title, function, expected in (
            ("the reference", reference, "correct"),
            ("the stub", _stub, _STUB),
            *((f"the mistake {name!r}", wrong, name) for name, wrong in self.mistakes.items()),
        ):
            told = self.check(function)
            _require(told == expected, f"{title} is told {told!r}, not {expected!r}")
        # Laws may pass other arguments; a wrong answer is named by its results on those that are drawn.
        results = [self._outcome(reference, trial) for trial in range(self.trials)]
        raised = next((one.__name__ for one in results if isinstance(one, type)), None)
        _require(raised is None, f"the reference raises {raised} when called with the arguments drawn")
        _require(set(self.guards) <= set(self.properties), f"guards {list(self.guards)} are not all properties")
        for message in self.properties:
            caught = [name for name, wrong in self.mistakes.items() if any(self._violations(wrong, [message]))]
            told = f"the property {message!r} rejects {caught or 'no mistake'}"
            _require(bool(caught) != (message in self.guards), told)

    def _violations(self, answer: Answer, properties: Iterable[str]) -> Iterator[str]:
        """What is wrong with the answer, property by property."""
        for message in properties:
            for trial in range(self.trials):
                if found := self._violation(answer, message, trial):
                    yield found

    def _violation(self, answer: Answer, message: str, trial: int) -> str | None:
        arguments = self._arguments(trial)
        try:
            return None if self.properties[message](_guarded(answer), *arguments) else message
        except _AnswerError as raised:
            error = raised.__cause__
            if isinstance(error, NotImplementedError):
                return _STUB
            return f"it raised {type(error).__name__}: {' '.join(str(error).split())[:200]} at {_shown(raised.args)}"
        except Exception:  # the law itself cannot use what the answer returned: None, a list, a wrong shape
            return message

    def _equal(self, answer: Answer, wrong: Answer) -> bool:
        """Whether two functions have the same outcome in every trial, and a result in at least one."""
        pairs = [(self._outcome(answer, trial), self._outcome(wrong, trial)) for trial in range(self.trials)]
        raised = [isinstance(one, type) for one, _ in pairs]
        return not all(raised) and all(self._same(*pair) for pair in pairs)

    def _outcome(self, answer: Answer, trial: int) -> Any:
        """The result of a trial in a tuple, or the type of what was raised."""
        arguments = self._arguments(trial)
        try:
            return (answer(*arguments),)
        except Exception as error:
            return type(error)

    def _same(self, a: Any, b: Any) -> bool:
        if isinstance(a, type) or isinstance(b, type):
            return a is b
        try:
            return bool(self.same(a[0], b[0]))
        except Exception:  # results of different kinds
            return False

    def _arguments(self, trial: int) -> tuple[Any, ...]:
        """Draw them anew at every call, because an answer may change its arguments in place."""
        arguments = self.draw(np.random.default_rng([self.seed, trial]))
        if not isinstance(arguments, tuple):
            raise TypeError(f"draw must return the tuple of a trial's arguments, not {arguments!r}")
        return arguments


def _guarded(answer: Answer) -> Answer:
    """`answer`, whose errors become _AnswerError, so that they differ from those of a law."""

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return answer(*arguments, **named)
        except Exception as error:
            raise _AnswerError(*arguments, *named.values()) from error

    return call


def _stub(*_: Any, **__: Any) -> Any:
    raise NotImplementedError(_STUB)


def _require(true: bool, message: str) -> None:
    if not true:
        raise AssertionError(message)


def _shown(arguments: Sequence[Any]) -> str:
    plain = [argument.item() if isinstance(argument, np.generic) else argument for argument in arguments]
    texts = [f"{one:.6g}" if isinstance(one, float) else " ".join(repr(one).split()) for one in plain]
    return f"({', '.join(text if len(text) <= 60 else text[:57] + '...' for text in texts)})"
