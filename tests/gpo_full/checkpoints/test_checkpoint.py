"""Checkpoints: killed at every operation, full disks, flipped bits, hostile folders; RELIABILITY's specifications by number.

Trainings that die run in `crashing.py`, whose results the tests read; the rest needs plain tensors and no Trainer.
"""

import json
import os
import pickle
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.checkpoints.atomic import CheckpointNotSaved, DamagedCheckpoint, FolderInUse, NoGoodCheckpoint
from gpo_full.checkpoints.state import decode, encode, random_state, set_random_state
from gpo_theory import InputError
from tests.support.commands import results_of
from tests.support.crashing import CORRUPTIONS, CRASHED, RANDOM_KILLS, STEPS, die, disk_full, dying, forked

Crashed = tuple[Path, dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    """The folder in which trainings were run and killed, what came of them, and what one ended with that was not."""
    folder = tmp_path_factory.mktemp("crashed")
    return folder, results_of("crashing", folder), json.loads((folder / "straight.json").read_text())


def check_resumed(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The run ended with the same weights, moments, generators and trace, and nothing half done was left."""
    assert found["code"] == 0, found["name"]
    assert found["end"] == expected["end"], found["name"]
    assert found["left"] == expected["left"] == [f"checkpoint-{STEPS}", "metrics.jsonl", "run.json"], found["name"]


# Of trainings.


def test_spec_01_killed_at_every_operation_it_resumes_bitwise(crashed: Crashed) -> None:
    _, results, straight = crashed
    made = [found["name"] for found in results["crashes"]]
    for step in CRASHED:  # without a gap, from the first operation to the last
        points = [name for name in made if name.startswith(f"crash-{step}-")]
        assert points == [f"crash-{step}-{at}" for at in range(1, len(points) + 1)]
        assert len(points) >= 25
    for found in results["crashes"]:
        assert found["died"] == -signal.SIGKILL
        check_resumed(found, straight)
        # A kill costs the step that was being saved, and no more.
        step = int(found["name"].split("-")[1])
        assert len(found["rows"]) in (2 * (STEPS - step), 2 * (STEPS - step + 1))


def test_spec_02_random_kills_resume_bitwise(crashed: Crashed) -> None:
    _, results, straight = crashed
    assert len(results["random"]) == RANDOM_KILLS
    for found in results["random"]:
        assert found["died"] == -signal.SIGKILL
        check_resumed(found, straight)


def test_spec_04_a_damaged_run_resumes_bitwise_or_is_refused(crashed: Crashed) -> None:
    """Both checkpoints damaged: refused, and nothing is lost; one: the other is used, to the same end bit by bit."""
    folder, results, straight = crashed
    assert len(results["corruptions"]) == CORRUPTIONS
    for found in results["corruptions"]:
        if len(found["damage"]) == 2:
            assert found["code"] == 4, found
            assert len(list((folder / found["name"]).glob("checkpoint-*"))) == 2
        else:
            assert found["code"] == 0, found
            assert found["end"] == straight["end"], found["damage"]


def test_spec_03_killed_before_the_first_save_it_starts_over(crashed: Crashed) -> None:
    _, results, straight = crashed
    first = [found for found in results["crashes"] if found["name"].startswith("crash-1-")]
    over = [found for found in first if len(found["rows"]) == 2 * STEPS]
    assert len(over) >= 20  # all before the rename
    assert all(found["rows"] == straight["rows"] for found in over)


def test_spec_10_killed_mid_epoch_and_mid_accumulation_the_rows_are_the_same(crashed: Crashed) -> None:
    _, results, expected = crashed
    epoch = [rows for rows in expected["rows"] if rows[0] <= 3]
    assert sorted(row for rows in epoch for row in rows[1:]) == list(range(11))  # an epoch sees every row once
    for found, step in zip(results["mid_step"], (2, 3, 4), strict=True):
        assert found["died"] == -signal.SIGKILL
        assert found["before"] == [checkpoint.LOCK, f"checkpoint-{step - 1}", "metrics.jsonl", "run.json"]
        assert found["rows"] == [rows for rows in expected["rows"] if rows[0] >= step]
        check_resumed(found, expected)


@pytest.mark.parametrize(("name", "code", "step"), [
    ("terminated", 143, 3), ("interrupted", 130, 3), ("last", 143, 4),  # 16: the step is finished and saved,
    ("twice", 130, 2),  # and a second SIGINT ends it while step 3 is being saved
    ("full", 1, 2),  # 6: a limit on a file's size stops safetensors' own writes, as a full disk would
])  # fmt: skip
def test_specs_06_and_16_what_ends_a_run_leaves_it_whole(name: str, code: int, step: int, crashed: Crashed) -> None:
    folder, results, straight = crashed
    found = results[name]
    assert found["died"] == code
    assert found["before"] == [f"checkpoint-{step}", "metrics.jsonl", "run.json"]
    assert checkpoint.verify(folder / f"{name}-before" / f"checkpoint-{step}").step == step
    assert found["rows"] == [rows for rows in straight["rows"] if rows[0] > step]
    check_resumed(found, straight)


def test_spec_20_the_same_seed_twice_is_bitwise_the_same(crashed: Crashed) -> None:
    folder, results, straight = crashed
    assert (results["straight"], results["again"]) == (0, 0)
    assert straight == json.loads((folder / "again.json").read_text())
    once, twice = (folder / name / f"checkpoint-{STEPS}" for name in ("straight", "again"))
    for path in (*once.glob("*.safetensors"), once / "resume.json", once / "config.json"):
        assert path.read_bytes() == (twice / path.name).read_bytes()


def test_a_checkpoint_is_an_ordinary_folder(crashed: Crashed) -> None:
    from transformers import AutoModelForCausalLM

    folder = crashed[0] / "straight" / f"checkpoint-{STEPS}"
    saved = checkpoint.verify(folder).tensors("model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert saved.keys() <= loaded.keys()
    assert all(torch.equal(loaded[name], value) for name, value in saved.items())
    assert not [path for path in folder.iterdir() if path.suffix not in (".json", ".safetensors")]


# Of plain tensors.


def parts(step: int) -> dict[str, Any]:
    return {"model.safetensors": {"w": torch.arange(7.0) + step}, "state.json": {"step": step, "rate": 0.1},
            "empty.safetensors": {}}  # fmt: skip


def fill(folder: Path) -> None:
    (folder / "vocabulary").mkdir()
    (folder / "vocabulary" / "merges.txt").write_text("a b\n")


def saved(folder: Path, *steps: int, keep: int | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for step in steps:
        checkpoint.save(folder, step, parts(step), fill=fill, keep=keep)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_step(folder: Path, *steps: int) -> int:
    """The newest whole checkpoint is of one of `steps`, and holds what was saved."""
    found = checkpoint.load(folder)
    assert found is not None
    assert found.step in steps
    assert torch.equal(found.tensors("model.safetensors")["w"], parts(found.step)["model.safetensors"]["w"])
    assert found.json("state.json") == parts(found.step)["state.json"]
    assert (found.path / "vocabulary" / "merges.txt").read_text() == "a b\n"
    return found.step


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_spec_01_a_save_killed_at_every_operation_is_there_or_not(tmp_path: Path) -> None:
    """The save replaces a damaged checkpoint of its own step and removes an old one: all there is to do."""
    ready = saved(tmp_path / "ready", 1, 2, 3)
    (ready / "checkpoint-3" / "state.json").write_text("{}")

    def killed(folder: Path, at: int) -> None:
        with checkpoint.sole_writer(folder):
            checkpoint.FILES = dying(at, die)
            saved(folder, 3, keep=2)

    found = []
    for at in range(1, 100):
        folder = tmp_path / str(at)
        shutil.copytree(ready, folder)
        if forked(lambda at=at, folder=folder: killed(folder, at)) == 0:
            break
        found.append(check_step(folder, 2, 3))
        with checkpoint.sole_writer(folder):
            assert {*names(folder)} <= {".writer.lock", "checkpoint-1", "checkpoint-2", "checkpoint-3"}
        check_step(saved(folder, 3, keep=2), 3)
        assert names(folder) == ["checkpoint-2", "checkpoint-3"]
    assert len(found) >= 35
    assert found == sorted(found)  # once it is there it stays
    assert {*found} == {2, 3}


@pytest.mark.parametrize("reason", ["No space left on device", "Read-only file system"])
def test_spec_06_a_disk_that_refuses_at_any_operation_leaves_the_one_before(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(reason)

    saved(tmp_path, 1)
    for at in range(1, 100):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "FILES", dying(at, refuse))
            try:
                checkpoint.save(tmp_path, 2, parts(2), fill=fill)
                break
            except CheckpointNotSaved as error:
                said = str(error)
        assert reason in said
        check_step(tmp_path, 1, 2)
        assert not list(tmp_path.glob(".*"))
        assert checkpoint.verify(tmp_path / "checkpoint-1").step == 1
        shutil.rmtree(tmp_path / "checkpoint-2", ignore_errors=True)
    assert at > 20
    check_step(tmp_path, 2)


def test_spec_06_a_checkpoint_of_the_same_step_survives_a_save_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    renames = iter([os.rename, lambda *_: disk_full(), os.rename])
    monkeypatch.setattr(checkpoint, "FILES", checkpoint.Files(rename=lambda *paths: next(renames)(*paths)))
    with pytest.raises(CheckpointNotSaved, match="checkpoint-1 could not be saved"):
        saved(tmp_path, 1)
    check_step(tmp_path, 1)


def test_spec_04_one_flipped_bit_in_any_file_is_named_and_the_previous_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 1, 2)
    for path in [path for path in (tmp_path / "checkpoint-2").rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            caplog.clear()
            assert check_step(tmp_path, 1) == 1
            assert "checkpoint-2 is damaged" in caplog.text
            assert path.name in caplog.text
        path.write_bytes(whole)
    assert check_step(tmp_path, 2) == 2


def test_spec_04_none_good_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "absent") is None
    (tmp_path / ".checkpoint-7-half").mkdir()
    assert checkpoint.load(tmp_path) is None
    for step in (1, 2):
        saved(tmp_path, step)
        (tmp_path / f"checkpoint-{step}" / "state.json").write_text("{}")
    with pytest.raises(NoGoodCheckpoint, match="none of the 2 checkpoints"):
        checkpoint.load(tmp_path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink, "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-3]),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_spec_05_a_lost_cut_or_empty_file_is_named(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = ["model.safetensors", "empty.safetensors", "state.json", "vocabulary/merges.txt", "manifest.json"]
    for step, name in enumerate(held, start=2):
        folder = saved(tmp_path / str(step), 1, step)
        DAMAGE[how](folder / f"checkpoint-{step}" / name)
        caplog.clear()
        check_step(folder, 1)
        assert name in caplog.text


def test_spec_05_an_extra_file_and_another_step_s_manifest_are_named(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    (tmp_path / "checkpoint-2" / "more.json").write_text("{}")
    (tmp_path / "checkpoint-3").rename(tmp_path / "checkpoint-4")
    with pytest.raises(DamagedCheckpoint, match=r"'more\.json' is not in the manifest"):
        checkpoint.verify(tmp_path / "checkpoint-2")
    with pytest.raises(DamagedCheckpoint, match=r"manifest.json is that of step 3"):
        checkpoint.verify(tmp_path / "checkpoint-4")
    assert check_step(tmp_path, 1) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_spec_07_the_second_writer_is_refused_and_a_dead_one_s_lock_taken_over(tmp_path: Path) -> None:
    def second() -> None:
        try:
            with checkpoint.sole_writer(tmp_path):
                pass
        except FolderInUse:
            sys.exit(7)

    def dies_writing() -> None:
        with checkpoint.sole_writer(tmp_path):
            (tmp_path / ".checkpoint-9-half").mkdir()
            (tmp_path / ".checkpoint-9-half" / "model.safetensors").write_text("half")
            die()

    with checkpoint.sole_writer(tmp_path):
        assert forked(second) == 7
        with pytest.raises(FolderInUse, match="another run is writing into"), checkpoint.sole_writer(tmp_path):
            pass
        assert (tmp_path / ".writer.lock").exists()  # the refused ones have not taken it away
    assert forked(second) == 0
    assert forked(dies_writing) == -signal.SIGKILL
    assert names(tmp_path) == [".checkpoint-9-half", ".writer.lock"]
    with checkpoint.sole_writer(tmp_path):
        assert names(tmp_path) == [".writer.lock"]
    assert not list(tmp_path.iterdir())


class Bomb:
    """What a pickle can do to those who open it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def sealed(folder: Path, held: dict[str, bytes], **changes: Any) -> Path:
    """A checkpoint by hand, whose manifest and checksums are right: what an attacker would send."""
    folder.mkdir(parents=True)
    listed = {name: {"sha256": sha256(data).hexdigest(), "size": len(data)} for name, data in held.items()}
    for name, data in held.items():
        if ".." not in name and not name.startswith("/"):
            (folder / name).write_bytes(data)
    body = {"schema": 1, "step": 1, "files": listed} | changes
    body["sha256"] = sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(body, sort_keys=True))
    return folder


HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
TWICE = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
PAST = b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'


def tensors(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + bytes(4)


def test_the_hostile_folders_are_refused_for_what_is_hostile_in_them(tmp_path: Path) -> None:
    whole = {"model.safetensors": tensors(HEADER), "state.json": b"{}"}
    assert checkpoint.verify(sealed(tmp_path / "checkpoint-1", whole)).step == 1


@pytest.mark.parametrize(("name", "data", "reason"), [
    ("model.safetensors", tensors(HEADER, 2**62), "claims a header of 4611686018427387904 bytes"),
    ("model.safetensors", tensors(TWICE), "appears twice"),
    ("model.safetensors", tensors(PAST), "not fully covered"),
    ("model.safetensors", b"", "claims a header of 0 bytes"),
    ("state.json", b'{"a": 1, "a": 2}', "appears twice"),
    ("state.json", b"[" * 100_000, "cannot be read"),
    ("state.json", b"\xff\xfe", "cannot be read"),
    ("../x.json", b"{}", "not a file inside the checkpoint"),
    ("/x.json", b"{}", "not a file inside the checkpoint"),
    ("a/../../x.json", b"{}", "not a file inside the checkpoint"),
    ("..\\x.json", b"{}", "not a file inside the checkpoint"),
])  # fmt: skip
def test_spec_19_a_hostile_file_is_refused(name: str, data: bytes, reason: str, tmp_path: Path) -> None:
    folder = sealed(tmp_path / "inside" / "checkpoint-1", {name: data})
    with pytest.raises(DamagedCheckpoint, match=re.escape(reason)):
        checkpoint.verify(folder)
    assert names(tmp_path) == ["inside"]
    assert names(tmp_path / "inside") == ["checkpoint-1"]


@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "rng_state.pth", "x.pkl", "model.safetensors",
                                  "state.json", "x"])  # fmt: skip
