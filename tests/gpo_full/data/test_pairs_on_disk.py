"""Pairs on disk: the same as in memory, bit by bit, in a process that could not hold them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from gpo_full.config import GPOConfig
from gpo_full.data.pairs import Pair, read_pairs
from gpo_full.data.pairs_on_disk import (
    PairTable,
    digests_of,
    largest_length_and_id,
    pair_table,
    prompt_keys_of,
    sizes_of,
)
from gpo_full.data.sources import open_data
from gpo_full.training.rows import pairs_of
from gpo_full.training.trainer import GPOTrainer
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import objects

TOKENIZER = tiny_tokenizer()
WORDS = ("cat", "dog", "mat", "list", "sum", "values")
ROWS = [{"prompt": f"the {a} and the {b}", "chosen": f" sat on the {c}", "rejected": f" ran after {a}, {c}"}
        for a in WORDS for b in WORDS[:3] for c in WORDS]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", ROWS)


def table(data: Path, tokenizer: Any = TOKENIZER, **options: Any) -> PairTable:
    return pair_table(data, tokenizer, folder=data.parent / "tables", **options)


def files(data: Path) -> list[Path]:
    return sorted((data.parent / "tables").iterdir())


def test_the_rows_are_those_that_are_read_into_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo_full.data.pairs_on_disk.ROWS", 50)  # several pieces, the last one not full
    options = {"max_length": 12, "max_prompt_length": 3}
    expected, summary = read_pairs(ROWS, TOKENIZER, **options)
    found = table(data, **options)
    assert summary.prompts_truncated > 0
    assert found.summary == summary
    assert list(found) == expected
    assert [found[-1], *found[3:9:2]] == [expected[-1], *expected[3:9:2]]
    with pytest.raises(IndexError):
        found[len(expected)]
    np.testing.assert_array_equal(digests_of(found), digests_of(expected))
    np.testing.assert_array_equal(sizes_of(found), sizes_of(expected))
    np.testing.assert_array_equal(prompt_keys_of(found), prompt_keys_of(expected))
    prompts = {pair.prompt: key for pair, key in zip(expected, prompt_keys_of(found).tolist(), strict=True)}
    assert len({*prompts.values()}) == len(prompts) > 1
    assert largest_length_and_id(found) == largest_length_and_id(expected)


def test_extent_is_that_of_sequences_written_out() -> None:
    pairs = [Pair((3, 90), (5,), (6, 7, 8), 1), Pair((4, 4, 4), (2, 9), (), 1)]
    assert largest_length_and_id(pairs) == (5, 90)


def test_a_second_run_reads_what_the_first_has_written(data: Path) -> None:
    class Counting:
        eos_token_id, bos_token_id, calls = TOKENIZER.eos_token_id, TOKENIZER.bos_token_id, 0
        save_pretrained, bos_token, eos_token = TOKENIZER.save_pretrained, TOKENIZER.bos_token, TOKENIZER.eos_token
        pad_token = TOKENIZER.pad_token

        def __call__(self, *words: Any, **options: Any) -> Any:
            self.calls += 1
            return TOKENIZER(*words, **options)

    tokenizer = Counting()
    first = table(data, tokenizer)
    calls, tokenizer.calls = tokenizer.calls, 0
    assert list(table(data, tokenizer)) == list(first)
    assert (calls, tokenizer.calls) == (3 * len(ROWS), 0)


def test_what_changes_the_tokens_changes_the_file(data: Path) -> None:
    table(data)
    table(data, max_length=12, max_prompt_length=5)
    table(data, max_length=12, max_prompt_length=4)
    table(data, bad_rows="skip")
    other = tiny_tokenizer()
    other.add_tokens(["the cat"])
    table(data, other)
    other.chat_template = "{{ messages }}"
    table(data, other)
    write_rows(data, ROWS[1:])
    table(data)
    assert len(files(data)) == 7
    renamed = data.rename(data.with_name("other.jsonl"))
    table(renamed, tiny_tokenizer())
    assert len(files(data)) == 7


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
def test_a_damaged_table_is_named_and_written_again(damage: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = list(table(data))
    (path,) = files(data)
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes({"bit": content, "cut": content[:-9], "empty": b""}[damage])
    assert list(table(data)) == expected
    assert f"{path.name} is damaged" in capsys.readouterr().err
    assert files(data) == [path]


def test_folders_and_saved_sets_are_tables_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    expected, _ = read_pairs(ROWS, TOKENIZER)
    half = len(ROWS) // 2
    for name, rows in (("a", ROWS[:half]), ("b", ROWS[half:])):
        write_rows(tmp_path / "parquet" / f"{name}.parquet", rows)
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    args = GPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True)
    for number, name in enumerate(("parquet", "saved"), 1):
        data = open_data("--data", str(tmp_path / name))
        pairs, summary = pairs_of("train", data, TOKENIZER, args)
        assert isinstance(pairs, PairTable)
        assert list(pairs) == expected
        assert summary is not None
        assert summary.kept == len(ROWS)
        pairs_of("train", open_data("--data", str(tmp_path / name)), TOKENIZER, args)
        assert len([*(tmp_path / "cache" / "pairs").iterdir()]) == number
    in_memory, _ = pairs_of("train", Dataset.from_list(ROWS), TOKENIZER, args)
    assert in_memory == expected


def test_a_bad_row_leaves_nothing(data: Path) -> None:
    write_rows(data, [*ROWS, {"prompt": "a", "chosen": "b"}])
    with pytest.raises(InputError, match=f"row {len(ROWS) + 1}: key 'rejected' is missing"):
        table(data)
    assert files(data) == []
    with pytest.raises(InputError, match=r"absent.jsonl' cannot be read: No such file"):
        table(data.with_name("absent.jsonl"))


def test_another_process_maps_the_file_again(data: Path) -> None:
    found = table(data)
    make, arguments = found.__reduce__()  # what is sent: a path, no array
    assert arguments == tuple(files(data))
    assert list(make(*arguments)) == list(found)


def test_training_from_a_file_is_training_from_memory_bit_by_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    logs, weights = [], []
    for run, source in (("file", str(data)), ("memory", ROWS)):
        args = GPOConfig(output_dir=str(tmp_path / run), use_cpu=True, max_steps=3, learning_rate=1e-3,
                         report_to=[], reference_store=str(tmp_path / f"store-{run}"))  # fmt: skip
        made = GPOTrainer(tiny_model(), args, source, processing_class=TOKENIZER)
        assert isinstance(made.train_dataset.pairs, PairTable) == (run == "file")
        made.train()
        logs.append([{**each, "cpu_seconds": 0} for each in objects(tmp_path, run)])
        weights.append(made.model.state_dict())
    assert logs[0] == logs[1]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    stores = [[path.read_bytes() for path in (tmp_path / f"store-{run}").iterdir()] for run in ("file", "memory")]
    assert stores[0] == stores[1]


MEBIBYTE = 1 << 20
# The child may take 16 MiB of memory of its own, enough for the stack of a thread that a library starts late; the tokens
# are 64 MiB on disk, and 128 as tuples of small integers. Mapped files do not count: they are the system's, which gives
# their memory to whoever needs it.
CHILD = """
import resource, sys
from pathlib import Path
from gpo_full.data.pairs_on_disk import PairTable

