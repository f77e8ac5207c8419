"""Data that is no single file: folders of Parquet, folders that datasets saved, sets on the hub, and what is refused."""

import hashlib
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import datasets
import pytest

from gpo_full.config import GPOConfig
from gpo_full.data.columns import Columns
from gpo_full.data.pairs import read_pairs
from gpo_full.data.sources import fingerprint, numbered_rows, open_data
from gpo_full.training.rows import pairs_of
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_tokenizer

ROWS = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}", "topic": f"t{i}"} for i in range(5)]


def parquet(path: Path, rows: list[dict[str, str]]) -> str:
    return str(write_rows(path, rows).parent)


def prompts(data: Any) -> list[str]:
    return [row["prompt"] for _, row in numbered_rows(data)]


def test_a_file_is_its_path_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    assert open_data("--data", str(path)) == str(path)
    assert fingerprint(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_parquet_files_of_a_folder_are_read_in_order_and_as_often_as_asked(tmp_path: Path) -> None:
    parquet(tmp_path / "b.parquet", ROWS[2:])
    data = open_data("--data", parquet(tmp_path / "a.parquet", ROWS[:2]))
    for _ in range(2):
        # Of a column that nobody asked for, only the name is read.
        assert list(numbered_rows(data)) == [(i, {**row, "topic": None}) for i, row in enumerate(ROWS, 1)]
    assert [row["topic"] for _, row in numbered_rows(data, Columns(also=("topic",)))] == ["t0", "t1", "t2", "t3", "t4"]


def test_the_rows_of_a_folder_become_pairs(tmp_path: Path) -> None:
    data = open_data("--data", parquet(tmp_path / "a.parquet", ROWS))
    pairs, _ = read_pairs(data, tiny_tokenizer(), max_length=64, max_prompt_length=32)
    assert len(pairs) == 5


def test_a_folders_test_split_is_never_trained_on(tmp_path: Path) -> None:
    parquet(tmp_path / "test-00000-of-00001.parquet", ROWS[4:])
    parquet(tmp_path / "train-00001-of-00002.parquet", ROWS[2:4])
    folder = parquet(tmp_path / "train-00000-of-00002.parquet", ROWS[:2])
    assert prompts(open_data("--data", folder)) == ["p0", "p1", "p2", "p3"]
    assert prompts(open_data("--data", f"{folder}:test")) == ["p4"]
    with pytest.raises(InputError, match=r"there is no split 'tests'; there are test, train; did you mean 'test'\?"):
        open_data("--data", f"{folder}:tests")


def test_a_fingerprint_is_that_of_the_bytes(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "a.parquet", ROWS[:2])
    before = fingerprint(open_data("--data", folder))
    assert fingerprint(open_data("--data", folder)) == before
    parquet(tmp_path / "a.parquet", ROWS[1:3])
    assert fingerprint(open_data("--data", folder)) != before


@pytest.mark.parametrize(("text", "reason"), [
    ("absent.jsonl", "'absent.jsonl' is not a file, a folder, or the owner/name"),
    ("data/absent.jsonl.gz", "is not a file, a folder"),
    ("a/b/c", "is not a file, a folder"),
    ("", "is not a file, a folder"),
    ("../absent/pairs", "is not a file, a folder"),
    (".", "holds neither a saved data set nor files of data"),
])  # fmt: skip
def test_what_is_no_data_is_refused(text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=reason):
        open_data("--data", text)


def library(**functions: Any) -> SimpleNamespace:
    return SimpleNamespace(__version__="5.2.0", disable_progress_bars=lambda: None, **functions)


def refuse(*_: Any, **__: Any) -> NoReturn:
    raise ConnectionError("name resolution failed\nand more")


def test_without_datasets_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"^--data 'me/pairs' is no file or folder, and .*: pip install datasets$"):
        open_data("--data", "me/pairs")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"was saved by datasets needs the package datasets|pip install datasets"):
        open_data("--data", str(tmp_path))