def test_spec_19_a_pickle_under_any_name_is_refused_and_not_run(name: str, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "ran"))
    with pytest.raises(DamagedCheckpoint, match=name):
        checkpoint.verify(sealed(tmp_path / "checkpoint-1", {name: bomb}))
    assert not (tmp_path / "ran").exists()
    pickle.loads(bomb)  # noqa: S301
    assert (tmp_path / "ran").exists()


def test_spec_19_links_are_refused(tmp_path: Path) -> None:
    data = b'{"secret": 1}'
    (tmp_path / "secret.json").write_bytes(data)
    folder = sealed(tmp_path / "a" / "checkpoint-1", {"state.json": data})
    (folder / "state.json").unlink()
    (folder / "state.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(DamagedCheckpoint, match=r"'state.json' is a link or device"):
        checkpoint.verify(folder)
    inner = sealed(tmp_path / "b" / "checkpoint-1", {"state.json": data})
    (inner / "more").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DamagedCheckpoint, match="'more' is a link or device"):
        checkpoint.verify(inner)
    whole = sealed(tmp_path / "elsewhere", {"state.json": data})
    (tmp_path / "checkpoint-1").symlink_to(whole, target_is_directory=True)
    with pytest.raises(DamagedCheckpoint, match="it is not a folder"):
        checkpoint.verify(tmp_path / "checkpoint-1")
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")  # opening it would wait for ever
    with pytest.raises(DamagedCheckpoint, match=r"'state.json' is a link or device"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("changes", [
    {"schema": 2}, {"step": "1"}, {"files": []}, {"files": {"state.json": 1}}, {"step": 10**400},
    {"files": {"state.json": {"sha256": "", "size": 2, "more": 1}}},
])  # fmt: skip
def test_spec_19_a_manifest_of_another_form_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match=r"manifest\.json"):
        checkpoint.verify(sealed(tmp_path / "checkpoint-1", {"state.json": b"{}"}, **changes))


