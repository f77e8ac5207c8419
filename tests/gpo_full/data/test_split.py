"""Pairs split by what they are about: nothing leaks, no test response counts twice; on made-up debates."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpo_full.data.sources import fingerprint, is_on_disk, open_data
from gpo_full.data.split import split_pairs
from gpo_theory.errors import InputError
from tests.support.commands import gpo, refused
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_model, tiny_tokenizer

TOPICS = ("tea or coffee", "cats or dogs", "sea or hills", "trains or planes")


def debates(repeats: int = 3) -> Iterator[dict[str, str]]:
    """For each debate, `repeats` arguments, each against each: every argument stands in several pairs."""
    for topic in TOPICS:
        for i in range(repeats):
            for j in range(i):
                yield {"id": f"{topic}{i}{j}", "topic": topic, "stance": "the first", "chosen": f"{topic} because {i}" + "!" * i,
                       "rejected": f"{topic} because {j}" + "!" * j}  # fmt: skip


def test_no_debate_is_on_both_sides_and_no_test_response_twice() -> None:
    split = split_pairs(list(debates(6)), "topic", 0.5, columns={"prompt": "{topic}, {stance}:\n"})
    sides = [{row["topic"] for row in side} for side in (split.train, split.test)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(TOPICS)
    assert sides[1] == set(split.held_out)
    assert len(sides[1]) == 2
    assert len(split.train) == 2 * 15  # every pair of six arguments, in two debates
    responses = [row[which] for row in split.test for which in ("chosen", "rejected")]
    assert len(responses) == len(set(responses)) > 0
    # The rows stay as they are: whoever reads them gets the same names of columns.
    assert all(row in list(debates(6)) for row in [*split.train, *split.test])


def test_the_same_values_are_held_out_whatever_the_order_of_the_rows() -> None:
    rows = list(debates(6))
    assert {split_pairs(each, "topic").held_out for each in (rows, rows[::-1], rows[::3])} == {
        split_pairs(rows, "topic").held_out}  # fmt: skip


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.5, 2), (0.6, 2), (0.99, 3)])
def test_each_side_keeps_a_value(share: float, held: int) -> None:
    assert len(split_pairs(list(debates()), "topic", share).held_out) == held


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "topik"}, r"row 1: 'topik' is missing, empty or not text; did you mean 'topic'\?"),
        ({"by": "topic", "columns": {"prompt": "{stanse}"}}, "'stanse' is missing.*did you mean 'stance'"),
        ({"by": "topic", "columns": {"chosen": "chosn"}}, "'chosn' is missing.*did you mean 'chosen'"),
        ({"by": "stance"}, "column 'stance' has 1 value"),
        ({"by": "topic", "share": 1.0}, "test share 1 must be"),
    ],
)
def test_what_cannot_be_split_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_pairs(list(debates()), **options)


def test_a_bad_row_is_named_by_its_number_or_skipped_and_counted() -> None:
    rows = [*debates(), {"topic": "sea or hills", "chosen": "", "rejected": "x"}]
    with pytest.raises(InputError, match="row 13: 'chosen' is missing or empty"):
        split_pairs(rows, "topic")
    split = split_pairs(rows, "topic", skip=True)
    assert split.skipped == 1
    assert "1 rows skipped" in str(split)


def test_conversations_are_split_too() -> None:
    rows = [{"topic": t, "chosen": [{"role": "user", "content": t}], "rejected": [{"role": "user", "content": "no"}]}
            for t in TOPICS]  # fmt: skip
    split = split_pairs(rows, "topic", 0.75)
    assert len(split.test) == 1  # all answer "no": only one of them counts
    assert next(iter(split.test)) in rows


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl.gz"])
def test_the_column_is_read_from_any_kind_of_file(suffix: str, tmp_path: Path) -> None:
    rows = list(debates())
    path = write_rows(tmp_path / f"debates{suffix}", rows)
    found = split_pairs(open_data("--data", str(path)), "topic", columns={"prompt": "{stance}"})
    expected = split_pairs(rows, "topic", columns={"prompt": "{stance}"})
    assert {row["stance"] for row in found.train} == {"the first"}
    assert found.held_out == expected.held_out
    assert [row["chosen"] for row in found.train] == [row["chosen"] for row in expected.train]


def test_a_side_is_read_again_and_again_in_the_order_of_the_data() -> None:
    rows = list(debates(6))
    split = split_pairs(rows, "topic", 0.5)
    for side in (split.train, split.test):
        first = list(side)
        assert first == list(side) == [row for row in rows if row in first]
        assert len(side) == len(first)
    assert [row for row in rows if row["topic"] not in split.held_out] == list(split.train)


@pytest.mark.slow
def test_data_larger_than_memory_can_be_split(tmp_path: Path) -> None:
    """Rows of 2 kB, a third of them tested: what is held is some hundred bytes of each."""
    rows = ({"topic": str(i % 50), "chosen": f"{i} " + "y" * 1000, "rejected": f"{i} " + "n" * 1000} for i in range(20_000))
    path = write_rows(tmp_path / "many.jsonl", rows)
    tracemalloc.start()
    split = split_pairs(str(path), "topic", 0.35, columns={"prompt": "{topic}"})
    counted = [sum(1 for _ in side) for side in (split.train, split.test)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counted == [len(split.train), len(split.test)] == [12_800, 7_200]  # 32 and 18 values of 400 rows
    assert peak < 128 * 20_000


def test_sides_are_known_apart_by_their_contents(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "debates.jsonl", debates())

    def hashes(**options: Any) -> set[str]:
        split = split_pairs(str(path), "topic", **options)
        assert is_on_disk(split.train)
        assert is_on_disk(split.test)
        return {fingerprint(side) for side in (split.train, split.test)}

    first = hashes()
    assert len(first) == 2
    assert hashes() == first
    for other in ({"share": 0.5}, {"columns": {"prompt": "{topic}"}}):
        assert not hashes(**other) & first
    path.write_text(path.read_text().replace("because 0", "because nought"))
    assert not hashes() & first
    assert not is_on_disk(split_pairs(list(debates()), "topic").train)


def test_data_that_changes_under_a_split_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "debates.jsonl", debates())
    split = split_pairs(str(path), "topic")
    path.write_text(path.read_text().replace('"chosen"', '"chosn"'))
    with pytest.raises(InputError, match=r"row \d+ has changed since the data was split: 'chosen' is missing"):
        list(split.train)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "policy"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return write_rows(tmp_path / "debates.jsonl.gz", debates(4))


def words(model: Path, data: Path, **changes: object) -> list[str]:
    options = {"model": model, "data": data, "loss": "dpo", "beta": 1, "output": data.parent / "run", "steps": 3,
               "batch-pairs": 4, "learning-rate": 0.01, "threads": 1, "test-by": "topic", **changes}  # fmt: skip
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]


def test_one_command_trains_on_some_debates_and_tests_on_others(model: Path, data: Path) -> None:
    done = gpo("train", *words(model, data, **{"test-share": 0.5, "columns": "prompt={topic}. {stance}:\\n"}), "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["pairs"] == 2 * 6  # all pairs of four arguments, in two debates
    # Of each held-out debate's four arguments no two test pairs share one: at most two pairs, and at least one.
    assert 2 <= found["evaluation"]["eval_pairs"] <= 4
    assert found["evaluation"]["eval_longer_wins"] == 1.0
    assert {"eval_accuracy_low", "eval_accuracy_high", "eval_pairs_not_longer"} <= found["evaluation"].keys()
    assert sum(topic in done.stderr for topic in TOPICS) == 2
    settings = json.loads((data.parent / "run" / "run.json").read_text())
    assert (settings["test_by"], settings["columns"]) == ("topic", {"prompt": "{topic}. {stance}:\n"})
    assert len([*(data.parent / "cache" / "pairs").iterdir()]) == 2  # both sides stay on disk
    card = (data.parent / "run" / "README.md").read_text()
    assert "preferring the longer response: 1.000; where the chosen is not longer: no such pair" in card


def test_a_resumed_run_must_hold_out_the_same(model: Path, data: Path) -> None:
    given = words(model, data, columns="prompt={topic}: ")
    done = gpo("train", *given)
    assert (done.returncode, "held-out accuracy" in done.stdout) == (0, True)
    (data.parent / "run" / "config.json").unlink()  # as if it had been killed while saving
    done = gpo("train", *given, "--test-share", "0.5", "--resume")
    assert (done.returncode, "test_share: None -> 0.5" in done.stderr) == (2, True)
    done = gpo("train", *given[:-1], "prompt={topic}", "--resume")
    assert (done.returncode, "columns: {'prompt': '{topic}: '} -> {'prompt': '{topic}'}" in done.stderr) == (2, True)
    assert gpo("train", *given, "--resume").returncode == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test-by": None, "test-share": 0.5}, "--test-share goes with --test-by"),
        ({"columns": "promt={topic}"}, "columns: 'promt' is none of prompt, chosen"),
        ({"columns": "prompt"}, "--columns 'prompt' is not of the form OURS=THEIRS, as in prompt=question"),
        ({"columns": "chosen=nothing"}, "row 1: column 'nothing' is missing"),
        ({"eval-data": "x.jsonl"}, "choose one"),
        ({"test-by": "topik"}, "debates.jsonl.gz': row 1: 'topik' is missing, empty or not text; did you mean 'topic'?"),
    ],
)
def test_bad_input_is_one_line(changes: dict[str, object], message: str, model: Path, data: Path) -> None:
    assert message in refused("train", *words(model, data, **changes))
    assert not (data.parent / "run").exists()


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"plain text"])
def test_a_damaged_compressed_file_is_refused(damage: Any, model: Path, data: Path) -> None:
    data.write_bytes(damage(data.read_bytes()))
    assert "cannot be read" in refused("train", *words(model, data))
