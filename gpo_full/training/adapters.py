"""Adapters of peft, without the warning that its own code causes."""

__all__ = ["quietly"]

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Let peft 0.21 ask a model for the old name of activation checkpointing: the user can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
