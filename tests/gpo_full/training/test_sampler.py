"""Prompts at random, their pairs together: each row once an epoch, the same for a seed, and training that resumes."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpo_full.engine.packing import pack
from gpo_full.training.rows import PromptSampler
from tests.support.pairs import ranked_pairs
from tests.support.tiny_models import tiny_model
from tests.support.trainings import objects, trained, trainer, weights


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 5))
def test_each_row_once_and_a_prompt_s_together_in_order(prompts: list[int], epoch: int) -> None:
    sampler = PromptSampler(np.array(prompts), seed=3)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert sorted(drawn) == list(range(len(prompts)))
    assert len(sampler) == len(prompts)
    runs = [[*rows] for _, rows in itertools.groupby(drawn, key=lambda row: prompts[row])]
    assert len(runs) == len({*prompts})
    assert all(rows == sorted(rows) for rows in runs)
    assert list(sampler) == drawn


def test_the_order_of_prompts_depends_on_epoch_and_seed() -> None:
    prompts = np.repeat(np.arange(12), 2)
    found = {}
    for seed, epoch in itertools.product(range(3), range(3)):
        sampler = PromptSampler(prompts, seed)
        sampler.set_epoch(epoch)
        found[seed, epoch] = tuple(sampler)
    assert len({*found.values()}) == 9
    # Each prompt comes first about equally often: 12 prompts, 1,200 draws, five standard deviations.
    firsts = np.zeros(12)
    for seed in range(1200):
        firsts[prompts[next(iter(PromptSampler(prompts, seed)))]] += 1
    assert np.abs(firsts - 100).max() < 5 * np.sqrt(1200 / 12 * 11 / 12)


def drawn_batches(made: Any) -> list[list[int]]:
    return [batch["row"].tolist() for batch in made.get_train_dataloader()]


def test_the_seed_of_the_data_counts_before_that_of_the_run(tmp_path: Path) -> None:
    pairs, options = ranked_pairs(prompts=6), {"group_by_prompt": True, "per_device_train_batch_size": 6}
    drawn = [drawn_batches(trainer(tmp_path, tiny_model(), pairs, **options, **seeds))
             for seeds in ({"seed": 1}, {"seed": 2}, {"seed": 1, "data_seed": 2}, {"seed": 3, "data_seed": 2})]  # fmt: skip
    assert drawn[0] != drawn[1] == drawn[2] == drawn[3]


def test_a_batch_lays_down_what_its_pairs_share(tmp_path: Path) -> None:
    pairs = ranked_pairs(prompts=5)[::-1]  # six pairs a prompt
    options: dict[str, Any] = {"per_device_train_batch_size": 6, "num_train_epochs": 1, "max_steps": -1}
    made = trainer(tmp_path, tiny_model(), pairs, group_by_prompt=True, **options)
    batches = drawn_batches(made)
    assert sorted(itertools.chain(*batches)) == list(range(30))
    assert all(len({pairs[row].prompt for row in batch}) == 1 for batch in batches)
    made.train()
    tokens = objects(tmp_path)[-1]["tokens"]
    assert tokens == sum(pack([pairs[row] for row in batch], "line").input_ids.numel() for batch in batches)
    trainer(tmp_path, tiny_model(), pairs, run="mixed", **options).train()
    assert objects(tmp_path, "mixed")[-1]["tokens"] > 1.5 * tokens


def test_what_a_step_computes_is_the_same_pair_by_pair(tmp_path: Path) -> None:
    """A whole epoch in one batch has the same pairs in whatever order."""
    pairs = ranked_pairs(prompts=3)
    found = {}
    for grouped in (True, False):
        made = trained(tmp_path, tiny_model(dtype=torch.float64), pairs, run=str(grouped), loss="hinge", max_steps=2,
                       per_device_train_batch_size=18, group_by_prompt=grouped)  # fmt: skip
        found[grouped] = weights(made.model)
    torch.testing.assert_close(found[True], found[False], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5, 8])
def test_a_resume_draws_the_same_prompts(step: int, tmp_path: Path) -> None:
    """Within the first epoch of five steps, at its end and within the second."""
    pairs = ranked_pairs(prompts=5)
    settings = {"per_device_train_batch_size": 6, "max_steps": 10, "group_by_prompt": True, "save_strategy": "steps",
                "save_steps": step}  # fmt: skip
    straight = trained(tmp_path, tiny_model(), pairs, **settings)
    resumed = trained(tmp_path, tiny_model(), pairs, resume=str(tmp_path / "run" / f"checkpoint-{step}"), **settings)
    assert torch.equal(weights(resumed.model), weights(straight.model))
