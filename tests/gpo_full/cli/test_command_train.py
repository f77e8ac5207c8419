"""`gpo train`: from a folder and a file to a trained folder, and one clear line for whatever cannot be done."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.training.trainer import GPOTrainer
from tests.support import commands
from tests.support.commands import Outcome
from tests.support.pairs import ROWS
from tests.support.tables import write_rows
from tests.support.tiny_models import saved_policy, tiny_model, tiny_tokenizer
from tests.support.trainings import at_call, objects, same

SAVE = ("--set", "save_steps=2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_policy(tmp_path_factory.mktemp("model") / "policy")


@dataclass(frozen=True)
class Train:
    """`gpo train` with a model and pairs, four steps into the folder `run`."""

    model: Path
    data: Path
    output: Path

    def words(self, *more: object, **changes: Any) -> list[object]:
        options = {"model": self.model, "data": self.data, "loss": "dpo", "beta": 0.1, "output": self.output,
                   "steps": 4, "learning_rate": 1e-3, "batch_pairs": 3, "threads": 1, **changes}  # fmt: skip
        given = ((f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None)
        return ["train", *(word for pair in given for word in pair), *more]

    def __call__(self, *more: object, code: int = 0, **changes: Any) -> Outcome:
        return commands.gpo(*self.words(*more, **changes), code=code)

    def refused(self, *more: object, **changes: Any) -> str:
        return commands.refused(*self.words(*more, **changes))

    def weights(self, *more: object, name: str = "run") -> dict[str, torch.Tensor]:
        """Train, and return what the run ended with."""
        self(*more, output=self.output.parent / name)
        found: dict[str, torch.Tensor] = load_file(self.output.parent / name / "model.safetensors")
        return found


@pytest.fixture
def train(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return Train(model, write_rows(tmp_path / "pairs.jsonl"), tmp_path / "run")


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPO_CACHE", str(folder / "cache"))
        Train(model, write_rows(folder / "pairs.jsonl"), folder / "run")()
    return folder / "run"


@pytest.fixture
def cut(finished: Path, train: Train) -> Train:
    """The command, in whose folder is that run, ended before its model was written."""
    shutil.copytree(finished, train.output)
    (train.output / "config.json").unlink()
    return train


def test_it_trains_saves_and_reports(train: Train, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, out, err = train("--json", loss="max(0, a-x)**2", param="a=1", eval_data=train.data)
    result = json.loads(out)
    assert err == "gpo train: eval: 7 of 7 held-out pairs are trained on too\n"
    assert (result["schema"], result["steps"], result["pairs"]) == (1, 4, 7)
    assert result["first"]["loss"] == pytest.approx(1.0, abs=1e-4)
    assert result["last"]["loss"] < 1.0
    assert result["evaluation"]["eval_accuracy"] == 1.0
    assert len(objects(tmp_path)) == 4
    trained = AutoModelForCausalLM.from_pretrained(train.output)
    assert AutoTokenizer.from_pretrained(train.output).eos_token_id == 2
    assert not torch.equal(trained.lm_head.weight, tiny_model().lm_head.weight)
    assert not [*train.output.glob("*.bin"), *train.output.glob(".*")]
    assert (tmp_path / "cache" / "references").is_dir()


@pytest.mark.slow
def test_under_a_launcher_two_processes_train_as_one(train: Train, tmp_path: Path) -> None:
    """The same command for each: torchrun starts two, of half the pairs each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gpo_full.cli"]
    words = map(str, train.words("--json", output=tmp_path / "two", batch_pairs=2, set="use_cpu=true"))
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    alone = train("--json", output=tmp_path / "one", batch_pairs=4, set="use_cpu=true")
    told, weights = {}, {}
    for name, out in (("one", alone.stdout), ("two", done.stdout)):
        (line,) = out.splitlines()  # of two processes, the first alone speaks
        told[name] = json.loads(line)
        weights[name] = torch.cat([w.flatten() for w in load_file(tmp_path / name / "model.safetensors").values()])
    assert told["one"]["steps"] == told["two"]["steps"] == 4
    for measure in ("loss", "margin", "grad_norm"):
        assert told["two"]["last"][measure] == pytest.approx(told["one"]["last"][measure], rel=1e-3)
    # Adam divides by the root of squares, which turns the rounding of a small gradient into a part of a step of 1e-3.
    assert float((weights["one"] - weights["two"]).norm() / weights["one"].norm()) < 1e-4
    event = objects(tmp_path, "two", "events")[0]
    assert (event["event"], event["processes"], event["model"]) == ("distributed", 2, "DistributedDataParallel")


