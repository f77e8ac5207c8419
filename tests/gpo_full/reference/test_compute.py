"""Parts of a pass: each row in one of them, of about as many tokens, and read back as they were written."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpo_full.reference import compute as reference_pass
from gpo_full.reference.compute import Computed, _part, computed_parts, discard_parts, write_part
from gpo_theory import InputError


@given(st.lists(st.integers(2, 50), min_size=1, max_size=60), st.integers(1, 9))
def test_each_row_is_in_one_part_and_parts_weigh_the_same(sizes: list[int], parts: int) -> None:
    order, weights = np.random.default_rng(0).permutation(len(sizes)), np.array(sizes)
    found = [_part(order, weights, part, parts) for part in range(parts)]
    assert np.concatenate(found).tolist() == order.tolist()
    # A cut may fall within a row, which lies on one side of it.
    assert max(weights[part].sum() for part in found) <= sum(sizes) / parts + max(sizes)


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_parts_are_read_in_pieces_as_they_were_written(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows by three processes, of which the second writes two batches and the third has nothing to do."""
    monkeypatch.setattr(reference_pass, "ROWS", rows)
    path = tmp_path / "store.safetensors"
    lengths = np.array([[1, 2], [2, 2], [1, 1], [3, 1], [2, 1]])
    values = [np.arange(10 * row, 10 * row + lengths[row].sum(), dtype="<f4") for row in range(5)]

    def computed(*batches: list[int]) -> list[Computed]:
        return [Computed(np.array(batch), lengths[batch], np.concatenate([values[row] for row in batch])) for batch in batches]

    for part, batches in enumerate(([[4, 0]], [[1, 3], [2]], [])):
        write_part(path, part, 3, computed(*batches), keep=True)
    found = [*computed_parts(path, 3)]
    assert np.concatenate([each.which for each in found]).tolist() == [4, 0, 1, 3, 2]
    assert max(len(each.which) for each in found) <= rows
    for each in found:
        assert each.lengths.tolist() == lengths[each.which].tolist()
        assert each.per_token.tolist() == np.concatenate([values[row] for row in each.which]).tolist()
    write_part(path, 0, 3, computed([1]), keep=True)
    assert next(computed_parts(path, 3)).which[0] == 4  # what was there
    write_part(path, 0, 3, computed([1]), keep=False)
    assert next(computed_parts(path, 3)).which[0] == 1
    path.touch()
    discard_parts(path)
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(InputError, match=r"1-of-3\.safetensors' is damaged; delete it"):
        next(computed_parts(path, 3))