def test_a_version_that_runs_a_sets_own_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = library(load_dataset=refuse)
    old.__version__ = "3.6.0"
    monkeypatch.setitem(sys.modules, "datasets", old)
    with pytest.raises(InputError, match=r"needs datasets>=4, not 3\.6\.0"):
        open_data("--data", "me/pairs")


def test_a_hub_that_is_not_reached_is_one_line_and_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    monkeypatch.setitem(sys.modules, "datasets", library())  # its load_dataset is not called
    with pytest.raises(InputError) as caught:
        open_data("--data", "me/pairs")
    assert str(caught.value) == ("--data 'me/pairs' is no file or folder, and cannot be fetched from the hub "
                                 "(HF_HUB_OFFLINE=1 uses what is in the cache): name resolution failed")  # fmt: skip


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setitem(sys.modules, "datasets", library(load_dataset=refuse))
    with pytest.raises(InputError, match=r"cannot be fetched from the hub \(HF_HUB_OFFLINE is set\): name resol"):
        open_data("--data", "me/pairs:test")


def test_a_set_on_the_hub_and_its_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    splits = {"train": ROWS[:2], "test": ROWS[2:]}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda _, name, timeout: asked.append(name))
    monkeypatch.setitem(sys.modules, "datasets", library(load_dataset=lambda name: splits))
    assert prompts(open_data("--data", "me/pairs")) == ["p0", "p1"]
    assert prompts(open_data("--data", "me/pairs:test")) == ["p2", "p3", "p4"]
    assert asked == ["me/pairs", "me/pairs"]
    del splits["train"]
    assert prompts(open_data("--data", "me/pairs")) == ["p2", "p3", "p4"]  # the only one
    splits["other"] = []
    with pytest.raises(InputError, match="no split is named, and none is called train; there are test, other"):
        open_data("--data", "me/pairs")


def test_what_datasets_saved_is_read_with_its_own_fingerprint(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=whole.select([0, 1]), test=whole.select([4])).save_to_disk(str(tmp_path / "several"))
    one = open_data("--data", str(tmp_path / "one"))
    assert [row for _, row in numbered_rows(one)] == ROWS
    assert prompts(open_data("--data", str(tmp_path / "several"))) == ["p0", "p1"]
    assert prompts(open_data("--data", f"{tmp_path / 'several'}:test")) == ["p4"]
    assert fingerprint(one) == fingerprint(open_data("--data", str(tmp_path / "one")))
    marks = [fingerprint(open_data("--data", f"{tmp_path / 'several'}:{split}")) for split in ("train", "test")]
    assert len({fingerprint(one), *marks}) == 3
    with pytest.raises(InputError, match="has no splits, so there is no 'test'"):
        open_data("--data", f"{tmp_path / 'one'}:test")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        open_data("--data", str(tmp_path / "one"))


SUFFIXES = {"-00000-of-00001.parquet": ".parquet", ".jsonl": ".jsonl", ".jsonl.gz": ".jsonl.gz", ".csv": ".csv", ".json": ".json"}


def folder_of(root: Path, *names: str, suffix: str = ".jsonl") -> str:
    """A folder of files, each of one row whose prompt is the file's name."""
    for name in names:
        path = root / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, [{"prompt": name, "chosen": "c", "rejected": "r"}])
    return str(root)