def test_the_report_for_people(train: Train) -> None:
    out = train("--set", "disable_tqdm=true", steps=None, last_layers=1, set="weight_decay=0.1").stdout
    assert "3 steps on 7 pairs, loss logistic, beta 0.1" in out  # one epoch by default: ceil(7 / 3)
    assert f"model and metrics.jsonl in {train.output}" in out


def test_the_folder_of_an_adapter_loads(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(train.model.parent)
    train(model="policy", lora_rank=2)
    monkeypatch.chdir(tmp_path)
    adapted = AutoModelForCausalLM.from_pretrained(train.output)
    assert any("lora_" in name for name, _ in adapted.named_parameters())


def test_resume_ends_where_a_straight_run_ends(train: Train) -> None:
    straight = train.weights(*SAVE, name="straight")
    train(*SAVE)
    for old in (train.output / "config.json", train.output / "model.safetensors", *train.output.glob("checkpoint-4/*")):
        old.unlink()  # as if it had been killed in the save of step 4
    assert "resuming from checkpoint-2" in train(*SAVE, "--resume").stderr
    assert same(load_file(train.output / "model.safetensors"), straight)
    assert "is already complete" in train(*SAVE, "--resume").stderr
    again = [*SAVE, "--resume"]
    assert "learning_rate: 0.001 -> 0.01 (--allow-change NAME allows one)" in train.refused(*again, learning_rate=0.01)
    line = train.refused(*again, "--allow-change", "learning-rate", learning_rate=0.01)
    assert "is complete, and no setting of it can change now: learning_rate: 0.001 -> 0.01; to train on" in line


def test_resume_needs_only_the_folder(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another current folder, with data of a relative path and the held-out pairs of a folder of splits."""
    monkeypatch.chdir(train.output.parent)
    more = [*SAVE, "--set", "weight_decay=0.1", "--seed", 0, "--param", "a=1"]
    changes = {"data": "pairs.jsonl", "eval_data": "pairs.jsonl", "loss": "max(0, a-x)**2", "output": "run"}
    train(*more, **changes)
    straight = load_file(train.output / "model.safetensors")
    for old in (train.output / "config.json", train.output / "model.safetensors", *train.output.glob("checkpoint-4/*")):
        old.unlink()
    elsewhere = train.output.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    done = commands.gpo("train", "--resume", "--output", train.output, "--json", code=0)
    assert "resuming from checkpoint-2" in done.stderr
    assert same(load_file(train.output / "model.safetensors"), straight)
    assert json.loads(done.stdout)["evaluation"]
    refused = commands.refused("train", "--resume", "--output", train.output, "--beta", 0.2, "--set", "weight_decay=0.2")
    assert "beta: 0.1 -> 0.2" in refused
    assert "weight_decay: 0.1 -> 0.2" in refused
    assert "save_steps" not in refused
    shutil.move(train.data, elsewhere / "moved.jsonl")
    assert str(train.data) in commands.refused("train", "--resume", "--output", train.output)
    moved = ["--data", "moved.jsonl", "--eval-data", "moved.jsonl"]  # the same rows
    assert "already complete" in commands.gpo("train", "--resume", "--output", train.output, *moved, code=0).stderr


def test_resume_runs_no_code_that_is_named_in_the_folder(cut: Train) -> None:
    recorded = json.loads((cut.output / "run.json").read_text())
    recorded["options"]["reward"] = "os:abort"
    (cut.output / "run.json").write_text(json.dumps(recorded))
    assert "the run names code, --reward 'os:abort', which is only run if it is typed" in commands.refused("train", "--resume", "--output", cut.output)


def test_a_new_run_names_what_it_needs_and_an_old_folder_what_it_does_not_record(train: Train, cut: Train) -> None:
    assert "arguments are required: --loss, --beta" in train.refused(loss=None, beta=None, output=train.output.parent / "new")
    recorded = json.loads((cut.output / "run.json").read_text())
    del recorded["options"]
    (cut.output / "run.json").write_text(json.dumps(recorded))
    line = commands.refused("train", "--resume", "--output", cut.output)
    assert "are required: --loss, --beta, --model, --data (the run in it does not record them)" in line


def test_the_folder_of_a_version_with_a_setting_that_is_gone(train: Train) -> None:
    train()
    recorded = json.loads((train.output / "run.json").read_text())
    (train.output / "run.json").write_text(json.dumps(recorded | {"compile_mlp": True}))
    line = train.refused("--resume")
    assert "is of another run: compile_mlp: True -> None (--allow-change NAME allows one)" in line
    (train.output / "run.json").write_text(json.dumps(recorded | {"compile_mlp": False}))
    assert "is already complete" in train("--resume").stderr


def test_resume_refuses_another_configuration_and_names_each_key(cut: Train) -> None:
    before = {path: path.read_bytes() for path in cut.output.rglob("*") if path.is_file()}
    write_rows(cut.data, [*ROWS, ROWS[0] | {"prompt": "return"}])
    line = cut.refused("--resume", beta=0.2, learning_rate=0.1)
    assert "beta: 0.1 -> 0.2; " in line or "; beta: 0.1 -> 0.2" in line
    assert "learning_rate: 0.001 -> 0.1" in line
    assert "data: " in line
    assert "seed" not in line
    assert before == {path: path.read_bytes() for path in cut.output.rglob("*") if path.is_file()}


def test_resume_without_a_checkpoint_starts_over_and_says_so(cut: Train) -> None:
    shutil.rmtree(cut.output / "checkpoint-4")
    assert "resuming from the start: no checkpoint was saved" in cut("--resume").stderr
    assert len(objects(cut.output.parent)) == 4


@pytest.mark.parametrize("gone", [["model.safetensors"], ["model.safetensors", "result.json"], ["config.json", "README.md"]])
def test_a_finished_folder_without_its_model_is_completed_again(gone: list[str], finished: Path, cut: Train) -> None:
    shutil.copytree(finished, cut.output, dirs_exist_ok=True)
    for name in gone:
        (cut.output / name).unlink()
    assert "resuming from checkpoint-4" in cut("--resume").stderr
    assert same(load_file(cut.output / "model.safetensors"), load_file(finished / "model.safetensors"))
    assert (cut.output / "result.json").is_file()


def test_what_changes_with_a_setting_needs_no_name_of_its_own(cut: Train) -> None:
    for words in (["--bf16"], ["--bf16", "--allow-change", "beta"]):
        assert "bf16: False -> True" in cut.refused("--resume", *words)
    cut("--resume", "--bf16", "--allow-change", "bf16")
    shutil.rmtree(cut.output / "checkpoint-4", ignore_errors=True)


def test_an_adapter_cannot_be_put_on_within_a_run(cut: Train) -> None:
    line = cut("--resume", "--allow-change", "lora_rank", lora_rank=2, code=2).stderr
    assert "lora_rank cannot change within a run, which is of other weights: [None, 2]; start one with checkpoint-4" in line


def test_a_model_whose_files_changed_is_said_on_a_resume(cut: Train, tmp_path: Path) -> None:
    shutil.copytree(cut.model, tmp_path / "policy")
    cut("--resume", "--allow-change", "model", model=tmp_path / "policy")
    tiny_model(seed=6).save_pretrained(tmp_path / "policy")
    for name in ("config.json", "model.safetensors"):
        (cut.output / name).unlink()
    assert "the files of the model, or of the reference, have changed since: put those back" in cut.refused("--resume", model=tmp_path / "policy")


def test_an_output_without_a_name_and_a_link_to_nowhere(train: Train, tmp_path: Path) -> None:
    assert "--output '' is not the name of a folder" in train.refused(output="")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert f"is a link to {str(tmp_path / 'nowhere')!r}, which is not there" in train.refused(output=tmp_path / "link")


def test_spec_07_the_second_command_on_a_folder_is_refused(cut: Train) -> None:
    before = (cut.output / "run.json").read_bytes()
    with checkpoint.sole_writer(cut.output):
        assert "another run is writing into" in cut.refused("--resume")
    assert (cut.output / "run.json").read_bytes() == before


def test_more_steps_may_be_allowed_by_the_name_of_the_option(cut: Train) -> None:
    # Beyond 1,000 steps metrics are logged at every tenth, which is no change of its own.
    line = cut.refused("--resume", steps=2000)
    assert "max_steps: 4 -> 2000 (--allow-change NAME allows one)" in line
    assert "logging_steps" not in line
    assert "save_steps" in cut.refused("--resume", "--set", "save_steps=6", "--allow-change", "steps", steps=2000)
    assert "6 steps on 7 pairs" in cut("--resume", "--allow-change", "steps", steps=6).stdout


@pytest.mark.parametrize(("changes", "reason"), [
    ({"beta": "much"}, "--beta"),
    ({"loss": "logstic"}, "did you mean 'logistic'"),
    ({"data": "absent.jsonl"}, "--data 'absent.jsonl' is not a file"),
    ({"eval_data": "absent.jsonl"}, "--eval-data 'absent.jsonl' is not a file"),
    ({"model": "./absent"}, "--model './absent' is not a folder"),
    ({"model": "nobody/nothing"}, "'nobody/nothing' is neither a folder nor in the hub's cache"),
    ({"model": "no body"}, "'no body' is no folder, and the hub says"),
    ({"param": "a"}, "--param 'a' is not of the form NAME=VALUE"),
    ({"set": "weight_decai=1"}, "did you mean 'weight_decay'"),
    ({"set": "weight_decay=heavy"}, "is not a value of type float"),
    ({"set": "compile_mlp=true"}, "GPOConfig has no field 'compile_mlp'"),
    ({"set": "beta=2"}, "beta has an option of its own, --beta"),
    ({"set": "num_train_epochs=2"}, "num_train_epochs has an option of its own, --epochs"),
    ({"set": "label_smoothing=0.1"}, "GPOConfig has no field 'label_smoothing': the rate of flipped labels is called label_noise"),
    ({"set": "push_to_hub=true"}, "--set push_to_hub=true is refused: `hf upload` takes the finished folder"),
    ({"set": "resume_from_checkpoint=run"}, "--set resume_from_checkpoint=run is refused: --resume continues a run"),
    ({"set": "label_names=[\"labels\"]"}, "label_names=['labels'] is refused: the batches hold no labels"),
    ({"set": "eval_strategy=epoch"}, "needs held-out pairs, eval_dataset"),
    ({"threads": 0}, "--threads 0"),
    ({"steps": 0}, "--steps 0 must be at least 1"),
    ({"steps": None, "epochs": 0}, "num_train_epochs=0.0 must be a finite number above 0"),
    ({"batch_pairs": 0}, "per_device_train_batch_size=0 must be a whole number of at least 1"),
    ({"learning_rate": -1}, "learning_rate=-1.0 must be a finite number of at least 0"),
    ({"learning_rate": "nan"}, "learning_rate=nan must be a finite number of at least 0"),
    ({"seed": -1}, "seed=-1 must be a whole number of at least 0 and at most 4294967295"),
    ({"set": "gradient_accumulation_steps=0"}, "gradient_accumulation_steps=0 must be a whole number of at least 1"),
    ({"set": "max_steps=-3"}, "max_steps"),
    ({"epochs": 1}, "not allowed with argument --steps"),
])  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(changes: dict[str, Any], reason: str, train: Train) -> None:
    assert reason in train.refused(**changes)
    assert not train.output.exists()


@pytest.mark.parametrize("words", [("--data", "more.jsonl"), ("--loss", "ipo"), ("--beta=0.5",), ("--steps", "5")])
def test_an_option_of_one_value_is_given_once(words: tuple[str, ...], train: Train) -> None:
    assert f"{words[0].partition('=')[0]} is given twice, and takes one value" in train.refused(*words)
    assert not train.output.exists()


def test_a_signal_at_the_start_leaves_nothing(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM after the output folder was made; the handler of before is there again."""
    before = signal.getsignal(signal.SIGTERM)

    def told(*_: Any, **__: Any) -> None:
        assert train.output.is_dir()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("gpo_full.training.references.open_store", told)
    assert train(code=143).stdout == ""
    assert not train.output.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_output_that_cannot_be_made_is_one_line(train: Train) -> None:
    before = train.data.read_bytes()
    line = train.refused(output=train.data / "run")
    assert f"cannot be made: {str(train.data)!r} is no folder that can be written" in line
    assert train.data.read_bytes() == before


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    """As `gpo losses | head -1`; the output is larger than what a pipe holds."""
    command = f"{shlex.quote(sys.executable)} -m gpo_full.cli losses | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_a_hub_without_a_network_is_asked_once(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(self: Any, name: str, **rest: Any) -> None:
        asked.append(name)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    line = train.refused(model="nobody/nothing")
    assert "'nobody/nothing' is no folder, and the hub says: Name or service not known" in line
    assert asked == ["nobody/nothing"]


def test_a_bad_row_is_named(train: Train) -> None:
    write_rows(train.data, [*ROWS, ROWS[0] | {"chosen": ""}])
    assert f"{train.data}: row 8: 'chosen' is empty" in train.refused()
    assert not train.output.exists()
    assert "7 of 8 pairs, 1 skipped ('chosen' is empty)" in train(set="bad_rows=skip").stderr


def test_an_output_that_is_not_empty_is_refused_and_left_alone(train: Train) -> None:
    train.output.mkdir()
    (train.output / "mine").write_text("precious")
    assert "is not an empty folder" in train.refused()
    assert "holds no run to resume" in train.refused("--resume")
    assert [path.name for path in train.output.iterdir()] == ["mine"]


def test_a_folder_that_is_no_model(train: Train, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert "nothing" in train.refused(model=tmp_path / "nothing")
    tiny_tokenizer().save_pretrained(tmp_path / "nothing")
    assert "cannot be loaded" in train.refused(model=tmp_path / "nothing")
    assert not train.output.exists()


@pytest.mark.parametrize(("steps", "said"), [
    (4, "stopped after step 3: not finite: loss, margin"), (2, "stopped after step 2: no step was applied"),
])  # fmt: skip
def test_spec_11_a_run_that_diverges_or_applies_no_step_exits_with_5(
    steps: int, said: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    refer = GPOTrainer._refer

    def broken(self: GPOTrainer, *rest: Any) -> None:
        refer(self, *rest)
        self.train_dataset.reference[:, 0] = torch.nan

    monkeypatch.setattr(GPOTrainer, "_refer", broken)
    err = train(code=5, steps=steps).stderr
    assert said in err
    assert len(objects(train.output.parent, name="events")) == min(steps, 3)
    assert not (train.output / "model.safetensors").exists()
    if steps == 4:
        assert "the third step in a row; the batch is in" in err
        assert json.loads((train.output / "non_finite_batch.json").read_text())["step"] == 3
        assert (train.output / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_spec_16_a_signal_exits_with_its_code_and_resume_goes_on(
    number: int, code: int, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train.weights(name="straight")
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        killed = at_call(2, GPOTrainer.compute_loss, lambda: os.kill(os.getpid(), number))
        patch.setattr(GPOTrainer, "compute_loss", killed)
        err = train(code=code).stderr
    name = signal.Signals(number).name
    assert f"stopped by {name} after step 2, which is saved; --resume continues from there" in err
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert not list(train.output.glob(".*"))
    assert "resuming from checkpoint-2" in train("--resume").stderr
    assert same(load_file(train.output / "model.safetensors"), expected)


def test_spec_04_resume_without_a_whole_checkpoint_exits_with_4(train: Train) -> None:
    train(*SAVE)
    (train.output / "config.json").unlink()
    for step in (2, 4):
        path = train.output / f"checkpoint-{step}" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = (train.output / "metrics.jsonl").read_bytes()
    assert train(*SAVE, "--resume", code=4).stderr.splitlines() == [
        "gpo train: checkpoint-4 is damaged: 'model.safetensors' is not what was saved; going back to the one before",
        "gpo train: checkpoint-2 is damaged: 'model.safetensors' is not what was saved; going back to the one before",
        f"gpo train: none of the 2 checkpoints in {str(train.output)!r} is whole"]  # fmt: skip
    assert (train.output / "metrics.jsonl").read_bytes() == before


def test_spec_06_a_full_disk_exits_with_1_and_a_resume_goes_on(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *rest: Any) -> int:
        if "checkpoint-4" in str(path):
            raise OSError(28, "No space left on device")
        return os.open(path, *rest)

    expected = train.weights(*SAVE, name="straight")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FILES", checkpoint.Files(open=full))
        err = train(*SAVE, code=1).stderr
    assert "checkpoint-4 could not be saved: [Errno 28] No space left on device; the checkpoints before" in err
    assert checkpoint.verify(train.output / "checkpoint-2").step == 2
    assert not (train.output / "checkpoint-4").exists()
    assert same(train.weights(*SAVE, "--resume"), expected)


def test_spec_08_an_allowed_change_is_made_and_recorded(train: Train) -> None:
    train(*SAVE)
    for path in (train.output / "config.json", *train.output.glob("checkpoint-4/*")):
        path.unlink()
    again, changed = [*SAVE, "--resume"], {"learning_rate": 0.005, "loss": "hinge"}
    line = train.refused(*again, "--allow-change", "loss", **changed)
    assert "learning_rate: 0.001 -> 0.005" in line
    assert "loss:" not in line
    assert "did you mean 'learning_rate'" in train.refused(*again, "--allow-change", "learning_rat", **changed)
    train(*again, "--allow-change", "loss", "--allow-change", "learning_rate", **changed)
    (event,) = objects(train.output.parent, name="events")
    assert (event["step"], event["event"]) == (2, "resumed with changes")
    assert event["changes"] == {"learning_rate": [0.001, 0.005], "loss": ["dpo", "hinge"]}
    assert json.loads((train.output / "run.json").read_text())["learning_rate"] == 5e-3
    assert "was resumed with changes: after step 2, learning_rate: 0.001 -> 0.005; after step 2, loss: dpo -> hinge." in (
        train.output / "README.md").read_text()  # fmt: skip
    shown = commands.gpo("diagnose", train.output, code=0).stdout
    assert "resumed with a change after step 2, loss: dpo -> hinge; the findings assume the last settings" in shown
    new = train.refused("--allow-change", "loss", output=train.output.with_name("new"))
    assert "--allow-change loss is for --resume" in new


@pytest.mark.parametrize(("options", "said"), [
    ({"loss": "trl-ipo"}, "trl-ipo is (x-1/2)^2, x = beta rho, rho averaged over tokens"),
    ({"loss": "ipo-tau", "margin": "mean"}, "ipo-tau is (x-1/2)^2, x = tau rho, rho averaged over tokens"),
])  # fmt: skip
def test_the_convention_of_a_name_is_said_and_trl_ipo_is_averaged(options: dict[str, str], said: str, train: Train) -> None:
    assert train(beta=1, **options).stderr == f"gpo train: convention: {said}\n"
    assert json.loads((train.output / "run.json").read_text())["margin"] == "mean"
    card = (train.output / "README.md").read_text()
    assert "in nats, averaged over tokens" in card
    assert f"Convention: {said}." in card


@pytest.mark.parametrize(("word", "meant"), [("--lr", "--learning-rate"), ("--max_steps", "--steps"), ("--zzzz", None)])
def test_an_option_that_does_not_exist_is_led_to_the_nearest(word: str, meant: str | None) -> None:
    hint = f"; did you mean {meant!r}?" if meant else ""
    assert commands.refused("train", word, "3") == f"gpo train: error: unknown option {word}{hint}\n"


def test_help_is_quick_and_the_command_runs_as_a_program() -> None:
    program = [sys.executable, "-X", "importtime", "-m", "gpo_full.cli", "train", "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "--reference-store" in done.stdout
    assert 'example: gpo train --model MODEL --data pairs.jsonl --loss "max(0,1-x)**2"' in done.stdout
    assert not any(name in done.stderr for name in (" torch\n", " transformers\n", " sympy\n"))
