"""Columns under the names of the data: mapped, used, named as not used, and never taken for what they are not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpo_full import GPOConfig
from gpo_full.cli.options.messages import with_options
from gpo_full.cli.options.training import columns_of
from gpo_full.data.columns import Columns
from gpo_full.data.pairs import read_pairs
from gpo_full.data.pairs_on_disk import pair_table
from gpo_full.evaluation.tasks import Task, read_tasks
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
GOOD = {"prompt": "the cat sat", "chosen": " on the mat", "rejected": " on a dog"}
ANSWERS = {"chosen": "the cat sat", "rejected": "the dog ran"}
TALK = [{"role": "user", "content": "the cat"}]


@pytest.mark.parametrize(("typed", "meant"), [
    (r"{a}\n{b}", "{a}\n{b}"), (r"{a}\t{b}", "{a}\t{b}"), (r"{a}\\n", r"{a}\n"), (r"{a}\\\t", "{a}\\\t"), (r"{a}\d", r"{a}\d"),
])  # fmt: skip
def test_what_a_shell_cannot_type_in_a_template(typed: str, meant: str) -> None:
    assert columns_of([f"prompt={typed}"]) == {"prompt": meant}


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def talks(first: str = "the cat") -> dict[str, Any]:
    return {key: [said("user", first), said("assistant", text)] for key, text in ANSWERS.items()}


@pytest.mark.parametrize(("names", "row"), [
    ({"prompt": "question"}, {"question": "the cat sat", "chosen": " on the mat", "rejected": " on a dog"}),
    ({"prompt": "q q", "chosen": "good", "rejected": "bad"}, {"q q": "the cat sat", "good": " on the mat", "bad": " on a dog"}),
    ({"chosen": "rejected", "rejected": "chosen"}, {"prompt": "the cat sat", "chosen": " on a dog", "rejected": " on the mat"}),
    ({"prompt": "{a} {b}"}, {"a": "the", "b": "cat sat", "chosen": " on the mat", "rejected": " on a dog"}),
    ({"prompt": "{a}{b}"}, {"a": "the cat sat", "b": None, "chosen": " on the mat", "rejected": " on a dog"}),
    ({"chosen": " {good}"}, {"prompt": "the cat sat", "good": "on the mat", "rejected": " on a dog"}),
    ({"prompt": "question"}, {"prompt": "is not used", "question": "the cat sat", "chosen": " on the mat", "rejected": " on a dog"}),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ""])
def test_a_mapped_column_is_the_column(names: dict[str, str], row: dict[str, Any], suffix: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / f"pairs{suffix}", [row]) if suffix else [row]
    found, summary = read_pairs(source, TOKENIZER, columns=names)
    assert found == read_pairs([GOOD], TOKENIZER)[0]
    assert summary.unused == ["prompt"] * (row.get("prompt") == "is not used")


@given(*[st.text(max_size=9)] * 2, *[st.text(st.characters(exclude_characters="{}$%"), max_size=5)] * 3)
@example("x", "", "", "\x85", "").via("what stands before an empty last field")
def test_a_template_is_the_texts_in_their_places(a: str, b: str, first: str, second: str, third: str) -> None:
    found = Columns({"prompt": f"{first}{{a}}{second}{{b_2}}{third}"}).renamed({"a": a, "b_2": b, "c": "c"})
    between = second if b or third else second.rstrip()  # what separates an empty last field is left out
    assert found == {"c": "c", "prompt": first + a + between + b + third}


def test_a_template_reads_columns_and_nothing_else() -> None:
    found = Columns({"prompt": "{topic.__class__} {0!r} {topic}"}).renamed({"topic": "{a}", "a": "b"})
    assert found["prompt"] == "{topic.__class__} {0!r} {a}"


@pytest.mark.parametrize(("names", "reason"), [
    ({"promt": "question"}, r"columns: 'promt' is none of prompt, chosen, .*; did you mean 'prompt'\?"),
    ({"prompt": ""}, "columns: 'prompt' must be the name of a column or a template, not ''"),
    ({"prompt": 3}, "columns: 'prompt' must be the name of a column or a template, not 3"),
    (["prompt"], "must be a mapping"),
    *(({"prompt": f"Ask: {other}"}, f"columns: 'prompt': a template has a column as {{question}}, not {re.escape(other)}")
      for other in ("{{question}}", "{{ question }}", "${question}", "%(question)s", "{ question }")),
])  # fmt: skip
def test_a_mapping_that_means_nothing_is_refused(names: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        read_pairs([GOOD], TOKENIZER, columns=names)
    with pytest.raises(InputError, match=reason):
        GPOConfig(output_dir=str(tmp_path), columns=names)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_column_that_is_not_there_is_named_with_its_nearest(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"pairs{suffix}", [{"question": "the", **ANSWERS}])
    with pytest.raises(InputError, match=r"column 'questoin' is missing; did you mean 'question'\?"):
        read_pairs(path, TOKENIZER, columns={"prompt": "questoin"})


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(("others", "named", "option"), [
    ({"question": "Which?"}, "'question'", "--columns prompt=question"),
    ({"system": "Help.", "question": "Which?"}, "'system', 'question'", "--columns prompt=question"),
    ({"instruction": "Answer.", "input": "Which?"}, "'instruction', 'input'", r"--columns 'prompt={instruction}\n{input}'"),
    ({"instruction": "Answer.", "input": ""}, "'instruction'", r"--columns 'prompt={instruction}\n{input}'"),
    ({"query": "Which?"}, "'query'", "--columns prompt=query"),
    ({"User_Query": "Which?"}, "'User_Query'", "--columns prompt=User_Query"),
    ({"userQuestion": "Which?"}, "'userQuestion'", "--columns prompt=userQuestion"),
    ({"context": "It is so.", "question_id": "7"}, "'context'", "--columns prompt=context"),
    ({"prompts": "Which?"}, "'prompts'", "--columns prompt=prompts"),
    ({"prompt_text": "Which?"}, "'prompt_text'", "--columns prompt=prompt_text"),
    ({"problem": "2 + 2"}, "'problem'", "--columns prompt=problem"),
    ({"system": "Help."}, "'system'", "--columns prompt=system"),
    ({"system_prompt": "Help."}, "'system_prompt'", "--columns prompt=system_prompt"),
])  # fmt: skip
def test_answers_alone_are_not_trained_on_where_a_column_may_hold_the_prompt(
    others: dict[str, str], named: str, option: str, suffix: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / f"pairs{suffix}", [{**others, **ANSWERS}])
    for bad_rows in ("fail", "skip"):  # it is no matter of a row
        with pytest.raises(InputError, match="there is no column 'prompt'") as caught:
            read_pairs(path, TOKENIZER, bad_rows=bad_rows)
        assert f"and {named} may hold it" in str(caught.value)
        assert with_options(str(caught.value)).endswith(option)
    # What the message says to type is taken.
    names = dict([option.removeprefix("--columns ").strip("'").replace("\\n", "\n").split("=")])
    pairs, _ = read_pairs(path, TOKENIZER, columns=names)
    asked = next((others[name] for name in others if name in option), "")
    assert asked in TOKENIZER.decode(pairs[0].prompt)


@pytest.mark.parametrize("name", ["messages", "conversations", "history", "chat_history"])
def test_a_conversation_beside_answers_is_the_prompt_when_it_is_named(name: str) -> None:
    row = {name: TALK, **ANSWERS}
    with pytest.raises(InputError, match=f"'{name}' may hold it.*columns={{'prompt': '{name}'}}"):
        read_pairs([row], TOKENIZER)
    replies = {key: [said("assistant", text)] for key, text in ANSWERS.items()}
    assert read_pairs([row], TOKENIZER, columns={"prompt": name})[0] == read_pairs([{"prompt": TALK, **replies}], TOKENIZER)[0]


@pytest.mark.parametrize("others", [
    {"id": "7", "source": "a", "score_chosen": 1.0}, {"prompt_id": "abc"}, {"question": ""}, {"context": None}, {"question_id": "q"},
    {"num_turns": 3}, {"input": 3}, {"message_tree_id": "x"}, {"chosen_model": "x", "topic": "tea"},
])  # fmt: skip
def test_the_implicit_prompt_is_taken_where_no_column_may_hold_it(others: dict[str, Any]) -> None:
    found, summary = read_pairs([{**others, **ANSWERS}], TOKENIZER)
    assert found == read_pairs([ANSWERS], TOKENIZER)[0]
    assert summary.unused == [*others]
    assert str(summary).endswith(f": {', '.join(others)}")


@pytest.mark.parametrize("others", [
    {"question": "the cat"}, {"messages": talks()["chosen"]}, {"messages": TALK}, {"instruction": "the cat", "source": "x"},
])  # fmt: skip
def test_a_column_that_repeats_the_conversation_adds_nothing(others: dict[str, Any]) -> None:
    found, summary = read_pairs([{**talks(), **others}], TOKENIZER)
    assert (found, summary.unused) == (read_pairs([talks()], TOKENIZER)[0], [*others])
    with pytest.raises(InputError, match=f"'{next(iter(others))}' may hold it"):
        read_pairs([{**talks("a mat"), **others}], TOKENIZER)


@pytest.mark.parametrize("name", ["image", "images", "audio", "audios", "video", "videos", "pixel_values", "Images"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_media_are_refused_by_name_unless_there_are_none(name: str, suffix: str, tmp_path: Path) -> None:
    for value in ("a.png", ["a.png"], [{"path": "a.png", "bytes": None}]):
        path = write_rows(tmp_path / f"pairs{suffix}", [GOOD | {name: type(value)()}, GOOD | {name: value}])
        with pytest.raises(InputError, match=f"row 2: column '{name}' is not empty, and training is on text alone"):
            read_pairs(path, TOKENIZER, bad_rows="skip")
    for empty in (None, [], ""):
        found, summary = read_pairs(write_rows(tmp_path / f"pairs{suffix}", [GOOD | {name: empty}]), TOKENIZER)
        assert (found, summary.unused) == (read_pairs([GOOD], TOKENIZER)[0], [name])


def test_every_column_that_is_not_used_is_named_once(tmp_path: Path) -> None:
    rows = [{**GOOD, "source": "a", "weight": 2, "score_chosen": i, "tools": [{"name": "x"}]} for i in range(3)]
    for suffix in (".jsonl", ".parquet"):
        _, summary = read_pairs(write_rows(tmp_path / f"pairs{suffix}", rows), TOKENIZER)
        assert str(summary) == "3 of 3 pairs, 3 with a weight, not used: source, score_chosen, tools"  # texts have no template


@pytest.mark.parametrize(("column", "said"), [
    ("history", "not used, though it may belong to the prompt: history"), ("userContext", "not used, though it may belong to the prompt: userContext"),
    ("winner", "not used, though it may say which response is better: winner"), ("is_swapped", "not used, though it may say which response is better: is_swapped"),
    ("labels", "not used, though it may say which response is better: labels"), ("source", "not used: source"), ("prompt_id", "not used: prompt_id"),
])  # fmt: skip
def test_columns_that_may_matter_are_named_apart(column: str, said: str) -> None:
    """A constant verdict, and what stands beside a column `prompt`, cannot be refused."""
    _, summary = read_pairs([{**GOOD, column: "b"}] * 2, TOKENIZER)
    assert str(summary).endswith(said)


def test_the_table_on_disk_knows_the_names(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.jsonl", [{"q": "the dog", "r": "the cat", **ANSWERS}])
    tables = [pair_table(path, TOKENIZER, folder=tmp_path, columns={"prompt": name}) for name in ("q", "r", "{q} {r}", "q")]
    assert len({table.path for table in tables}) == 3
    for table, prompt in zip(tables, ("the dog", "the cat", "the dog the cat", "the dog"), strict=True):
        assert list(table) == read_pairs([{"prompt": prompt, **ANSWERS}], TOKENIZER)[0]
        assert table.summary.unused == [name for name, text in (("q", "the dog"), ("r", "the cat")) if text not in prompt]


def test_prompts_to_sample_for_are_read_under_the_names_of_their_file(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "answer": "This."}, {"question": "Why?", "answer": ""}]
    for suffix in (".jsonl", ".csv", ".parquet", ".jsonl.gz"):
        path = write_rows(tmp_path / f"tasks{suffix}", rows)
        found = read_tasks(path, names={"prompt": "{question}\n", "target": "answer"})
        assert found == [Task("Which?\n", "This.", f"{path}: row 1"), Task("Why?\n", None, f"{path}: row 2")]
        assert len(read_tasks(path, 1, {"prompt": "question"})) == 1
    with pytest.raises(InputError, match="'chosen' is none of prompt, target"):
        read_tasks(path, names={"chosen": "answer"})
    with pytest.raises(InputError, match=r"column 'prompt' is missing|there is no column 'prompt'"):
        read_tasks(path)


def test_a_list_of_prompts_may_be_an_array(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text("\ufeff" + json.dumps([{"prompt": "a", "target": "b"}], indent=1), encoding="utf-8")
    assert [task.prompt for task in read_tasks(path)] == ["a"]


def test_one_column_is_not_two_of_ours() -> None:
    with pytest.raises(InputError, match=r"columns: 'good' is given as 'prompt' and as 'chosen'"):
        read_pairs([], TOKENIZER, columns={"prompt": "good", "chosen": "good"})


def test_what_separates_an_empty_last_field_is_left_out() -> None:
    rows = [{"i": "Add", "n": other, **ANSWERS} for other in ("", None, "1")]
    pairs, _ = read_pairs(rows, TOKENIZER, columns={"prompt": "{i}\n{n}"})
    assert [TOKENIZER.decode(pair.prompt) for pair in pairs] == ["Add", "Add", "Add\n1"]


@pytest.mark.parametrize("name", ["\u95ee\u9898", "user", "userText", "post_title", "Task"])
def test_a_column_in_other_letters_or_of_a_person_may_hold_the_prompt(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' may hold it"):
        read_pairs([{name: "Which?", **ANSWERS}], TOKENIZER)


@pytest.mark.parametrize(("names", "verdict", "values", "refused"), [
    ({"chosen": "response_0", "rejected": "response_1"}, "better_response_id", [0, 1], True),
    ({"chosen": "response_0", "rejected": "response_1"}, "better_response_id", [1, 1], False),
    ({"chosen": "response_0", "rejected": "response_1"}, "winner", ["model_a", "model_a", "model_b"], True),
    ({"chosen": "response_0"}, "preference", [1, 2], True), ({}, "preference", [1, 2], False),
    ({"chosen": "response_0", "rejected": "response_1"}, "label", [0, 1], False),
    ({"chosen": "preferred", "rejected": "response_1"}, "preferred", ["a", "b"], False),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_a_column_that_says_which_response_is_better(
    names: dict[str, str], verdict: str, values: list[Any], refused: bool, suffix: str, tmp_path: Path
) -> None:
    theirs = {name: names.get(name, name) for name in ("chosen", "rejected")}
    rows = [{"prompt": f"the cat {i} ", theirs["chosen"]: "sat on", theirs["rejected"]: "ran to", verdict: value} for i, value in enumerate(values)]
    path = write_rows(tmp_path / f"pairs.{suffix}", rows)
    if refused:
        with pytest.raises(InputError, match=f"column '{verdict}' is .* and may say which response is the better one, while 'columns' takes it"):
            read_pairs(path, TOKENIZER, columns=names)
    else:
        read_pairs(path, TOKENIZER, columns=names)


@pytest.mark.parametrize(("one", "other", "said"), [
    ("score_chosen", "score_rejected", True), ("chosen_rating", "rejected_rating", True), ("chosen-reward", "rejected-reward", True),
    ("chosen_length", "rejected_length", False), ("score", "rejected_score", False),
])  # fmt: skip
@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_a_chosen_response_that_the_data_rates_lower_is_counted(one: str, other: str, said: bool, suffix: str, tmp_path: Path) -> None:
    rows = [{**GOOD, one: high, other: low} for high, low in ((1.5, 2.5), (3, 2), (2, 2), (1, 5))]
    mended = read_pairs(write_rows(tmp_path / f"pairs.{suffix}", rows), TOKENIZER)[1].mended
    assert mended == ({f"whose '{one}' is below '{other}'": 2} if said else {})
