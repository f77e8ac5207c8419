"""Token ids are those of the tokenizer's own `apply_chat_template` on messages written by hand, whatever it is given."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import AddedToken, processors

from gpo_full.data.pairs import read_pairs
from gpo_full.training.resumption import data_hash
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_tokenizer

# As templates of models that call tools: they read tools, tool_calls, a name, and an option of the user's.
TOOLS = ("{% if tools %}tools {{ tools | tojson }}\n{% endif %}{% if think %}think\n{% endif %}"
         "{% for m in messages %}<s>{{ m.role }}{% if m.name is defined %} {{ m.name }}{% endif %}{{ '\\n' }}"
         "{% if m.content is defined %}{{ m.content }}{% endif %}"
         "{% if m.tool_calls is defined %}{% for c in m.tool_calls %}call {{ c.function.name }}{{ c.function.arguments | tojson }}"
         "{% endfor %}{% endif %}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}")  # fmt: skip
RAISING = ("{% if messages[0].role == 'system' %}{{ raise_exception('System role\nnot supported') }}{% endif %}"
           "{% for m in messages %}<s>{{ m.role + m.content | trim }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant{% endif %}")  # fmt: skip
DATED = "Today {{ strftime_now('%d %b %Y') }}, {{ strftime_now(\"%H:%M:%S\") }}{% for m in messages %}<s>{{ m.role }}{{ m.content }}</s>{% endfor %}"


def tokenizer(template: Any = TOOLS) -> Any:
    made = tiny_tokenizer()
    made.chat_template = template
    return made


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **others}


CALL = {"type": "function", "function": {"name": "tide_at", "arguments": {"port": "X"}}}
OTHER = {"type": "function", "function": {"name": "sum_of", "arguments": {"values": "1"}}}
TIDE = {"type": "function", "function": {"name": "tide_at", "parameters": {"type": "object", "properties": {"port": {"type": "string"}}}}}
SUM = {"type": "function", "function": {"name": "sum_of", "parameters": {"type": "object", "properties": {"values": {"type": "string"}}}}}
PLAIN = {"prompt": [user("the cat")], "chosen": [assistant("sat")], "rejected": [assistant("ran")]}
ABSENT = {"role": "assistant", "tool_calls": [CALL]}
ROWS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "tools": {**PLAIN, "tools": [TIDE, SUM]},
    "no tools": {**PLAIN, "tools": []},
    "null tools": {**PLAIN, "tools": None},
    "null call": {**PLAIN, "tools": [TIDE], "chosen": [assistant(None, tool_calls=[CALL])]},
    "call without content": {**PLAIN, "tools": [TIDE], "chosen": [ABSENT]},
    "empty call": {**PLAIN, "tools": [TIDE], "rejected": [assistant("", tool_calls=[OTHER, CALL])]},
    "two calls": {**PLAIN, "chosen": [assistant(None, tool_calls=[CALL])], "rejected": [assistant(None, tool_calls=[OTHER])]},
    "after a call": {**PLAIN, "prompt": [user("the cat"), assistant(None, tool_calls=[CALL]), {"role": "tool", "name": "tide_at", "content": ""}]},
    "call, result, answer": {**PLAIN, "chosen": [assistant(None, tool_calls=[CALL]), {"role": "tool", "content": "3"}, assistant("sat")]},
    "name": {**PLAIN, "prompt": [{**user("the cat"), "name": "dog"}]},
    "options": {**PLAIN, "chat_template_kwargs": {"think": True}},
    "both": {**PLAIN, "tools": [TIDE], "chat_template_kwargs": {"think": True, "other": 3}},
}  # fmt: skip


def by_hand(made: Any, row: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
    options = {"tools": row.get("tools") or None, **(row.get("chat_template_kwargs") or {}), "tokenize": True, "return_dict": True}

    def ids(messages: Any, generate: bool) -> list[int]:
        return list(made.apply_chat_template(messages, add_generation_prompt=generate, **options)["input_ids"])

    return ids(row["prompt"], True), ids(row["prompt"] + row["chosen"], False), ids(row["prompt"] + row["rejected"], False)


def found(made: Any, rows: Any, **options: Any) -> list[tuple[list[int], list[int], list[int]]]:
    pairs, _ = read_pairs(rows, made, **options)
    return [(list(pair.prompt), *(list(pair.prompt + response) for response in pair.responses)) for pair in pairs]


@pytest.mark.parametrize("name", ROWS)
def test_ids_are_those_of_the_template_on_the_whole_messages(name: str, tmp_path: Path) -> None:
    made, row = tokenizer(), ROWS[name]
    expected = by_hand(made, row)
    assert found(made, [row]) == [expected]
    assert found(made, write_rows(tmp_path / "pairs.jsonl", [row])) == [expected]
    for column in ("tools", "chat_template_kwargs"):
        assert found(made, [{**row, column: json.dumps(row[column])}] if column in row else [row]) == [expected]
    # An implicit prompt, and one that is repeated, have the same tools and options.
    talks = {key: row["prompt"] + row[key] for key in ("chosen", "rejected")}
    assert found(made, [{**row, **talks}]) == [expected]
    if row["prompt"][-1]["role"] == "user":
        assert found(made, [{key: value for key, value in (row | talks).items() if key != "prompt"}]) == [expected]


def test_rows_of_arrow_have_no_fields_that_are_null(tmp_path: Path) -> None:
    """Arrow gives every message `name` and `tool_calls`, and every tool and call the properties of all."""
    made = tokenizer()
    rows = [{"tools": None, "chat_template_kwargs": None, **row} for row in ROWS.values()]
    expected = [by_hand(made, row) for row in rows]
    assert found(made, write_rows(tmp_path / "pairs.parquet", rows)) == expected
    assert found(made, datasets.Dataset.from_list(rows)) == expected


@pytest.mark.parametrize(("row", "unused"), [
    ({**PLAIN, "tools": [TIDE]}, ["tools"]), ({**PLAIN, "chat_template_kwargs": {"think": True}}, ["chat_template_kwargs"]),
    ({**PLAIN, "tools": '[{"name": "x"}]', "chat_template_kwargs": {"x": 1}}, ["tools", "chat_template_kwargs"]),
])  # fmt: skip
def test_what_the_template_does_not_read_is_named_as_not_used(row: dict[str, Any], unused: list[str]) -> None:
    _, summary = read_pairs([row], tiny_tokenizer())
    assert summary.unused == unused
    assert read_pairs([row], tokenizer(TOOLS.replace("think", "x")))[1].unused == [name for name in unused if "think" in str(row)]


@pytest.mark.parametrize(("row", "reason"), [
    ({**PLAIN, "tools": "{"}, "'tools' is a text that is not JSON"),
    ({**PLAIN, "tools": {"name": "x"}}, "'tools' must be a list, not dict"),
    ({**PLAIN, "chat_template_kwargs": [1]}, "'chat_template_kwargs' must be an object, not list"),
    ({**PLAIN, "chat_template_kwargs": {"tokenize": False}}, "'chat_template_kwargs' may not set 'tokenize'"),
    ({**PLAIN, "chat_template_kwargs": {"add_generation_prompt": True}}, ".* may not set 'add_generation_prompt'"),
    ({**PLAIN, "tools": [3]}, "the chat template raises: Tools should either be a JSON schema"),
])  # fmt: skip
def test_columns_that_no_template_can_take_are_bad_rows(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=f"row 2: {reason}"):
        read_pairs([PLAIN, row], tokenizer())
    assert read_pairs([PLAIN, row], tokenizer(), bad_rows="skip")[1].kept == 1


def test_calls_that_the_template_does_not_write_are_not_trained_on_as_nothing() -> None:
    with pytest.raises(InputError, match="row 1: a message has tool_calls, and the chat template writes none"):
        read_pairs([ROWS["null call"]], tiny_tokenizer())


@pytest.mark.parametrize(("row", "reason"), [
    ({**PLAIN, "prompt": [{"role": "system", "content": "short"}, user("the cat")]}, "System role not supported"),
    ({**PLAIN, "system": "short"}, "System role not supported"),
    ({**PLAIN, "tools": [TIDE], "chosen": [ABSENT]}, "the chat template"),  # None + a text
])  # fmt: skip
def test_a_template_that_raises_is_a_bad_row_with_its_own_words(row: dict[str, Any], reason: str) -> None:
    made = tokenizer(RAISING)
    with pytest.raises(InputError, match=f"^data: row 2: .*{reason}") as caught:
        read_pairs([PLAIN, row], made)
    assert "\n" not in str(caught.value)
    pairs, summary = read_pairs([PLAIN, row, PLAIN], made, bad_rows="skip")
    assert (len(pairs), sum(summary.skipped.values())) == (2, 1)


def test_a_template_that_is_no_template_is_one_line() -> None:
    with pytest.raises(InputError, match="row 1: the chat template raises: ") as caught:
        read_pairs([PLAIN], tokenizer("{% for m in %}"))
    assert "\n" not in str(caught.value)


def test_responses_equal_after_the_template_are_not_too_long() -> None:
    row = {**PLAIN, "rejected": [assistant("sat\n\n")]}
    with pytest.raises(InputError, match="row 1: chosen and rejected are equal after the chat template, though"):
        read_pairs([row], tokenizer(RAISING))
    assert read_pairs([row], tokenizer())[1].kept == 1


def test_several_templates_are_named_and_one_is_taken_by_its_name() -> None:
    made = tokenizer({"rag": TOOLS, "plain": RAISING})
    with pytest.raises(InputError, match="several chat templates, plain, rag, and none is called default"):
        read_pairs([PLAIN], made, bad_rows="skip")
    row = {**PLAIN, "chat_template_kwargs": {"chat_template": "rag"}}
    assert found(made, [row]) == [by_hand(tokenizer(), PLAIN)]
    # As transformers chooses: the default, and that for tools where there are some.
    made.chat_template = {"default": RAISING, "tool_use": TOOLS}
    assert found(made, [PLAIN, ROWS["tools"]]) == [by_hand(tokenizer(RAISING), PLAIN), by_hand(tokenizer(), ROWS["tools"])]


def test_a_template_that_writes_the_time_is_the_same_on_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later:
        @staticmethod
        def now() -> Any:
            return datetime(2031, 1, 2, 3, 4, 5)

    made = tokenizer(DATED)
    before, summary = read_pairs([PLAIN], made)
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later)
    assert "02 Jan 2031, 03:04:05" in made.apply_chat_template(PLAIN["prompt"], tokenize=False)
    later, _ = read_pairs([PLAIN], made)
    assert data_hash(before) == data_hash(later)
    assert made.decode(later[0].prompt).startswith("Today 26 Jul 2024, 00:00:00<s>userthe cat")
    assert "1 with the chat template's time written as 26 Jul 2024" in str(summary)


def test_a_time_that_cannot_be_fixed_is_named() -> None:
    _, summary = read_pairs([PLAIN], tokenizer("{% set day = '%d' %}" + DATED.replace("'%d %b %Y'", "day")))
    assert {*summary.mended} == {"with the chat template's time written as 26 Jul 2024",
                                 "with a time of the chat template's that other days change"}  # fmt: skip


def adding_bos() -> Any:
    made = tokenizer("{{ bos_token }}" + TOOLS)
    made._tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return made


TWICE = {"with a second beginning-of-sequence token": 1}


@pytest.mark.parametrize(("row", "mended"), [
    ({"prompt": "<s>the cat", "chosen": " sat", "rejected": " ran"}, TWICE),
    ({"chosen": "<s>the cat sat", "rejected": "<s>the cat ran"}, TWICE),
    ({"prompt": "the cat", "chosen": " sat", "rejected": " ran"}, {}),
    ({"chosen": "the cat sat", "rejected": "the cat ran"}, {}),
])  # fmt: skip
def test_a_text_begins_once(row: dict[str, str], mended: dict[str, int]) -> None:
    (pair,), summary = read_pairs([row], adding_bos())
    plain = tiny_tokenizer()
    assert list(pair.prompt + pair.responses[0]) == [1, *plain("the cat sat")["input_ids"], 2]
    assert pair.prompt == (1, *plain("the cat")["input_ids"])
    assert summary.mended == mended


def test_a_conversation_begins_as_its_template_says() -> None:
    made = adding_bos()
    written = made.apply_chat_template(PLAIN["prompt"] + PLAIN["chosen"], tokenize=False)
    (pair,), summary = read_pairs([PLAIN], made)
    # Here the template writes one of its own and each message's: the two at the head are one.
    assert written.startswith("<s><s>user")
    assert list(pair.prompt + pair.responses[0]) == tiny_tokenizer()(written.removeprefix("<s>"))["input_ids"]
    assert summary.mended == TWICE


END = "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
EACH = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}" + END
ASK, DOG = user("the cat in the dog"), {"role": "system", "content": "the dog is on the mat"}
LEFT_OUT = {
    "system": (EACH.replace("%}<s>", "%}{% if m.role != 'system' %}<s>", 1).replace("</s>", "</s>{% endif %}", 1), [DOG, ASK], {}, "messages of 'system' whose text"),
    "thoughts": (EACH.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"), [ASK], assistant("<think>mat</think>sat"), "messages of 'assistant' whose text"),
    "capitals": (EACH.replace("m.content", "m.content | upper"), [ASK], {}, "messages of 'user' whose text"),
    "history": (EACH.replace("in messages", "in messages[-2:]"), [ASK, assistant("sat"), user("the mat")], {}, "writes otherwise when an answer"),
    "a mark at the end": (EACH.replace("</s>", "{% if loop.last %} the list{% endif %}</s>", 1), [ASK], {}, "writes otherwise when an answer"),
    "a count": ("the {{ messages | length }}" + EACH, [ASK], {}, "writes otherwise when an answer"),
    "a field named elsewhere": (TOOLS, [{**ASK, "tools": "tide"}], {}, "whose 'tools'"),
    "a field of the other role": (EACH.replace("{{ m.role }}", "{{ m.role }}{% if m.role == 'tool' %}{{ m.name }}{% endif %}"), [{**ASK, "name": "dog"}], {}, "whose 'name'"),
    "arguments": (TOOLS.replace("{{ c.function.arguments | tojson }}", ""), [ASK], assistant(None, tool_calls=[CALL]), "tool_calls whose arguments"),
    "a role": (EACH, [{**ASK, "role": "critic"}], {}, "messages of 'critic', a role"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_the_chat_template_leaves_out_or_changes_is_counted(name: str) -> None:
    template, prompt, chosen, said = LEFT_OUT[name]
    row = {"prompt": prompt, "chosen": [chosen or assistant("sat")], "rejected": [assistant("ran")]}
    mended = read_pairs([row, row], tokenizer(template))[1].mended
    assert [count for text, count in mended.items() if said in text] == [2], mended


@pytest.mark.parametrize("name", ROWS)
def test_what_the_chat_template_writes_is_not_counted(name: str) -> None:
    assert not [text for text in read_pairs([ROWS[name]], tokenizer())[1].mended if "template" in text]


@pytest.mark.parametrize("prompt", [
    [ASK, assistant(None, tool_calls=[CALL]), {"role": "tool", "content": 'the "cat"\n\n is'}], [user("  the cat\n\nin ")],
    [ASK, assistant(None, tool_calls=[{"function": {"name": "tide_at"}}]), {"role": "tool", "content": "mat"}],
    [DOG, ASK, assistant("<think>mat</think>\n\nsat"), ASK],
])  # fmt: skip
def test_white_space_json_and_places_are_the_template_s(prompt: list[Any]) -> None:
    template = TOOLS.replace("{{ c.function.arguments | tojson }}", "{{ c.function.arguments | default('') }}")
    template = template.replace("{{ m.content }}", "{% if m.role == 'tool' %}{{ m.content | tojson }}{% else %}{{ m.content | trim | replace('\n\n', '\n') }}{% endif %}")
    assert not read_pairs([{**PLAIN, "prompt": prompt}], tokenizer(template))[1].mended


def test_a_column_of_tools_is_used_where_it_is_written() -> None:
    of_messages = EACH.replace("{{ m.content }}", "{{ m.content }}{{ m.tools }}")
    row = {**PLAIN, "tools": [TIDE]}
    assert read_pairs([row], tokenizer(of_messages))[1].unused == ["tools"]
    assert read_pairs([row], tokenizer(TOOLS))[1].unused == []


HEAD = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}"
OPENS = "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
CHANGES = "with a prompt that the chat template writes otherwise when an answer follows"
ENDLESS, AFTER, OTHERWISE = ("whose answers the chat template ends without a special token",
                             "with text that the chat template writes after the end of the answers",
                             "whose answers do not begin as the chat template's generation prompt ends")  # fmt: skip


@pytest.mark.parametrize(("template", "said"), [
    (HEAD + "</s>\n{% endfor %}" + OPENS, []),
    (HEAD + "</s><s>{% endfor %}" + OPENS, []),  # several tokens end it
    (HEAD + "\n{% endfor %}" + OPENS, [ENDLESS]),
    (HEAD + "{% if not loop.last %}</s>{% endif %}{% endfor %}" + OPENS, [OTHERWISE, ENDLESS]),
    (HEAD + "</s>{% endfor %}the end", [CHANGES, AFTER]),
    (HEAD + "</s>{% endfor %}<s>assistant\n", [AFTER]),  # always, whether or not an answer is to be begun
    (HEAD + "</s>{% endfor %}" + OPENS.replace("\n", "\nwell: "), [OTHERWISE]),
    (HEAD + "</s>{% endfor %}" + OPENS.replace("\n", "\n{% if not plainly %}<s>\n{% endif %}"), [OTHERWISE]),
])  # fmt: skip
def test_answers_that_a_policy_would_not_begin_or_end_so(template: str, said: list[str]) -> None:
    _, summary = read_pairs([PLAIN, PLAIN | {"rejected": [assistant("the dog")]}], tokenizer(template))
    assert summary.mended == dict.fromkeys(said, 2)


def test_marks_without_a_role_of_their_own_are_special_too() -> None:
    """Tokens such as <|im_end|> are often added as special without a name as beginning or end."""
    made = tokenizer(HEAD + "</s>{% endfor %}" + OPENS)
    made.add_tokens([AddedToken("<|turn|>", special=True)])
    assert "<|turn|>" not in made.all_special_tokens
    rows = [PLAIN | {"chosen": [assistant("sat<|turn|>")]}, PLAIN | {"prompt": [user("<|turn|>the cat")]}, PLAIN]
    assert read_pairs(rows, made)[1].mended == {"with special tokens written in their texts": 2}
