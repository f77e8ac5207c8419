"""Packing: whatever the layout, each response token is predicted from exactly its own sequence, at its positions."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.data.pairs import Pair
from gpo_full.engine.packing import LAYOUTS, Batch, pack
from gpo_theory import InputError
from tests.support.pairs import alike

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


@st.composite
def related_pairs(draw: st.DrawFn) -> list[Pair]:
    """Pairs of which some have one prompt, and some of these a response."""
    prompts = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=2))
    made = []
    for prompt in prompts:
        some = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=2, max_size=5, unique_by=tuple))
        several = [*itertools.permutations(some, 2)]
        made += [pair_of(prompt, *two) for two in draw(st.lists(st.sampled_from(several), min_size=1, max_size=5))]
    return draw(st.permutations(made))


def pair_of(prompt: list[int], chosen: list[int], rejected: list[int]) -> Pair:
    shared = alike(chosen, rejected)
    return Pair((*prompt, *chosen[:shared]), tuple(chosen[shared:]), tuple(rejected[shared:]), len(prompt))


def whole(pair: Pair) -> list[tuple[int, ...]]:
    """Both sequences of a pair, prompt included."""
    return [pair.prefix + pair.chosen, pair.prefix + pair.rejected]


SOME = st.lists(pairs(), min_size=1, max_size=6) | related_pairs()


def visible(batch: Batch, source: int) -> tuple[list[int], list[int]]:
    """Tokens and positions that flattened position `source` sees, itself included, in order."""
    row, position = divmod(source, batch.input_ids.shape[1])
    seen = batch.mask[row, 0, position]
    return batch.input_ids[row][seen].tolist(), batch.position_ids[row][seen].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=60)
@given(SOME)
def test_each_token_is_predicted_from_its_own_sequence(layout: str, some: list[Pair]) -> None:
    batch = pack(some, layout)
    owned: list[list[int]] = [[] for _ in range(2 * len(some))]
    for entry, owner in zip(batch.prediction_index.tolist(), batch.response_index.tolist(), strict=True):
        pair = some[owner // 2]
        response = pair.responses[owner % 2]
        done = len(owned[owner])
        sequence = list(pair.prefix[: pair.prompt_length] + response[:done])
        assert visible(batch, int(batch.source[entry])) == (sequence, list(range(len(sequence))))
        owned[owner].append(int(batch.target[entry]))
    assert owned == [list(response) for pair in some for response in pair.responses]
    assert batch.lengths.tolist() == [[len(response) for response in pair.responses] for pair in some]


@settings(deadline=None, max_examples=60)
@given(SOME)
def test_shared_layouts_hold_each_prompt_and_response_once(some: list[Pair]) -> None:
    sequences: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for pair in some:
        sequences.setdefault(pair.prefix[: pair.prompt_length], set()).update(whole(pair))
    sizes = []
    for several in sequences.values():
        shared = alike(*several)
        sizes.append(shared + sum(len(each) - shared for each in several))
    line, rows = pack(some, "line"), pack(some, "rows")
    assert line.input_ids.shape == (1, sum(sizes))
    assert int((rows.block > 0).sum()) == sum(sizes)
    assert rows.input_ids.shape[1] == max(sizes)
    # First-fit leaves at most one row half empty: fewer than twice the rows that the tokens fill, and one.
    assert rows.input_ids.shape[0] <= 2 * sum(sizes) / max(sizes) + 1


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(deadline=None, max_examples=60)
@given(SOME)
def test_the_tokens_of_the_first_pairs_are_known(layout: str, some: list[Pair]) -> None:
    """Those there for a pair are of its sequences; with those of the pairs before, they are all that it has."""
    batch = pack(some, layout)
    assert torch.equal(batch.pair > 0, batch.block > 0)
    seen: list[tuple[int, ...]] = []
    for number, pair in enumerate(some, 1):
        own = [tuple(visible(batch, int(at))[0]) for at in (batch.pair.flatten() == number).nonzero()]
        assert all(any(each[: len(part)] == part for each in whole(pair)) for part in own)
        seen += own
        assert {*whole(pair)} <= {*seen}


def test_pairs_of_one_prompt_in_another_order_of_sides() -> None:
    one = Pair((1, 2), (3,), (4, 5), 2)
    batch = pack([one, Pair((1, 2), (4, 5), (3,), 2)], "line")  # the labels disagree
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5]]
    assert batch.sums(torch.tensor([1.0, 10.0, 100.0])).tolist() == [[1.0, 110.0], [110.0, 1.0]]


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
