"""What a scale works on: the same every time, and policy or reward of the user's own in its place."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpo_full.experiment.inputs.scales import SCALES
from gpo_full.experiment.inputs.workload import load_workload
from gpo_full.experiment.run import run_experiment
from gpo_theory.errors import InputError
from tests.support.tiny_models import tiny_model, tiny_tokenizer

SMOKE = SCALES["smoke"]
REWARD = "def {name}(samples, targets):\n    return [float(len(sample)) for sample in samples]\n"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "policy")
    tiny_tokenizer().save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "longest_is_best.py").write_text(REWARD.format(name="judge"))
    yield "longest_is_best:judge"
    sys.modules.pop("longest_is_best", None)


def test_the_smoke_workload_is_the_same_every_time() -> None:
    one, two = load_workload(SMOKE), load_workload(SMOKE)
    assert one.tasks == two.tasks
    assert one.fingerprint == two.fingerprint
    pairs = zip(one.model.parameters(), two.model.parameters(), strict=True)
    assert all(bool((p == q).all()) for p, q in pairs)
    assert one.reward(["aab", "xyz"], ["abc", "abc"]) == pytest.approx([2 / 3, 0])


def test_nothing_is_prepared_at_smoke_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo_full.experiment.inputs.preparation.prepare", lambda *a, **k: pytest.fail("prepared"))
    load_workload(SMOKE)


def test_only_what_is_not_the_user_s_own_is_prepared(policy: Path, reward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def prepare(parts: list[str]) -> None:
        asked.append(parts)
        raise KeyboardInterrupt

    monkeypatch.setattr("gpo_full.experiment.inputs.preparation.prepare", prepare)
    for own in ((None, None), (str(policy), None), (None, reward), (str(policy), reward)):
        with pytest.raises(KeyboardInterrupt):
            load_workload(SCALES["full"], *own)
    assert asked == [["policy", "reward", "data"], ["reward", "data"], ["policy", "data"], ["data"]]


def test_a_policy_and_a_reward_of_one_s_own(policy: Path, reward: str) -> None:
    found, plain = load_workload(SMOKE, str(policy), reward), load_workload(SMOKE)
    assert (found.policy_name, found.reward_name) == ("policy", reward)
    assert found.tasks == plain.tasks
    assert found.rewards(["a", "abc"], found.tasks["test"][:2]) == [1.0, 3.0]
    assert all(torch.equal(p, q) for p, q in zip(found.model.parameters(), tiny_model().parameters(), strict=True))


def test_the_fingerprint_follows_weights_and_code(policy: Path, reward: str, tmp_path: Path) -> None:
    before = load_workload(SMOKE, str(policy), reward)
    tiny_model(seed=1).save_pretrained(policy)
    weights = load_workload(SMOKE, str(policy), reward)
    (tmp_path / "longest_is_best.py").write_text(REWARD.format(name="judge").replace("len", "-len"))
    code = load_workload(SMOKE, str(policy), reward)
    assert [a == b for a, b in zip(before.identity, weights.identity, strict=True)] == [False, True, True]
    assert [a == b for a, b in zip(weights.identity, code.identity, strict=True)] == [True, False, True]


def test_a_reward_model_is_given_the_prompts() -> None:
    class Reads:
        reads_prompt = True

        def __call__(self, samples: list[str], prompts: list[str]) -> list[float]:
            return [float(prompt.endswith("Summary:")) for prompt in prompts]

    found = replace(load_workload(SMOKE), reward=Reads())
    assert found.rewards(["x", "y"], found.tasks["test"][:2]) == [1.0, 1.0]


def test_a_policy_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the tokenizer of model"):
        load_workload(SMOKE, str(tmp_path / "empty"))


@pytest.mark.slow
def test_an_experiment_with_them_labels_by_the_reward_s_own_spread(policy: Path, reward: str, tmp_path: Path) -> None:
    scale = replace(SMOKE, losses=("logistic",), longest_prompt=128)
    found = run_experiment(scale, tmp_path / "work", policy=str(policy), reward=reward)
    assert (found.policy, found.reward) == ("policy", reward)
    # The two samples' lengths differ by several characters, not by 0.2: k = 4 over the mean difference is far below 20.
    assert 0 < found.labels["k"] < 20
    assert found.labels["agreement"] > 0.5
    assert len(found.runs) == 3
    assert [one["learning_rate"] for one in found.pilot["tried"]][:1] == [SMOKE.learning_rates[0] / 2]