def own():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmData:"))) * 1024

limit = own() + 16 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
table = PairTable(Path(sys.argv[1]))
if sys.argv[2] == "rows":
    print(sum(table[row].chosen[0] for row in range(0, len(table), 7)))
else:
    kept = [pair for pair in table]
"""


def large_table(folder: Path) -> Path:
    """256 pairs of 65,536 tokens: the first of `chosen` is the row's number + 1."""
    from gpo_full.data.pairs_on_disk import _write

    class Reader:
        summary = read_pairs(ROWS[:1], TOKENIZER)[1]

        def __iter__(self) -> Any:
            return (Pair((5,) * 40_000, (row + 1, *[7] * 12_767), (0, *[8] * 12_767), 9) for row in range(256))

    _write(Reader(), folder / "large.safetensors")  # type: ignore[arg-type]
    return folder / "large.safetensors"


def child(path: Path, mode: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHILD, str(path), mode], capture_output=True, text=True, timeout=100)


def test_a_table_several_times_larger_than_the_memory_that_is_allowed(tmp_path: Path) -> None:
    path = large_table(tmp_path)
    assert path.stat().st_size > 64 * MEBIBYTE
    found = child(path, "rows")
    assert (found.returncode, found.stderr) == (0, "")
    assert int(found.stdout) == sum(row + 1 for row in range(0, 256, 7))
    # The limit is one: what is read into memory does not fit.
    assert "MemoryError" in child(path, "memory").stderr
