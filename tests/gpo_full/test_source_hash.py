"""The key of a cache sees all the code that a computation reaches, and no other."""

from pathlib import Path

import pytest

from gpo_full.source_hash import code_hash


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "planted_module.py"


def test_the_code_hash_sees_what_code_does_and_not_how_it_is_written(planted: Path) -> None:
    variants = ['def f(x):\n    """Doc."""\n    return x + 1\n', "# why\ndef f(x):\n    return (x +\n        1)\n", "def f(x):\n    return x + 2\n"]
    hashes = []
    for text in variants:
        planted.write_text(text)
        hashes.append(code_hash(["planted_module"]))
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_code_hash_of_a_module_that_is_missing_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        code_hash(["gpo_full.no_such_module"])
