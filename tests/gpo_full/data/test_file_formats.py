"""Every format that is read tells the same rows; a JSON array is read piece by piece; others are named."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.data import file_formats
from gpo_full.data.columns import BadRow, Columns
from gpo_full.data.file_formats import read_rows
from gpo_full.data.pairs import read_pairs
from gpo_full.training.trainer import GPOTrainer
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import trainer

TOKENIZER = tiny_tokenizer()
ROWS = [{"prompt": 'the "cat",\tand', "chosen": " sat\non the mat", "rejected": " ran é"},
        {"prompt": "the dog", "chosen": " sat, [{", "rejected": ' said "no" \\ }]'}]  # fmt: skip


def lines(rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(rows: Any, delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def zstd(raw: bytes) -> bytes:
    out = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(out, "zstd") as stream:
        stream.write(raw)
    return bytes(out.getvalue())


PLAIN = {".jsonl": lines(ROWS), ".ndjson": lines(ROWS), ".json": lines(ROWS), "": lines(ROWS), ".mine": lines(ROWS),
         ".JSON": json.dumps(ROWS, indent=2).encode(), ".csv": table(ROWS, ","), ".tsv": table(ROWS, "\t"),
         ".v2": json.dumps(ROWS).encode()}  # fmt: skip
COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
FILES = {**PLAIN, **{f"{suffix}{last}": compress(PLAIN[suffix]) for suffix in (".jsonl", ".json", ".csv", ".tsv")
                     for last, compress in COMPRESSED.items()}}  # fmt: skip


@pytest.mark.parametrize("suffix", FILES)
def test_every_format_tells_the_same_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs{suffix}"
    path.write_bytes(FILES[suffix])
    assert list(read_rows(path)) == [*enumerate(ROWS, 1)]


VALUES = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@settings(deadline=None)
@given(st.lists(VALUES, max_size=6), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_an_array_is_what_json_reads_however_it_is_cut(rows: list[Any], piece: int, indent: Any, escaped: bool) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    try:
        expected = [*enumerate(json.loads(text.decode()), 1)]
    except UnicodeDecodeError:
        return
    before, file_formats.PIECE = file_formats.PIECE, piece
    try:
        found = [json.loads(each) for each in file_formats._elements(Path("x"), io.BytesIO(text)) if each.strip()]
    finally:
        file_formats.PIECE = before
    assert [*enumerate(found, 1)] == expected


@pytest.mark.parametrize(("text", "reason"), [
    (b'[{"prompt": "a"}, {"prompt": "b"}', "is a JSON array that has no end"),
    (b'[{"prompt": "a', "is a JSON array that has no end"),
    (b'[{"prompt": "a"}] and more', "is a JSON array that more text follows"),
    (b'{\n "data": []\n}', "is one JSON object over several lines"),
])  # fmt: skip
def test_an_array_that_is_none_is_one_line(text: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=reason):
        list(read_rows(path))


def test_a_bad_element_of_an_array_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    path.write_bytes(b'[{"prompt": "a", "prompt": "b"}, NaN, {"a": 1,}, {"a": "\xff"}, 3, {"a": 1}]')
    found = [value for _, value in read_rows(path)]
    assert [str(value) for value in found[:2]] == ["key 'prompt' appears twice", "not JSON (NaN)"]
    assert [type(value) for value in found] == [BadRow] * 4 + [int, dict]


def test_an_array_larger_than_memory_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    row = {**ROWS[0], "chosen": "x" * 100_000}
    path.write_text(json.dumps([row] * 200))
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path)) == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 6 * file_formats.PIECE


@pytest.mark.parametrize(("name", "what"), [
    ("pairs.xlsx", "is an Excel sheet; data is read from .jsonl, .ndjson, .json, .csv, .tsv, .parquet, all but .parquet"),
    ("pairs.pkl", "is a pickle, which can run code"), ("pairs.yaml", "is YAML"), ("pairs.arrow", "is an Arrow file"),
    ("pairs.zip", "is an archive"), ("pairs.txt", "is no JSON, and its suffix tells no format"),
    ("pairs.txt.gz", "is no JSON, and its suffix tells no format"),
])  # fmt: skip
def test_another_format_is_named(name: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"some text") if name.endswith(".gz") else b"some text")
    with pytest.raises(InputError, match=what):
        read_pairs(path, TOKENIZER)


def test_zstd_without_its_reader_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.jsonl.zst"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read"):
        list(read_rows(path))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"which needs pyarrow \(extra: lm\)"):
        list(read_rows(path))


TALK = [{"prompt": [{"role": "user", "content": "the cat"}], "weight": 2.0,
         "chosen": [{"role": "assistant", "content": "sat", "name": "x"}], "rejected": [{"role": "assistant", "content": "ran"}]},
        {"prompt": [{"role": "user", "content": "the dog"}], "weight": None,
         "chosen": [{"role": "assistant", "content": "ran"}], "rejected": [{"role": "assistant", "content": "sat"}]}]  # fmt: skip
TABLES = {"pandas": pd.DataFrame, "pyarrow": pyarrow.Table.from_pylist, "datasets": datasets.Dataset.from_list,
          "stream": lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
          "indexed": lambda rows: pd.DataFrame(rows, index=[7, 3])}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("rows", [ROWS, TALK])
def test_a_table_in_memory_is_read_like_a_list(kind: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found, summary = read_pairs(TABLES[kind](rows), TOKENIZER)
    assert found == read_pairs(rows, TOKENIZER)[0]
    assert summary.kept == 2


def test_a_table_is_trained_on(tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny_model(), pd.DataFrame(TALK), processing_class=TOKENIZER)
    assert made.train_dataset.pairs == read_pairs(TALK, TOKENIZER)[0]


def test_frames_that_went_through_parquet_are_read(tmp_path: Path) -> None:
    """pandas gives lists of messages back as arrays of NumPy."""
    path = write_rows(tmp_path / "pairs.parquet", TALK)
    assert read_pairs(pd.read_parquet(path), TOKENIZER)[0] == read_pairs(TALK, TOKENIZER)[0]


def test_a_table_of_mixed_types_is_one_line() -> None:
    with pytest.raises(InputError, match=r"the table cannot be read: .*column (prompt|chosen)"):
        read_pairs(pd.DataFrame([ROWS[0], TALK[0]]), TOKENIZER)


@pytest.mark.parametrize("make", [datasets.DatasetDict, dict])
def test_several_splits_are_named_and_not_read(make: Any, tmp_path: Path) -> None:
    splits = make(train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS))
    with pytest.raises(InputError, match="a mapping of 'train', 'test', as of splits: give one of them"):
        read_pairs(splits, TOKENIZER)
    with pytest.raises(InputError, match="train data must be one set of pairs, not a mapping of several: 'train', 'test'"):
        GPOTrainer("x", trainer(tmp_path, tiny_model()).args, splits, processing_class=TOKENIZER)


def test_nulls_that_arrow_adds_are_no_fields(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.parquet", TALK)
    (_, first), (_, second) = read_rows(path, Columns())
    assert first["chosen"] == TALK[0]["chosen"]
    assert second["chosen"] == TALK[1]["chosen"]  # without a name
    assert second["weight"] is None


@pytest.mark.parametrize(("suffix", "delimiter", "other"), [(".csv", ",", ";"), (".csv", ",", "\t"), (".csv", ",", "|"), (".tsv", "\t", ";")])
def test_another_separator_is_named(suffix: str, delimiter: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / f"pairs{suffix}"
    path.write_bytes(table(ROWS, other))
    with pytest.raises(InputError, match=re.escape(f"fields are separated by {other!r}, not by {delimiter!r}")):
        read_pairs(path, TOKENIZER)


def test_a_header_in_the_middle_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(table(ROWS, ",") * 2)
    with pytest.raises(InputError, match="row 3: repeats the header"):
        read_pairs(path, TOKENIZER)
