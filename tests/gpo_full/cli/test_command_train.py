"""`gpo train`: from a folder and a file to a trained folder, and one clear line for whatever cannot be done."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpo_full.cli.entry import main
from tests.support.tiny_models import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"the cat {word}", "chosen": " sat on the mat", "rejected": " ran after the dog"}
        for word in ("and", "in", "on", "the", "list", "of", "values")]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "policy"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def gpo(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["train", *map(str, words)])
    return int(caught.value.code or 0)


def arguments(model: Path, data: Path, output: Path, **changes: Any) -> list[str]:
    options = {"model": model, "data": data, "loss": "dpo", "beta": 0.1, "output": output, "steps": 4,
               "learning_rate": 1e-3, "batch_pairs": 3, "threads": 1, **changes}  # fmt: skip
    return [word for name, value in options.items() if value is not None
            for word in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Exit code 2, nothing on stdout, one line on stderr, which is returned."""
    assert gpo(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_it_trains_saves_and_reports(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = tmp_path / "run"
    assert gpo(*arguments(model, data, output, loss="max(0, a-x)**2", param="a=1", eval_data=data), "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert (result["schema"], result["steps"], result["pairs"]) == (1, 4, 7)
    assert result["first"]["loss"] == pytest.approx(1.0, abs=1e-4)
    assert result["last"]["loss"] < 1.0
    assert result["evaluation"]["eval_accuracy"] == 1.0
    assert len((output / "metrics.jsonl").read_text().splitlines()) == 4
    trained = AutoModelForCausalLM.from_pretrained(output)
    assert AutoTokenizer.from_pretrained(output).eos_token_id == 2
    assert not torch.equal(trained.lm_head.weight, tiny_model().lm_head.weight)
    assert not list(output.glob("*.bin"))
    assert not list(output.glob(".*"))
    assert (tmp_path / "cache" / "references").is_dir()


@pytest.mark.slow
def test_under_a_launcher_two_processes_train_as_one(model: Path, data: Path, tmp_path: Path) -> None:
    """The same command for each: torchrun starts two, of half the pairs each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gpo_full.cli"]
    found = []
    for name, begin, pairs in (("one", [sys.executable, "-m", "gpo_full.cli"], 4), ("two", launcher, 2)):
        words = arguments(model, data, tmp_path / name, batch_pairs=pairs, set="use_cpu=true")
        done = subprocess.run([*begin, "train", *words, "--json"], capture_output=True, text=True, timeout=300,
                              env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        (line,) = done.stdout.splitlines()  # the first process alone speaks
        told = json.loads(line)
        weights = load_file(tmp_path / name / "model.safetensors")
        found.append((told["steps"], told["last"], torch.cat([each.flatten() for each in weights.values()])))
    (steps, last, weights), (other_steps, other_last, other_weights) = found
    assert steps == other_steps == 4
    for measure in ("loss", "margin", "grad_norm"):
        assert other_last[measure] == pytest.approx(last[measure], rel=1e-3)
    # Adam divides by the root of squares, which turns the rounding of a small gradient into a part of a step of 1e-3.
    assert float((weights - other_weights).norm() / weights.norm()) < 1e-4
    event = json.loads((tmp_path / "two" / "events.jsonl").read_text().splitlines()[0])
    assert (event["event"], event["processes"], event["model"]) == ("distributed", 2, "DistributedDataParallel")


def test_the_report_for_people(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = arguments(model, data, tmp_path / "run", steps=None, last_layers=1, set="weight_decay=0.1")
    assert gpo(*options) == 0
    out = capsys.readouterr().out
    assert "3 steps on 7 pairs, loss logistic, beta 0.1" in out  # one epoch by default: ceil(7 / 3)
    assert f"model and metrics.jsonl in {tmp_path / 'run'}" in out


def test_the_folder_of_an_adapter_loads(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(model.parent)
    assert gpo(*arguments(Path("policy"), data, tmp_path / "run", lora_rank=2)) == 0
    monkeypatch.chdir(tmp_path)
    adapted = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert any("lora_" in name for name, _ in adapted.named_parameters())


def test_resume_ends_where_a_straight_run_ends(model: Path, data: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    save = ["--set", "save_steps=2"]
    for name in ("straight", "broken"):
        assert gpo(*arguments(model, data, tmp_path / name), *save) == 0
    broken = tmp_path / "broken"
    for path in [*broken.glob("*.json"), *broken.glob("*.safetensors"), *broken.glob("checkpoint-4/*")]:
        if path.name != "run.json":
            path.unlink()  # as if it had been killed in the save of step 4
    assert gpo(*arguments(model, data, broken), *save, "--resume") == 0
    assert "resuming from checkpoint-2" in capsys.readouterr().err
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("broken", "straight"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert gpo(*arguments(model, data, broken), *save, "--resume") == 0
    assert "is already complete" in capsys.readouterr().err
    again = arguments(model, data, broken, learning_rate=1e-2)
    assert "learning_rate: 0.001 -> 0.01 (--allow-change NAME allows one)" in refused(capsys, *again, *save, "--resume")
    line = refused(capsys, *again, *save, "--resume", "--allow-change", "learning-rate")
    assert "is complete, and no setting of it can change now: learning_rate: 0.001 -> 0.01; to train on" in line


def test_the_folder_of_a_version_with_a_setting_that_is_gone(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert gpo(*arguments(model, data, output)) == 0
    recorded = json.loads((output / "run.json").read_text())
    (output / "run.json").write_text(json.dumps(recorded | {"compile_mlp": True}))
    capsys.readouterr()
    line = refused(capsys, *arguments(model, data, output), "--resume")
    assert "is of another run: compile_mlp: True -> None (--allow-change NAME allows one)" in line
    (output / "run.json").write_text(json.dumps(recorded | {"compile_mlp": False}))
    assert gpo(*arguments(model, data, output), "--resume") == 0
    assert "is already complete" in capsys.readouterr().err


def test_resume_refuses_another_configuration_and_names_each_key(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert gpo(*arguments(model, data, output)) == 0
    (output / "config.json").unlink()
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    capsys.readouterr()
    data.write_text(data.read_text() + "\n" + json.dumps(ROWS[0] | {"prompt": "return"}))
    line = refused(capsys, *arguments(model, data, output, beta=0.2, learning_rate=0.1), "--resume")
    assert "beta: 0.1 -> 0.2; " in line or "; beta: 0.1 -> 0.2" in line
    assert "learning_rate: 0.001 -> 0.1" in line
    assert "data: " in line
    assert "seed" not in line
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_resume_without_a_checkpoint_starts_over_and_says_so(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert gpo(*arguments(model, data, output)) == 0
    shutil.rmtree(output / "checkpoint-4")
    (output / "config.json").unlink()
    assert gpo(*arguments(model, data, output), "--resume") == 0
    assert "resuming from the start: no checkpoint was saved" in capsys.readouterr().err
    assert len((output / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(("changes", "reason"), [
    ({"beta": 0}, "beta=0.0 must be a finite number above 0"),
    ({"beta": -1}, "beta=-1.0"),
    ({"beta": "much"}, "--beta"),
    ({"loss": "logstic"}, "did you mean 'logistic'"),
    ({"loss": "log(1+exp(-x)"}, "log(1+exp(-x)"),
    ({"loss": "log(x)"}, "log(x)"),
    ({"data": "absent.jsonl"}, "--data 'absent.jsonl' is not a file"),
    ({"eval_data": "absent.jsonl"}, "--eval-data 'absent.jsonl' is not a file"),
    ({"model": "./absent"}, "--model './absent' is not a folder"),
    ({"model": "nobody/nothing"}, "'nobody/nothing' is neither a folder nor in the hub's cache"),
    ({"model": "no body"}, "'no body' is no folder, and the hub says"),
    ({"param": "a"}, "--param 'a' is not of the form NAME=VALUE"),
    ({"param": "a=1"}, "'a'"),
    ({"set": "weight_decai=1"}, "did you mean 'weight_decay'"),
    ({"set": "weight_decay=heavy"}, "is not a value of type float"),
    ({"set": "compile_mlp=true"}, "GPOConfig has no field 'compile_mlp'"),
    ({"set": "beta=2"}, "beta has an option of its own"),
    ({"set": "use_liger_kernel=true"}, "use_liger_kernel=True is refused"),
    ({"threads": 0}, "--threads 0"),
    ({"steps": 0}, "--steps 0 must be at least 1"),
    ({"steps": -1}, "--steps -1 must be at least 1"),
    ({"steps": None, "epochs": 0}, "num_train_epochs=0.0 must be a finite number above 0"),
    ({"batch_pairs": 0}, "per_device_train_batch_size=0 must be a whole number of at least 1"),
    ({"learning_rate": -1}, "learning_rate=-1.0 must be a finite number of at least 0"),
    ({"learning_rate": "nan"}, "learning_rate=nan must be a finite number of at least 0"),
    ({"seed": -1}, "seed=-1 must be a whole number of at least 0 and at most 4294967295"),
    ({"set": "gradient_accumulation_steps=0"}, "gradient_accumulation_steps=0 must be a whole number of at least 1"),
    ({"set": "max_steps=-3"}, "max_steps"),
    ({"epochs": 1}, "not allowed with argument --steps"),
])  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    changes: dict[str, Any], reason: str, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"model": model, "data": data, **changes}
    assert reason in refused(capsys, *arguments(options.pop("model"), options.pop("data"), tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_a_parameter_given_twice_is_refused(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(model, data, tmp_path / "run", loss="exp(-a*x)", param="a=1")
    assert "--param a is given twice" in refused(capsys, *words, "--param", "a = 2")


def test_an_output_that_cannot_be_made_is_one_line(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = data.read_bytes()
    line = refused(capsys, *arguments(model, data, data / "run"))
    assert f"cannot be made: {str(data)!r} is no folder that can be written" in line
    assert data.read_bytes() == before


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    """As `gpo losses | head -1`; the output is larger than what a pipe holds."""
    command = f"{shlex.quote(sys.executable)} -m gpo_full.cli losses | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] in ("0", "141")


def test_a_hub_without_a_network_is_asked_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def unreachable(self: Any, name: str, **rest: Any) -> None:
        asked.append(name)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    line = refused(capsys, *arguments(Path("nobody/nothing"), data, tmp_path / "run"))
    assert "'nobody/nothing' is no folder, and the hub says: Name or service not known" in line
    assert asked == ["nobody/nothing"]


def test_a_bad_row_is_named(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.write_text(data.read_text() + "\n" + json.dumps(ROWS[0] | {"chosen": ""}) + "\n")
    line = refused(capsys, *arguments(model, data, tmp_path / "run"))
    assert f"{data}: row 8: 'chosen' is empty" in line
    assert not (tmp_path / "run").exists()
    assert gpo(*arguments(model, data, tmp_path / "run", set="bad_rows=skip")) == 0
    assert "7 of 8 pairs, 1 skipped ('chosen' is empty)" in capsys.readouterr().err


def test_an_output_that_is_not_empty_is_refused_and_left_alone(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("precious")
    assert "is not an empty folder" in refused(capsys, *arguments(model, data, tmp_path / "run"))
    assert "holds no run to resume" in refused(capsys, *arguments(model, data, tmp_path / "run"), "--resume")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_a_folder_that_is_no_model(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nothing").mkdir()
    assert "nothing" in refused(capsys, *arguments(tmp_path / "nothing", data, tmp_path / "run"))
    tiny_tokenizer().save_pretrained(tmp_path / "nothing")
    assert "cannot be loaded" in refused(capsys, *arguments(tmp_path / "nothing", data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def broken_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpo_full.training.trainer import GPOTrainer

    refer = GPOTrainer._refer

    def broken(self: GPOTrainer, *rest: Any) -> None:
        refer(self, *rest)
        self.train_dataset.reference[:, 0] = torch.nan

    monkeypatch.setattr(GPOTrainer, "_refer", broken)


@pytest.mark.usefixtures("broken_reference")
def test_spec_11_a_run_that_diverges_exits_with_5(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpo(*arguments(model, data, tmp_path / "run")) == 5
    err = capsys.readouterr().err
    assert "stopped after step 3: not finite: loss, margin" in err
    assert "the third step in a row; the batch is in" in err
    assert json.loads((tmp_path / "run" / "non_finite_batch.json").read_text())["step"] == 3
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


@pytest.mark.usefixtures("broken_reference")
def test_spec_11_a_run_that_ends_before_any_step_is_applied_exits_with_5(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpo(*arguments(model, data, tmp_path / "run"), "--steps", "2") == 5
    assert "stopped after step 2: no step was applied" in capsys.readouterr().err
    assert len((tmp_path / "run" / "events.jsonl").read_text().splitlines()) == 2
    assert not (tmp_path / "run" / "model.safetensors").exists()


def straight_weights(model: Path, data: Path, tmp_path: Path, *rest: str) -> dict[str, torch.Tensor]:
    assert gpo(*arguments(model, data, tmp_path / "straight"), *rest) == 0
    return load_file(tmp_path / "straight" / "model.safetensors")


def in_batch(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Do something within a batch, counted from 1."""
    from gpo_full.training.trainer import GPOTrainer

    compute, count = GPOTrainer.compute_loss, 0

    def acting(self: GPOTrainer, *rest: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            action()
        return compute(self, *rest, **named)

    monkeypatch.setattr(GPOTrainer, "compute_loss", acting)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_spec_16_a_signal_exits_with_its_code_and_resume_goes_on(
    number: int, code: int, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = straight_weights(model, data, tmp_path)
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        in_batch(patch, 2, lambda: os.kill(os.getpid(), number))
        assert gpo(*arguments(model, data, output)) == code
    name = signal.Signals(number).name
    assert f"stopped by {name} after step 2, which is saved; --resume continues from there" in capsys.readouterr().err
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert not list(output.glob(".*"))
    assert gpo(*arguments(model, data, output), "--resume") == 0
    assert "resuming from checkpoint-2" in capsys.readouterr().err
    found = load_file(output / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_spec_04_resume_without_a_whole_checkpoint_exits_with_4(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert gpo(*arguments(model, data, output), "--set", "save_steps=2") == 0
    (output / "config.json").unlink()
    for step in (2, 4):
        path = output / f"checkpoint-{step}" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = (output / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert gpo(*arguments(model, data, output), "--set", "save_steps=2", "--resume") == 4
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "gpo train: checkpoint-4 is damaged: 'model.safetensors' is not what was saved; going back to the one before",
        "gpo train: checkpoint-2 is damaged: 'model.safetensors' is not what was saved; going back to the one before",
        f"gpo train: none of the 2 checkpoints in {str(output)!r} is whole"]  # fmt: skip
    assert (output / "metrics.jsonl").read_bytes() == before


def test_spec_06_a_full_disk_exits_with_1_and_the_checkpoint_before_is_resumed(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpo_full.checkpoints import atomic as checkpoint

    def full(path: Path, *rest: Any) -> int:
        if "checkpoint-4" in str(path):
            raise OSError(28, "No space left on device")
        return os.open(path, *rest)

    save = ["--set", "save_steps=2"]
    expected = straight_weights(model, data, tmp_path, *save)
    output = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FILES", checkpoint.Files(open=full))
        assert gpo(*arguments(model, data, output), *save) == 1
    err = capsys.readouterr().err
    assert "checkpoint-4 could not be saved: [Errno 28] No space left on device; the checkpoints before" in err
    assert checkpoint.verify(output / "checkpoint-2").step == 2
    assert not (output / "checkpoint-4").exists()
    assert gpo(*arguments(model, data, output), *save, "--resume") == 0
    found = load_file(output / "model.safetensors")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_spec_07_the_second_command_on_a_folder_is_refused(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpo_full.checkpoints.atomic import sole_writer

    output = tmp_path / "run"
    assert gpo(*arguments(model, data, output)) == 0
    (output / "config.json").unlink()
    capsys.readouterr()
    before = (output / "run.json").read_bytes()
    with sole_writer(output):
        assert "another run is writing into" in refused(capsys, *arguments(model, data, output), "--resume")
    assert (output / "run.json").read_bytes() == before


def test_spec_08_an_allowed_change_is_made_and_recorded(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, save = tmp_path / "run", ["--set", "save_steps=2"]
    assert gpo(*arguments(model, data, output), *save) == 0
    for path in (output / "config.json", *output.glob("checkpoint-4/*")):
        path.unlink()
    changed = [*arguments(model, data, output, learning_rate=5e-3, loss="hinge"), *save, "--resume"]
    capsys.readouterr()
    line = refused(capsys, *changed, "--allow-change", "loss")
    assert "learning_rate: 0.001 -> 0.005" in line
    assert "loss:" not in line
    assert "did you mean 'learning_rate'" in refused(capsys, *changed, "--allow-change", "learning_rat")
    assert gpo(*changed, "--allow-change", "loss", "--allow-change", "learning_rate") == 0
    (event,) = [json.loads(text) for text in (output / "events.jsonl").read_text().splitlines()]
    assert event == {"step": 2, "event": "resumed with changes",
                     "changes": {"learning_rate": [0.001, 0.005], "loss": ["dpo", "hinge"]}}  # fmt: skip
    assert json.loads((output / "run.json").read_text())["learning_rate"] == 5e-3
    assert "was resumed with changes: after step 2, learning_rate: 0.001 -> 0.005; after step 2, loss: dpo -> hinge." in (
        output / "README.md").read_text()  # fmt: skip
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["diagnose", str(output)])
    assert ended.value.code == 0
    assert "resumed with a change after step 2, loss: dpo -> hinge; the findings assume the last settings" in capsys.readouterr().out
    capsys.readouterr()
    new = [*arguments(model, data, tmp_path / "new"), "--allow-change", "loss"]
    assert "--allow-change loss is for --resume" in refused(capsys, *new)


def test_more_steps_may_be_allowed_by_the_name_of_the_option(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"  # beyond 1,000 steps metrics are logged at every tenth, which is no change of its own
    assert gpo(*arguments(model, data, output)) == 0
    (output / "config.json").unlink()
    longer = [*arguments(model, data, output, steps=2000), "--resume"]
    capsys.readouterr()
    line = refused(capsys, *longer)
    assert "max_steps: 4 -> 2000 (--allow-change NAME allows one)" in line
    assert "logging_steps" not in line
    stops = ["--set", "save_steps=6"]
    assert "save_steps" in refused(capsys, *longer, *stops, "--allow-change", "steps")
    shorter = [*arguments(model, data, output, steps=6), "--resume", "--allow-change", "steps"]
    assert gpo(*shorter) == 0
    assert "6 steps on 7 pairs" in capsys.readouterr().out


def test_the_convention_of_a_name_is_said_and_trl_ipo_is_averaged(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpo(*arguments(model, data, tmp_path / "run", loss="trl-ipo", beta=1)) == 0
    said = "gpo train: convention: trl-ipo is (x-1/2)^2, x = beta rho, rho averaged over tokens\n"
    assert capsys.readouterr().err == said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["margin"] == "mean"
    assert "in nats, averaged over tokens" in (tmp_path / "run" / "README.md").read_text()


def test_the_convention_is_that_of_the_margin_the_run_has(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpo(*arguments(model, data, tmp_path / "run", loss="ipo-tau", margin="mean", beta=1)) == 0
    said = "ipo-tau is (x-1/2)^2, x = tau rho, rho averaged over tokens"
    assert capsys.readouterr().err == f"gpo train: convention: {said}\n"
    assert f"Convention: {said}." in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(("option", "meant"), [("--lr", "--learning-rate"), ("--max_steps", "--steps"),
                                               ("--zzzzz", None)])  # fmt: skip
def test_an_option_that_does_not_exist_is_led_to_the_nearest(
    option: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    hint = f"; did you mean {meant!r}?" if meant else ""
    assert refused(capsys, option, "3") == f"gpo train: error: unknown option {option}{hint}\n"


def test_help_is_quick_and_the_command_runs_as_a_program() -> None:
    program = [sys.executable, "-X", "importtime", "-m", "gpo_full.cli", "train", "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert "--reference-store" in done.stdout
    assert 'example: gpo train --model MODEL --data pairs.jsonl --loss "max(0,1-x)**2"' in done.stdout
    assert not any(name in done.stderr for name in (" torch\n", " transformers\n", " sympy\n"))
