"""Edits of a module's source as the keys of caches read it."""

__all__ = ["edit"]

from collections.abc import Callable

import pytest

from gpo_full import source_hash


def edit(patch: pytest.MonkeyPatch, module: str, change: Callable[[str], str]) -> None:
    """Let the module's source be read as if it had been edited."""
    read = source_hash._source
    edited = change(read(module))
    assert edited != read(module)
    patch.setattr(source_hash, "_source", lambda name: edited if name == module else read(name))
