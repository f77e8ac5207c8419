"""Packing: whatever the layout, each response token is predicted from exactly its own sequence, at its positions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.packing import LAYOUTS, Batch, pack
from gpo_full.pairs import Pair
from gpo_theory import InputError

TOKENS = st.lists(st.integers(0, 9), max_size=6)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Random token lists, small ids so that padding's 0 and repeats occur inside the texts."""
    prefix = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))
    prompt_length = draw(st.integers(1, len(prefix)))
    chosen, rejected = draw(TOKENS), draw(TOKENS)
    if chosen[:1] == rejected[:1]:
        chosen = [(rejected[0] + 1) % 10 if rejected else 1, *chosen]
    if prompt_length == len(prefix):  # nothing in common: neither response may be empty
        chosen, rejected = chosen or [(rejected[0] + 1) % 10], rejected or [(chosen[0] + 1) % 10]
    return Pair(tuple(prefix), tuple(chosen), tuple(rejected), prompt_length)


def visible(batch: Batch, source: int) -> tuple[list[int], list[int]]:
    """Tokens and positions that flattened position `source` sees, itself included, in order."""
    row, position = divmod(source, batch.input_ids.shape[1])
    seen = batch.mask[row, 0, position]
    return batch.input_ids[row][seen].tolist(), batch.position_ids[row][seen].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=60)
@given(st.lists(pairs(), min_size=1, max_size=6))
def test_each_token_is_predicted_from_its_own_sequence(layout: str, some: list[Pair]) -> None:
    batch = pack(some, layout)
    owned: list[list[int]] = [[] for _ in range(2 * len(some))]
    for entry, owner in zip(batch.entry.tolist(), batch.owner.tolist(), strict=True):
        pair = some[owner // 2]
        response = pair.responses[owner % 2]
        done = len(owned[owner])
        sequence = list(pair.prefix[: pair.prompt_length] + response[:done])
        assert visible(batch, int(batch.source[entry])) == (sequence, list(range(len(sequence))))
        owned[owner].append(int(batch.target[entry]))
    assert owned == [list(response) for pair in some for response in pair.responses]
    assert batch.lengths.tolist() == [[len(response) for response in pair.responses] for pair in some]


@settings(deadline=None, max_examples=60)
@given(st.lists(pairs(), min_size=1, max_size=8))
def test_shared_layouts_hold_each_token_once(some: list[Pair]) -> None:
    total = sum(pair.size for pair in some)
    line, rows = pack(some, "line"), pack(some, "rows")
    assert line.input_ids.shape == (1, total)
    assert int((rows.block > 0).sum()) == total
    assert rows.input_ids.shape[1] <= max(pair.size for pair in some)
    # First-fit leaves at most one row half empty: fewer than twice the rows that the tokens fill, and one.
    assert rows.input_ids.shape[0] <= 2 * total / max(pair.size for pair in some) + 1


def test_no_row_of_the_mask_is_empty() -> None:
    batch = pack([Pair((1, 2, 3), (4,), (5,), 3), Pair((1,), (4,), (5,), 1)], "rows")
    assert bool(batch.mask.any(-1).all())  # a query that sees nothing would give NaN, which spreads


def test_sums_add_by_owner() -> None:
    batch = pack([Pair((1, 2), (3, 4), (5,), 1)])  # token 2 is common to both responses
    assert batch.sums(torch.tensor([1.0, 10.0, 100.0, 1000.0])).tolist() == [[111.0, 1001.0]]


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="allowed: line, rows, apart"):
        pack([Pair((1,), (2,), (3,), 1)], "columns")
    with pytest.raises(ValueError, match="at least one pair"):
        pack([])