def test_spec_19_what_would_be_refused_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'x.pt' is not a kind of file"):
        checkpoint.save(tmp_path, 1, {}, fill=lambda folder: (folder / "x.pt").write_bytes(b"1") and None)
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(tmp_path, 1, {"state.json": float("nan")})
    assert not list(tmp_path.iterdir())


def test_rotation_keeps_the_newest_the_protected_and_those_ahead(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4, 10)
    checkpoint.save(tmp_path, 5, parts(5), keep=2, protected=["checkpoint-1"])
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-10", "checkpoint-4", "checkpoint-5"]


def test_what_a_checkpoint_was_saved_without_is_said(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    with pytest.raises(InputError, match=r"checkpoint-1 was saved without resume.json"):
        checkpoint.verify(tmp_path / "checkpoint-1").json("resume.json")


def test_training_state_comes_back_as_it_was() -> None:
    held: dict[str, torch.Tensor] = {}
    state = {"state": {0: {"step": torch.tensor(3.0), "m": torch.arange(6.0).view(2, 3).T}},
             "groups": [{"betas": (0.9, 0.999), "lr": 1e-3, "params": [0, 1], "fused": None, "amsgrad": False}]}  # fmt: skip
    text = json.dumps(encode(state, held), allow_nan=False)
    back = decode(json.loads(text), held)
    assert back["groups"] == state["groups"]
    assert isinstance(back["groups"][0]["betas"], tuple)
    assert torch.equal(back["state"][0]["m"], state["state"][0]["m"])
    with pytest.raises(InputError, match="a checkpoint cannot hold a set"):
        encode({"a": {1}}, {})


def test_every_generator_comes_back_with_its_spare_normal() -> None:
    def draws() -> list[float]:
        return [random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(())), random.random(),
                float(np.random.standard_normal())]  # fmt: skip

    before = random_state()
    for spares in (draws, lambda: [random.gauss(0, 1), np.random.standard_normal()]):
        spares()
        state = random_state()
        expected = draws()
        draws()
        set_random_state(state)
        assert draws() == expected
        rows = {name: torch.stack([torch.zeros_like(value), value]) for name, value in state.items()}
        set_random_state({name: value[1] for name, value in rows.items()})  # as a second rank reads its own
        assert draws() == expected
    set_random_state(before)