# The files, for what the data are wanted, and the files that are read.
ONE: list[tuple[tuple[str, ...], str, list[str]]] = [
    (("train", "test"), "train", ["train"]), (("train", "test"), "test", ["test"]),
    (("train_prefs", "test_prefs"), "train", ["train_prefs"]), (("train_prefs", "test_prefs"), "test", ["test_prefs"]),
    (("data/train", "data/test"), "train", ["data/train"]), (("train/0", "validation/0"), "train", ["train/0"]),
    (("train/0", "train/1", "dev/0"), "train", ["train/0", "train/1"]), (("train", "validation"), "test", ["validation"]),
    (("my-training-pairs", "my-eval-pairs"), "train", ["my-training-pairs"]), (("pairs.train", "pairs.val"), "train", ["pairs.train"]),
    (("default/train/0", "default/test/0"), "train", ["default/train/0"]),
    (("train", "train_sft", "test"), "train", ["train"]), (("a", "b"), "train", ["a", "b"]), (("a", "b"), "test", ["a", "b"]),
    (("test",), "train", ["test"]), (("train",), "test", ["train"]), (("latest", "contest"), "train", ["contest", "latest"]),
]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("names", "part", "read"), ONE)
def test_the_one_split_for_the_part_is_taken_and_the_others_are_named(
    names: tuple[str, ...], part: str, read: list[str], suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_data("--data", folder_of(tmp_path, *names, suffix=suffix), part)
    assert prompts(data) == read
    others = {*names} - {*read}
    told = "".join(record.getMessage() for record in caplog.records)
    assert all(name.split("/")[-1 if "data" in name else 0].split(".")[-1] in told for name in others)
    if names == ("test",):
        assert "its only split, test, is trained on" in told
    several = len({name.split("/")[0] for name in names}) > 1 and not others
    assert bool(told) == bool(others) or "its only split, test, is trained on" in told or several
    assert ("all its files are read: " + ", ".join(f"{name}{suffix}" for name in sorted(names)) in told) == several


@pytest.mark.parametrize(("names", "read"), [
    (("pairsTrain", "pairsTest"), "pairsTrain"), (("trainset", "testset"), "trainset"), (("trn", "tst"), "trn"), (("Train/a", "Test/a"), "Train/a"),
    (("trainSplit", "valSet"), "trainSplit"), (("PairsTRAIN", "pairs_TEST"), "PairsTRAIN"),
])  # fmt: skip
def test_other_spellings_of_splits(names: tuple[str, ...], read: str, tmp_path: Path) -> None:
    assert prompts(open_data("--data", folder_of(tmp_path, *names))) == [read]


@pytest.mark.parametrize(("names", "read", "said"), [
    (("data/pairs", "results/pairs"), ["data/pairs"], "not read: results/pairs.jsonl"),
    (("pairs", "old/pairs"), ["pairs"], "not read: old/pairs.jsonl"),
    (("pairs", "pairs copy"), ["pairs", "pairs copy"], "all its files are read: pairs copy.jsonl, pairs.jsonl"),
    (tuple(f"p{i:02}" for i in range(11)), [f"p{i:02}" for i in range(11)], "p07.jsonl and 3 more"),
])  # fmt: skip
def test_files_that_are_joined_or_left_out_are_named(
    names: tuple[str, ...], read: list[str], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert sorted(prompts(open_data("--data", folder_of(tmp_path, *names)))) == read
    (record,) = caplog.records
    assert said in record.getMessage()


# The files, for what the data are wanted, and what is said; never are both read.
SEVERAL = [
    (("train_sft", "train_prefs", "test_sft"), "train", "train_prefs, train_sft are for training; there are test_sft, train_prefs, train_sft"),
    (("a/train", "b/train"), "train", "a/train, b/train are for training"),
    (("train", "validation", "test"), "test", "test, validation are for testing"),
    (("pairs", "test"), "train", "none is called train; there are pairs, test"),
    (("dev", "test"), "train", "none is called train; there are dev, test"),
    (("train", "train_sft"), "test", "none is for testing; there are train, train_sft"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "part", "said"), SEVERAL)
def test_several_splits_are_refused_with_their_names(names: tuple[str, ...], part: str, said: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *names)
    with pytest.raises(InputError, match=said) as caught:
        open_data("--data", folder, part)
    one = {("pairs", "test"): "pairs", ("train", "train_sft"): "train", ("dev", "test"): "dev"}.get(names)
    assert one is None or f"; one is given as {folder}:{one}" in str(caught.value)
    tests = [name for name in sorted(names) if name.startswith(("test", "dev")) and f"one is given as {folder}:{name}" not in str(caught.value)]
    assert part == "test" or not tests or f"`eval_data='{folder}:{tests[0]}'`" in str(caught.value)
    for name in names:  # each as the message says to choose it
        assert prompts(open_data("--data", f"{folder}:{name}", part)) == [name]


def test_one_split_in_two_formats_is_not_read_twice(tmp_path: Path) -> None:
    folder_of(tmp_path, "train", suffix=".csv")
    with pytest.raises(InputError, match=r"holds train in several formats, train.csv, train.jsonl: give one file"):
        open_data("--data", folder_of(tmp_path, "train"))


def test_files_beside_the_data_are_none(tmp_path: Path) -> None:
    for name in ("dataset_infos.json", "README.md", ".hidden.jsonl", "config.json", ".cache/train.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert prompts(open_data("--data", folder_of(tmp_path, "train"))) == ["train"]


def test_saved_sets_of_several_splits_are_chosen_from_alike(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = datasets.DatasetDict({name: datasets.Dataset.from_list([{**ROWS[0], "prompt": name}]) for name in ("train_prefs", "test_prefs")})
    made.save_to_disk(str(tmp_path / "one"))
    assert prompts(open_data("--data", str(tmp_path / "one"))) == ["train_prefs"]
    assert prompts(open_data("--eval-data", str(tmp_path / "one"), "test")) == ["test_prefs"]
    made["train_sft"] = made["train_prefs"]
    made.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match="train_prefs, train_sft are for training"):
        open_data("--data", str(tmp_path / "two"))


def test_a_folder_given_to_the_trainer_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    args = GPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True, max_length=64)
    folder = folder_of(tmp_path / "data", "train", "test")
    for name, read in (("train", "train"), ("eval", "test")):
        pairs, _ = pairs_of(name, folder, tiny_tokenizer(), args)
        assert tiny_tokenizer().decode(pairs[0].prompt) == read
    with pytest.raises(InputError, match="train data 'absent/x/y' is not a file, a folder"):
        pairs_of("train", "absent/x/y", tiny_tokenizer(), args)


@pytest.mark.parametrize("there", [(0, 2), (0,), (1, 2)])
def test_a_part_that_is_missing_is_told(there: tuple[int, ...], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, *(f"train-{part:05}-of-00003" for part in there), suffix=".jsonl")
    with pytest.raises(InputError, match=f"{len(there)} of the 3 files of train are there"):
        open_data("--data", folder)


def test_a_saved_split_without_rows_is_one_line(tmp_path: Path) -> None:
    """Which datasets 5.1 saves and cannot read."""
    made = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": made.select([]), "test": made}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match="saved' cannot be read: list index out of range"):
        open_data("--data", f"{tmp_path / 'saved'}:test")


def test_two_sets_of_shards_are_not_mixed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "train-00000-of-00002", "train-00001-of-00002", "train-00000-of-00003")
    with pytest.raises(InputError, match="files of train in 2 and in 3 parts: keep one set"):
        open_data("--data", folder)


@pytest.mark.parametrize(("names", "part"), [(("evaluation", "validation"), "train"), (("eval_train", "train_eval"), "train"), (("dev", "test"), "test")])
def test_one_split_is_not_advised_for_both(names: tuple[str, ...], part: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_data("--data", folder_of(tmp_path, *names), part)
    told = str(caught.value)
    for name in names:
        assert told.count(f":{name}") <= 1
    assert part == "train" or "eval_data" not in told


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_pointer_of_git_lfs_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(InputError, match="is a pointer of Git LFS, not the data"):
        list(numbered_rows(str(path)))


def test_a_merged_file_beside_its_shards_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "train", "train-00000-of-00002", "train-00001-of-00002")
    with pytest.raises(InputError, match="train is there whole and in parts: keep one of them"):
        open_data("--data", folder)


@pytest.mark.parametrize("form", ["numpy", "pandas", "arrow", "torch", None])
def test_rows_of_datasets_are_read_whatever_its_format_and_what_it_hides(form: str | None) -> None:
    talk = [{"role": "user", "content": "the cat"}]
    rows = [{"prompt": talk, "chosen": "sat", "rejected": "ran", "question": "what"}]
    data = datasets.Dataset.from_list(rows).with_format(form, columns=["prompt", "chosen", "rejected"])
    assert [row for _, row in numbered_rows(data)] == [{"prompt": talk, "chosen": "sat", "rejected": "ran"}]
