"""Pairs: tokenised whole, cut by the stated rule, and every row that cannot be used refused with number and reason."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.data.pairs import Pair, read_pairs
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
GOOD = {"prompt": "the cat sat", "chosen": " on the mat", "rejected": " on a dog"}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip)


def ids(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


def one(row: Any, **options: Any) -> Pair:
    pairs, _ = read_pairs([row], TOKENIZER, **options)
    return pairs[0]


def outcome(row: Any, **options: Any) -> Pair | str:
    """The pair, or why there is none."""
    try:
        return one(row, **options)
    except InputError as error:
        return str(error)


def whole(pair: Pair) -> tuple[list[int], list[int]]:
    prompt = pair.prefix[: pair.prompt_length]
    return list(prompt + pair.responses[0]), list(prompt + pair.responses[1])


@settings(deadline=None, max_examples=60)
@given(TEXT, TEXT, TEXT)
def test_both_texts_are_tokenised_whole_and_share_their_longest_prefix(prompt: str, chosen: str, rejected: str) -> None:
    pair = outcome({"prompt": prompt, "chosen": chosen, "rejected": rejected}, max_length=400, max_prompt_length=200)
    if isinstance(pair, str):
        assert chosen == rejected or "share no token" in pair
        return
    texts = prompt + chosen, prompt + rejected
    assert whole(pair) == tuple([*ids(text), TOKENIZER.eos_token_id] for text in texts)
    assert pair.chosen[0] != pair.rejected[0]
    assert list(pair.prefix[: pair.prompt_length]) == ids(prompt)[: pair.prompt_length]


def test_a_token_that_straddles_the_border_belongs_to_the_response() -> None:
    assert len(ids("the c")) == 3
    assert len(ids("the cat")) == 2  # "cat" absorbs the prompt's last letter
    pair = one({"prompt": "the c", "chosen": "at", "rejected": "ow"})
    assert list(pair.prefix) == ids("the")
    assert TOKENIZER.decode(pair.chosen) == " cat</s>"


def test_what_both_responses_begin_with_counts_in_both() -> None:
    pair = one(GOOD)
    assert list(pair.prefix) == ids("the cat sat on")
    assert pair.prompt_length == len(ids("the cat sat"))
    assert [TOKENIZER.decode(response) for response in pair.responses] == [" on the mat</s>", " on a dog</s>"]
    assert pair.size == len(ids("the cat sat on")) + len(ids(" the mat</s>")) + len(ids(" a dog</s>"))


def test_the_end_token_is_appended_once_though_it_is_also_the_padding() -> None:
    assert TOKENIZER.pad_token_id == TOKENIZER.eos_token_id
    pair = one({**GOOD, "rejected": " on a dog</s>"})
    assert pair.rejected.count(TOKENIZER.eos_token_id) == pair.chosen.count(TOKENIZER.eos_token_id) == 1


def test_a_response_may_continue_the_other() -> None:
    pair = one({"prompt": "the cat", "chosen": " sat", "rejected": " sat on the mat"})
    assert pair.chosen == (TOKENIZER.eos_token_id,)
    assert TOKENIZER.decode(pair.responses[1]) == " sat on the mat</s>"


def test_conversations_go_through_the_chat_template() -> None:
    pair = one({"prompt": conversation("the cat"), "chosen": conversation("", "sat")[1:], "rejected": conversation("", "ran")[1:]})
    assert TOKENIZER.decode(pair.prefix[: pair.prompt_length]) == "<s>user\nthe cat</s><s>assistant\n"
    assert [TOKENIZER.decode(response) for response in pair.responses] == ["sat</s>", "ran</s>"]


def test_truncation_cuts_the_prompt_on_the_left_and_responses_on_the_right() -> None:
    row = GOOD | {"prompt": "the dog and the cat sat"}
    pairs, summary = read_pairs([row], TOKENIZER, max_length=5, max_prompt_length=2)
    chosen, rejected = whole(pairs[0])
    assert TOKENIZER.decode(chosen) == " cat sat on the mat"
    assert chosen == [*ids(" cat sat"), *ids(" on the mat")][:5]
    assert rejected == [*ids(" cat sat"), *ids(" on a dog")][:5]
    assert (summary.prompts_truncated, summary.responses_truncated) == (1, 2)


def test_a_leading_beginning_of_sequence_survives_the_cut() -> None:
    pair = one(GOOD | {"prompt": "<s>the dog and the cat sat"}, max_length=8, max_prompt_length=3)
    assert TOKENIZER.decode(pair.prefix[:3]) == "<s> cat sat"


@settings(deadline=None, max_examples=60)
@given(TEXT, TEXT, TEXT, st.integers(2, 12), st.data())
def test_truncation_never_empties_a_response(prompt: str, chosen: str, rejected: str, longest: int, data: Any) -> None:
    shortest = data.draw(st.integers(1, longest - 1))
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    pair = outcome(row, max_length=longest, max_prompt_length=shortest)
    if isinstance(pair, str):
        assert any(reason in pair for reason in ("equal", "share no token"))
        return
    assert all(pair.responses)
    assert pair.prompt_length <= shortest
    assert all(len(text) <= longest for text in whole(pair))


def test_responses_that_the_cut_makes_equal_are_a_bad_row() -> None:
    with pytest.raises(InputError, match=r"row 1: the responses are equal within max_length=4 tokens"):
        one(GOOD, max_length=4, max_prompt_length=3)


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


BAD = {
    "missing": (json.dumps({"prompt": "a", "chosen": "b"}).encode(), "key 'rejected' is missing"),
    "misspelt": (json.dumps({"prompt": "a", "choosen": "b", "rejected": "c"}).encode(), "is it what is called 'choosen'?"),
    "number": (line(chosen=3), "'chosen' must be a text or a list of messages, not int"),
    "null": (line(prompt=None), "'prompt' must be a text or a list of messages, not NoneType"),
    "nested": (line(chosen={"text": "a"}), "'chosen' must be a text or a list of messages, not dict"),
    "mixed": (line(chosen=[{"role": "user", "content": "a"}]), "all texts or all lists"),
    "messages": (line(chosen=["a"]), "'chosen' must hold messages with a role and a content"),
    "empty": (line(rejected=" \n"), "'rejected' is empty"),
    "no messages": (line(rejected=[]), "'rejected' is empty"),
    "equal": (line(rejected=GOOD["chosen"]), "chosen and rejected are equal"),
    "array": (b"[1, 2]", "must be an object"),
    "not JSON": (b'{"prompt": ', "not JSON (Expecting value, column 12)"),
    "NaN": (b'{"prompt": NaN, "chosen": "a", "rejected": "b"}', "not JSON (NaN)"),
    "duplicate": (b'{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}', "key 'prompt' appears twice"),
    "not UTF-8": (b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}', "not UTF-8 (byte 13)"),
    "mark": (b"\xef\xbb\xbf" + line(), "byte order mark"),
    "NUL": (line(prompt="a\0b"), "NUL"),
    "surrogate": (b'{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}', "lone surrogate"),
    "huge": (line(prompt="a" * 10_000_000), "more than 1000000 characters"),
    "deep": (b"[" * 200_000, "not JSON"),
}


def test_a_file_without_a_usable_row_is_refused_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable pair in 1 rows; most often: chosen and rejected are equal"):
        read_pairs(write(tmp_path / "a", line(rejected=GOOD["chosen"])), TOKENIZER, bad_rows="skip")
    with pytest.raises(InputError, match="no usable pair in 0 rows"):
        read_pairs(write(tmp_path / "b"), TOKENIZER)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_pairs(tmp_path / "absent", TOKENIZER)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="did you mean 'skip'"):
        read_pairs([GOOD], TOKENIZER, bad_rows="skipp")
    with pytest.raises(InputError, match="must be at least 1 and below max_length=4"):
        read_pairs([GOOD], TOKENIZER, max_length=4, max_prompt_length=4)


def test_conversations_without_a_template_are_refused() -> None:
    plain = tiny_tokenizer()
    plain.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        read_pairs([{"prompt": conversation("a"), "chosen": conversation("a"), "rejected": conversation("b")}], plain)


def test_a_dataset_is_read_like_a_list() -> None:
    datasets = pytest.importorskip("datasets")
    assert read_pairs(datasets.Dataset.from_list([GOOD]), TOKENIZER) == read_pairs([GOOD], TOKENIZER)


@pytest.mark.parametrize("wrong", [
    {"prefix": (1,), "chosen": (2,), "rejected": (3,), "prompt_length": 0},
    {"prefix": (1,), "chosen": (2,), "rejected": (3,), "prompt_length": 2},
    {"prefix": (1,), "chosen": (), "rejected": (3,), "prompt_length": 1},
    {"prefix": (1,), "chosen": (2, 4), "rejected": (2, 3), "prompt_length": 1},
])  # fmt: skip
def test_a_pair_that_breaks_its_own_rules_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Pair(**wrong)


def conversation(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 9, texts, strict=False)]


def test_the_implicit_prompt_is_the_longest_common_prefix_in_tokens() -> None:
    """ "cats" and "cat" share three letters, but the tokens after "the" differ or not as the whole texts say."""
    pair = one({"chosen": "the cat sat on the mat", "rejected": "the cat ran"})
    first, second = [*ids("the cat sat on the mat"), 2], [*ids("the cat ran"), 2]
    shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert shared >= len(ids("the cat"))
    assert (list(pair.prefix), pair.prompt_length) == (first[:shared], shared)
    assert (list(pair.chosen), list(pair.rejected)) == (first[shared:], second[shared:])


def test_the_implicit_prompt_of_conversations_is_whole_messages() -> None:
    start = ("the cat", "sat", "the dog")
    row = {"chosen": conversation(*start, "sat on the mat"), "rejected": conversation(*start, "sat on a mat", "and", "ran")}
    explicit = {"prompt": conversation(*start), "chosen": row["chosen"][3:], "rejected": row["rejected"][3:]}
    assert one(row) == one(explicit)


@pytest.mark.parametrize(("row", "reason"), [
    ({"chosen": "the", "rejected": "a"}, "there is no 'prompt'"),
    ({"chosen": "<s>the", "rejected": "<s>a"}, "without a prompt, chosen and rejected must begin alike"),
    ({"chosen": conversation("a"), "rejected": conversation("b")}, "must begin alike"),
    ({"chosen": conversation("a"), "rejected": conversation("a", "b")}, "is the beginning of the other"),
    ({"chosen": conversation("a"), "rejected": "a"}, "must be all texts or all lists"),
    ({"promt": "the", "chosen": "the cat", "rejected": "the dog"}, "key 'prompt' is missing; is it what is called 'promt'"),
])  # fmt: skip
def test_an_implicit_prompt_that_is_none_is_a_bad_row(row: dict[str, Any], reason: str) -> None:
    assert reason in str(outcome(row))


def test_a_csv_is_read_like_a_list(tmp_path: Path) -> None:
    path = tmp_path / "pairs.CSV"
    rows = [GOOD, {**GOOD, "prompt": 'the "cat",\nand the dog'}]
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # as spreadsheets write it
        writer = csv.DictWriter(file, ["id", "rejected", "chosen", "prompt"])
        writer.writeheader()
        writer.writerows({"id": number, **row} for number, row in enumerate(rows))
    limit = csv.field_size_limit()
    assert read_pairs(path, TOKENIZER) == read_pairs([{"id": "0", **row} for row in rows], TOKENIZER)
    assert csv.field_size_limit() == limit


BAD_CSV = {
    "fields": (b"the,cat", "has 2 fields, the header 3"),
    "empty": (b"the,,dog", "'chosen' is empty"),
    "not UTF-8": (b"the,\xff,dog", "not UTF-8"),
    "quotes": (b'the,"cat"s,dog', "not CSV"),
    "huge": (b"the,%b,dog" % (b"a" * 1_000_001), "more than 1000000 characters"),
    "larger": (b"the,%b,dog" % (b"a" * 2_000_000), "not CSV (field larger than field limit (1000001))"),
    "conversation": (b"\"[{'role': 'user'}]\",\"[{'role': 'a'}]\",\"[{'content': 'b'}]\"", "conversations written as texts"),
}


@pytest.mark.parametrize(("kind", "name"), [*(("jsonl", name) for name in BAD), *(("csv", name) for name in BAD_CSV)])
def test_a_bad_row_is_named_with_number_and_reason(kind: str, name: str, tmp_path: Path) -> None:
    row, reason = (BAD if kind == "jsonl" else BAD_CSV)[name]
    header, good = ((), line()) if kind == "jsonl" else ((b"prompt,chosen,rejected",), b"the, cat, dog")
    path = write(tmp_path / f"pairs.{kind}", *header, good, b"", row, good)
    with pytest.raises(InputError) as caught:
        read_pairs(path, TOKENIZER)
    assert str(caught.value).startswith(f"{path}: row 3: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    pairs, summary = read_pairs(path, TOKENIZER, bad_rows="skip")
    assert (len(pairs), summary.rows, summary.kept, sum(summary.skipped.values())) == (2, 3, 2, 1)
    assert "1 skipped" in str(summary)


@pytest.mark.parametrize(("header", "reason"), [
    ("prompt,chosen", "column 'rejected' is missing"),
    ("promt,chosen,rejected", "column 'prompt' is missing; is it what is called 'promt'"),
    ("prompt,chosen,rejected,chosen", "column 'chosen' appears twice"),
    ('prompt,"chosen"x,rejected', "header: not CSV"),
    ("", "column 'chosen' is missing"),
])  # fmt: skip
def test_a_table_without_its_columns_is_refused_even_when_skipping(header: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"pairs.csv: {reason}"):
        read_pairs(write(tmp_path / "pairs.csv", header.encode(), b"a,b,c"), TOKENIZER, bad_rows="skip")


def test_parquet_is_read_like_a_list(tmp_path: Path) -> None:
    talk = {"prompt": conversation("the cat"), "chosen": conversation("", "sat")[1:], "rejected": conversation("", "ran")[1:]}
    for rows in ([GOOD, {**GOOD, "prompt": "the dog"}] * 600, [talk]):
        rows = [{"id": number, **row} for number, row in enumerate(rows)]
        path = write_rows(tmp_path / "pairs.parquet", rows)
        assert read_pairs(path, TOKENIZER) == read_pairs(rows, TOKENIZER)


def test_parquet_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.parquet", [GOOD, {**GOOD, "chosen": None}])
    with pytest.raises(InputError, match="row 2: 'chosen' must be a text or a list of messages, not NoneType"):
        read_pairs(path, TOKENIZER)
    write_rows(path, [{"prompt": "a", "chosen": "b"}])
    with pytest.raises(InputError, match="column 'rejected' is missing"):
        read_pairs(path, TOKENIZER)
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match="is not Parquet that can be read"):
        read_pairs(path, TOKENIZER)


def test_parquet_without_its_reader_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "pairs.parquet", b"PAR1")
    with pytest.raises(InputError, match=r"is Parquet, which needs pyarrow \(extra: lm\)"):
        read_pairs(path, TOKENIZER)
