"""Preparation: verified on reuse, whole or absent, split by package."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpo_full.experiment.inputs import preparation as module
from gpo_full.experiment.inputs.preparation import prepare
from gpo_full.prepared import ensured
from gpo_theory.errors import InputError

FORTY = " ".join(f"word{i}" for i in range(40))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the two downloads by small files, and record each writing."""
    calls: list[str] = []

    def writer(name: str) -> object:
        def write(folder: Path) -> str:
            calls.append(name)
            (folder / "weights").write_text(name)
            return f"{name}==1"

        return write

    monkeypatch.setattr(module, "write_policy", writer("policy"))
    monkeypatch.setattr(module, "write_reward", writer("reward"))
    return calls


def plant(monkeypatch: pytest.MonkeyPatch, root: Path, texts: dict[tuple[str, str], list[str]]) -> None:
    """Make `_places` yield planted packages: (distribution, package) -> summaries."""
    for (_, package), targets in texts.items():
        folder = root / "site" / package
        folder.mkdir(parents=True)
        functions = [f'def f{i}():\n    """{t}\n\n    {FORTY} {t} {i}\n    """\n' for i, t in enumerate(targets)]
        (folder / "m.py").write_text("".join(functions))

    def places() -> Iterator[tuple[str, str, str, Path]]:
        for distribution, package in texts:
            yield distribution, package, "MIT", root / "site" / package

    monkeypatch.setattr(module, "_places", places)


def test_a_part_is_made_once_and_then_verified(tmp_path: Path, made: list[str]) -> None:
    prepared = prepare(("policy", "reward"), tmp_path)
    assert (prepared["policy"] / "weights").read_text() == "policy"
    prepare(("policy", "reward"), tmp_path)
    assert made == ["policy", "reward"]


@pytest.mark.parametrize("damage", ["change", "delete", "manifest"])
def test_a_damaged_part_is_named_and_made_again(tmp_path: Path, made: list[str], damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepare(("policy",), tmp_path)["policy"]
    if damage == "delete":
        (folder / "weights").unlink()
    else:
        (folder / ("weights" if damage == "change" else "manifest.json")).write_text("{")
    prepare(("policy",), tmp_path)
    assert made == ["policy", "policy"]
    assert (folder / "weights").read_text() == "policy"
    assert "changed since it was prepared" in capsys.readouterr().err


def test_a_failed_preparation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> str:
        (folder / "half").write_text("half")
        raise InputError("no network")

    monkeypatch.setattr(module, "write_policy", fail)
    with pytest.raises(InputError, match="no network"):
        prepare(("policy",), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_are_split_by_package_and_duplicates_leave_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, tmp_path, {("scipy", "scipy"): ["Solve a small system.", "Solve it again now."],
                                  ("numpy", "numpy"): ["Add two arrays quickly."],
                                  ("torch", "torch"): ["Solve a small system.", "Train one small network."],
                                  })  # fmt: skip
    folder = prepare(("data",), tmp_path / "cache")["data"]
    targets = {split: [json.loads(line)["target"] for line in (folder / f"{split}.jsonl").read_text().splitlines()]
               for split in ("train", "pilot", "test")}  # fmt: skip
    assert targets == {"test": ["Solve a small system.", "Solve it again now."], "pilot": ["Add two arrays quickly."],
                       "train": ["Train one small network."]}  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"]["examples"] == {"train": 1, "pilot": 1, "test": 2}
    assert manifest["source"]["packages"]["torch"] == {"licence": "MIT", "split": "train", "examples": 1}
    assert set(manifest["made_from"]["packages"]) >= {"python", "torch", "scipy"}


def test_data_of_another_version_stay_beside_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two environments with one cache have them."""
    plant(monkeypatch, tmp_path, {("torch", "torch"): ["Train one small network."]})
    first = prepare(("data",), tmp_path / "cache")["data"]
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(module, "versions_of", lambda packages: dict.fromkeys(packages, "0.0"))
        plant(patch, tmp_path / "other", {("torch", "torch"): ["Train another large network."]})
        second = prepare(("data",), tmp_path / "cache")["data"]
    assert first != second
    assert (second / "train.jsonl").read_bytes() != before["train.jsonl"]
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert prepare(("data",), tmp_path / "cache")["data"] == first


@pytest.mark.parametrize("damaged", [False, True])
def test_of_two_at_a_time_the_first_one_s_folder_stays(damaged: bool, tmp_path: Path) -> None:
    """Another process finishes while this one writes; the folder may have been damaged when both began."""
    folder = tmp_path / "part"
    if damaged:
        folder.mkdir()
        (folder / "manifest.json").write_text("{")

    def write(text: str) -> Callable[[Path], str]:
        return lambda place: (place / "file").write_text(text) and text

    def late(place: Path) -> str:
        ensured(folder, write("first"))
        return write("second")(place)

    assert ensured(folder, late) == folder
    assert (folder / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_places_are_permissive_packages_with_held_out_ones_first() -> None:
    places = list(module._places())
    packages = [distribution for distribution, *_ in places]
    assert packages.index("scipy") < packages.index("torch") < packages.index("python")
    assert all(path.exists() for *_, path in places)
    assert not {"GPL", "LGPL"} & {licence for _, _, licence, _ in places}
