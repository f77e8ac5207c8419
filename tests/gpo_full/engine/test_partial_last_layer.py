"""The last layer computed where it is read: the same output there and the same gradients as the whole layer's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gpo_full.engine.packing import Batch, pack
from gpo_full.engine.partial_last_layer import PARTS, last_layer_at_sources
from tests.support.pairs import distance, gradients, some_pairs
from tests.support.tiny_models import tiny_model

FAMILIES = [(family, layout) for family in ("llama", "qwen3", "gpt2", "opt") for layout in ("line", "rows")]


def hidden(model: Any, batch: Batch) -> torch.Tensor:
    """What leaves the trunk, [R * L, width]."""
    found = model.base_model(input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=_mask(batch),
                             use_cache=False).last_hidden_state  # fmt: skip
    return found.flatten(0, 1)


def _mask(batch: Batch) -> torch.Tensor:
    # "apart" needs no mask of its own: padding is on the right.
    return torch.ones_like(batch.input_ids) if batch.layout == "apart" else batch.mask


def last_layer(model: Any) -> nn.Module:
    (stack,) = [each for each in model.get_decoder().children() if isinstance(each, nn.ModuleList)]
    layer: nn.Module = stack[-1]
    return layer


@contextmanager
def positions(model: Any) -> Iterator[dict[str, int]]:
    """How many positions the matrices of the last layer meet, by name."""
    names = {id(each.weight): name for name, each in last_layer(model).named_modules() if isinstance(each, nn.Linear)}
    seen: dict[str, int] = {}
    linear = F.linear

    def counting(states: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        if id(weight) in names:
            seen[names[id(weight)]] = states.shape[:-1].numel()
        return linear(states, weight, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "linear", counting)
        yield seen


def forwards(model: nn.Module) -> list[str]:
    """The modules whose own `forward` is replaced."""
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize(("family", "layout"), FAMILIES)
def test_where_it_is_read_the_output_and_all_gradients_are_those_of_the_whole_layer(family: str, layout: str) -> None:
    model, batch = tiny_model(family, dtype=torch.float64), pack(some_pairs(5), layout)
    whole = hidden(model, batch)
    expected = gradients(model, whole[batch.distinct_sources])
    with last_layer_at_sources(model, batch):
        part = hidden(model, batch)
        found = gradients(model, part[batch.distinct_sources])
    torch.testing.assert_close(part[batch.distinct_sources], whole[batch.distinct_sources], rtol=1e-10, atol=1e-12)
    assert distance(found, expected) <= 1e-10
    # It was not simply the whole layer again: elsewhere the outputs differ.
    elsewhere = torch.ones(len(whole), dtype=torch.bool).index_fill(0, batch.distinct_sources, False)
    assert not torch.isclose(part, whole)[elsewhere].all()


@pytest.mark.parametrize("layout", ["line", "rows"])
def test_only_keys_and_values_are_made_at_every_position(layout: str) -> None:
    model, batch = tiny_model(), pack(some_pairs(5), layout)
    everywhere = batch.input_ids.numel()
    with positions(model) as before:
        hidden(model, batch)
    assert {*before.values()} == {everywhere}
    assert len(batch.distinct_sources) < 0.7 * everywhere
    with last_layer_at_sources(model, batch), positions(model) as seen:
        hidden(model, batch)
    whole = {"self_attn.k_proj", "self_attn.v_proj"}
    assert seen == {name: everywhere if name in whole else len(batch.distinct_sources) for name in before}
    with positions(model) as after:
        hidden(model, batch)
    assert after == before


def test_every_part_is_a_part_of_some_model() -> None:
    """A name that fits no model would be a saving that is not made."""
    names = {name for family in ("llama", "gpt2") for name, _ in last_layer(tiny_model(family)).named_modules()}
    assert {*PARTS} - names == {"feed_forward"}  # of the GPT-J and Falcon-H1 kind


@pytest.mark.parametrize("case", ["apart", "checkpointed", "wrapped", "no stack of layers"])
def test_nothing_is_replaced_where_it_would_be_wrong(case: str) -> None:
    model, batch = tiny_model(), pack(some_pairs(5), "apart" if case == "apart" else "line")
    expected = hidden(model, batch)
    if case == "checkpointed":
        model.activation_checkpointing_enable({"use_reentrant": False})
    elif case == "wrapped":
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

        model.model.layers[-1] = checkpoint_wrapper(model.model.layers[-1])
    elif case == "no stack of layers":
        model.model.more = nn.ModuleList()
    hooks = len(last_layer(model)._forward_pre_hooks) if case != "no stack of layers" else 0
    with last_layer_at_sources(model, batch):
        assert forwards(model) == []
        if case != "no stack of layers":
            assert len(last_layer(model)._forward_pre_hooks) == hooks
            assert torch.equal(hidden(model, batch), expected)


def test_the_model_is_left_as_it_was_even_after_an_error() -> None:
    model, batch = tiny_model(), pack(some_pairs(5), "line")
    mine = lambda states: states  # noqa: E731
    last_layer(model).mlp.forward = mine  # somebody else's replacement comes back

    def power_cut() -> None:
        assert len(forwards(model)) == 3
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"), last_layer_at_sources(model, batch):
        power_cut()
    assert forwards(model) == ["model.layers.1.mlp"]
    assert last_layer(model).mlp.forward is mine
    assert not last_layer(model)._forward_pre_hooks
