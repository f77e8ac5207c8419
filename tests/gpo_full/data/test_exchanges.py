"""What people's layouts mean, by pairs written out by hand; and pairs in which something stands twice or nowhere."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpo_full.data.pairs import Pair, read_pairs
from gpo_theory import InputError
from tests.support.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
Talk = list[dict[str, Any]]


def turns(*texts: str, first: str = "user") -> Talk:
    """Messages of the user and the assistant, one after the other."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def answer(text: str) -> Talk:
    return turns(text, first="assistant")


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def ids(*texts: str) -> list[int]:
    """The ids of a conversation as the template of `tiny_tokenizer` writes it, of the user's and the assistant's texts."""
    return written("".join(f"<s>{role}\n{text}</s>" for role, text in zip(("user", "assistant") * 9, texts, strict=False)))


def written(text: str) -> list[int]:
    return TOKENIZER(text)["input_ids"]


def whole(pair: Pair) -> tuple[list[int], list[int]]:
    return tuple(list(pair.prompt + response) for response in pair.responses)  # type: ignore[return-value]


def read(row: dict[str, Any], **options: Any) -> tuple[Pair, Any]:
    (pair,), summary = read_pairs([row], TOKENIZER, **options)
    return pair, summary


ASKED, SAT, RAN = "where is the cat", "on the mat", "with a dog"
THREE = (ASKED, "on a list", "is it so")
CHATS = {"chosen": turns(ASKED, SAT), "rejected": turns(ASKED, RAN)}
SHAREGPT = {"user": "human", "assistant": "gpt"}


def sharegpt(talk: Talk) -> Talk:
    return [{"from": SHAREGPT[message["role"]], "value": message["content"]} for message in talk]


# Layout -> the row, options, and the user's and the assistant's texts before the answers.
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "TRL, explicit": ({"prompt": turns(ASKED), "chosen": answer(SAT), "rejected": answer(RAN)}, {}, (ASKED,)),
    "TRL, implicit": (CHATS, {}, (ASKED,)),
    "UltraFeedback": ({"prompt": ASKED, "prompt_id": "f0", **CHATS, "messages": CHATS["chosen"], "score_chosen": 8.0,
                       "score_rejected": 3.0}, {}, (ASKED,)),
    "Tulu": ({"id": "a", "source": "b", **CHATS, "prompt": ASKED}, {}, (ASKED,)),
    "prompt repeated": ({"prompt": turns(ASKED), **CHATS}, {}, (ASKED,)),
    "several turns": ({"prompt": turns(*THREE), "chosen": turns(*THREE, SAT), "rejected": turns(*THREE, RAN)}, {}, THREE),
    "several turns, a text": ({"prompt": ASKED, "chosen": turns(*THREE, SAT), "rejected": turns(*THREE, RAN)}, {}, THREE),
    "end of the prompt repeated": ({"prompt": turns(*THREE), "chosen": turns(THREE[2], SAT), "rejected": turns(THREE[2], RAN)}, {}, THREE),
    "text and answers": ({"prompt": ASKED, "chosen": answer(SAT), "rejected": answer(RAN)}, {}, (ASKED,)),
    "messages and texts": ({"prompt": turns(*THREE), "chosen": SAT, "rejected": RAN}, {}, THREE),
    "one message": ({"prompt": turns(ASKED), "chosen": answer(SAT)[0], "rejected": answer(RAN)[0]}, {}, (ASKED,)),
    "ShareGPT": ({"conversations": sharegpt(turns(*THREE)), "chosen": sharegpt(answer(SAT))[0], "rejected": sharegpt(answer(RAN))[0]},
                 {"columns": {"prompt": "conversations"}}, THREE),
    "parts": ({key: [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in talk]
               for key, talk in CHATS.items()}, {}, (ASKED,)),
    "answers begin alike": ({"chosen": turns(ASKED, SAT, "why", "so"), "rejected": turns(ASKED, SAT, "why", "no")}, {}, (ASKED, SAT, "why")),
    "written as JSON": ({"prompt": json.dumps(turns(ASKED)), "chosen": json.dumps(answer(SAT)), "rejected": json.dumps(answer(RAN))}, {}, (ASKED,)),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_conversation_that_it_means(layout: str) -> None:
    row, options, before = LAYOUTS[layout]
    pair, summary = read(row, **options)
    last = ("so", "no") if layout == "answers begin alike" else (SAT, RAN)
    assert whole(pair) == (ids(*before, last[0]), ids(*before, last[1]))
    assert list(pair.prompt) == [*ids(*before), *written("<s>assistant\n")]
    repeats = layout in ("UltraFeedback", "Tulu", "several turns, a text") or "repeated" in layout or layout == "several turns"
    assert summary.mended == ({"with a prompt that both responses repeat": 1} if repeats else {})
    if layout == "UltraFeedback":
        assert summary.unused == ["prompt_id", "messages", "score_chosen", "score_rejected"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
def test_a_system_prompt_goes_first(layout: str, name: str) -> None:
    row, options, before = LAYOUTS[layout]
    pair, summary = read({**row, name: "be short"}, **options)
    expected = written("<s>system\nbe short</s>") + ids(*before)
    assert list(pair.prompt) == [*expected, *written("<s>assistant\n")]
    assert name not in summary.unused
    assert read({**row, name: ""}, **options)[0] == read({**row, name: None}, **options)[0] == read(row, **options)[0]


def test_a_system_prompt_that_is_there_already_counts_once() -> None:
    row = {"prompt": [system("be short"), *turns(ASKED)], "chosen": answer(SAT), "rejected": answer(RAN)}
    assert read({**row, "system": "be short"})[0] == read(row)[0]
    with pytest.raises(InputError, match="the column of the system prompt has another text"):
        read({**row, "system": "be long"})


def test_a_question_that_both_responses_begin_with_belongs_to_the_prompt() -> None:
    pair, summary = read({"prompt": [system("be short")], **CHATS})
    assert list(pair.prompt) == [*written("<s>system\nbe short</s>"), *ids(ASKED), *written("<s>assistant\n")]
    assert (whole(pair)[0][-len(ids(ASKED, SAT)) :], summary.mended) == (ids(ASKED, SAT), {})


def test_texts_of_orca_are_system_question_and_answer() -> None:
    row = {"system": "be short", "question": "where\n", "chosen": SAT, "rejected": RAN}
    pair, summary = read(row, columns={"prompt": "question"})
    assert whole(pair) == tuple([*written(f"be short\n\nwhere\n{text}"), 2] for text in (SAT, RAN))
    assert list(pair.prompt) == written("be short\n\nwhere\n")
    assert summary.unused == []
    own, _ = read(row, columns={"prompt": "{system}: {question}"})  # it does not stand twice
    assert whole(own)[0] == [*written(f"be short: where\n{SAT}"), 2]


def test_rows_of_hh_are_what_both_texts_begin_with() -> None:
    start = "\n\nHuman: where is the cat\n\nAssistant:"
    pair, summary = read({"chosen": f"{start} sat", "rejected": f"{start} ran"})
    assert TOKENIZER.decode(pair.prompt) == start
    assert whole(pair)[0] == [*written(f"{start} sat"), 2]
    assert (summary.mended, summary.unused) == ({}, [])


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(str.strip)


@settings(deadline=None, max_examples=60)
@given(TEXT.filter(lambda text: len(text) >= 8), TEXT, TEXT)
def test_a_text_that_both_responses_repeat_counts_once(prompt: str, chosen: str, rejected: str) -> None:
    begins = [" ".join(text.split()).startswith(" ".join(prompt.split())) for text in (chosen, rejected)]
    if chosen == rejected or any(begins):
        return
    plain = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    try:
        expected = read_pairs([plain], TOKENIZER)[0]
    except InputError:  # of no token in common
        return
    found, summary = read_pairs([{"prompt": prompt, "chosen": prompt + chosen, "rejected": prompt + rejected}], TOKENIZER)
    assert found == expected
    assert sum(summary.mended.values()) == 1
    # One response that begins so is an answer that repeats the question.
    one, summary = read_pairs([{**plain, "chosen": prompt + chosen}], TOKENIZER)
    assert whole(one[0])[0] == [*written(prompt + prompt + chosen), 2]
    assert summary.mended == {"with a prompt that one of the responses repeats, trained as a part of it": 1}


def test_a_short_text_begins_both_responses_by_chance() -> None:
    pair, summary = read({"prompt": "1", "chosen": "11", "rejected": "12"})
    assert (whole(pair)[0], summary.mended) == ([*written("111"), 2], {})


@pytest.mark.parametrize("ends", [
    (turns("why", SAT), turns("how", RAN)),  # the user asks on in other words
    ([{"role": "tool", "content": "3"}, *answer(SAT)], answer(RAN)),
])  # fmt: skip
def test_an_implicit_prompt_ends_before_an_answer(ends: tuple[Talk, Talk]) -> None:
    """What both answer first belongs to both responses, as what both begin with."""
    pair, _ = read({key: turns(ASKED, "so") + end for key, end in zip(("chosen", "rejected"), ends, strict=True)})
    explicit, _ = read({"prompt": turns(ASKED), **{key: answer("so") + end for key, end in zip(("chosen", "rejected"), ends, strict=True)}})
    assert pair == explicit
    assert list(pair.prompt) == [*ids(ASKED), *written("<s>assistant\n")]


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "one repeats": ({"prompt": turns(ASKED), "chosen": turns(ASKED, SAT), "rejected": answer(RAN)}, "the first message of the response in 'chosen' is of 'user'"),
    "another question": ({"prompt": turns(ASKED), "chosen": turns("b", SAT), "rejected": turns("c", RAN)},
                         "'prompt' ends with a message of the user, and the responses begin with another"),
    "another shared question": ({"prompt": turns("z"), "chosen": turns("q", SAT), "rejected": turns("q", RAN)},
                                "'prompt' ends with a message of the user, and the responses begin with another"),
    **{f"prompt {prompt!r}": ({"prompt": prompt, **CHATS}, "'prompt' is none of the user's messages with which both responses begin, or has more")
       for prompt in ("where is the dog", f"The cat sat on a mat.\n\nQuestion: {ASKED}", f"{ASKED} now", "w", "the cat", f"{ASKED} {SAT}")},
    "last is the user's": ({"prompt": turns(ASKED), "chosen": answer(SAT), "rejected": turns(RAN, "and", first="assistant")},
                           "the last message of the response in 'rejected' is of 'user', not of 'assistant'"),
    "last is a tool's": ({"prompt": turns(ASKED), "chosen": [*answer(SAT), {"role": "tool", "content": "3"}], "rejected": answer(RAN)},
                         "the last message of the response in 'chosen' is of 'tool'"),
    "role of nobody": ({"prompt": turns(ASKED), "chosen": [{"role": "bot", "content": SAT}], "rejected": answer(RAN)}, "is of 'bot'"),
    "prompt answered": ({"prompt": turns(ASKED, "so"), "chosen": answer(SAT), "rejected": answer(RAN)}, "'prompt' ends with a message of the assistant"),
    "no response": ({"prompt": turns(ASKED), "chosen": turns(ASKED), "rejected": turns(ASKED, RAN)}, "the first message of the response in 'chosen' is of 'nobody'"),
    "empty response": ({"prompt": turns(ASKED), "chosen": answer(" \n"), "rejected": answer(RAN)}, "a message of role 'assistant' in 'chosen' is empty"),
    "empty question": ({"prompt": turns(""), "chosen": answer(SAT), "rejected": answer(RAN)}, "a message of role 'user' in 'prompt' is empty"),
    "null response": ({"prompt": turns(ASKED), "chosen": [{"role": "assistant", "content": None}], "rejected": answer(RAN)},
                      "'chosen' must hold messages whose content is a text, not NoneType"),
    "no content": ({"prompt": turns(ASKED), "chosen": [{"role": "assistant"}], "rejected": answer(RAN)}, "with a role and a content, not with 'role'"),
    "a text": ({"prompt": [{"role": "user", "text": ASKED}], "chosen": answer(SAT), "rejected": answer(RAN)}, "not with 'role', 'text'"),
    "null content": ({"prompt": turns(ASKED), "chosen": [{"role": "assistant", "content": None}], "rejected": answer(RAN)}, "whose content is a text, not NoneType"),
    "rows below": ({"data": [{"prompt": "a", "chosen": "b", "rejected": "c"}]}, "the rows are in the list 'data': save that list alone"),
    "other columns": ({"question": "a", "response_a": "b"}, "there are 'question', 'response_a'"),
    "picture": ({"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what"}]}], "chosen": answer(SAT),
                 "rejected": answer(RAN)}, "'prompt' holds a message with a part 'image', and training is on text alone"),
    "equal conversations": ({"chosen": turns(ASKED, SAT), "rejected": turns(ASKED, SAT)}, "chosen and rejected are equal"),
    "kinds": ({"prompt": ASKED, "chosen": SAT, "rejected": answer(RAN)}, "must be all texts or all lists of messages"),
    "system": ({"system": ["be short"], "prompt": ASKED, "chosen": SAT, "rejected": RAN}, "'system' must be a text, not list"),
    "Python's text": ({key: str(talk) for key, talk in CHATS.items()}, "conversations written as texts"),
}  # fmt: skip


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_pair_is_a_bad_row(fault: str) -> None:
    row, reason = MALFORMED[fault]
    with pytest.raises(InputError) as caught:
        read_pairs([CHATS, row], TOKENIZER)
    assert str(caught.value).startswith("data: row 2: ")
    assert reason in str(caught.value)
    pairs, summary = read_pairs([CHATS, row], TOKENIZER, bad_rows="skip")
    assert (len(pairs), sum(summary.skipped.values())) == (1, 1)


@pytest.mark.parametrize("role", ["system", "developer", "tool"])
def test_an_empty_message_of_some_roles_is_ordinary(role: str) -> None:
    prompt = [{"role": role, "content": ""}, *turns(ASKED)]
    pair, _ = read({"prompt": prompt, "chosen": answer(SAT), "rejected": answer(RAN)})
    assert list(pair.prompt) == [*written(f"<s>{role}\n</s>"), *ids(ASKED), *written("<s>assistant\n")]


QUESTION = "What is the capital of France?"


@pytest.mark.parametrize(("prompt", "begins"), [
    (QUESTION + "\n", QUESTION + " "), (QUESTION, " " + QUESTION + " "), (QUESTION.replace(" ", "\r\n"), QUESTION.replace(" ", "\n") + "\n"),
    ("Human: " + QUESTION + "\n\nAssistant:", "\n\nHuman: " + QUESTION + "\n\nAssistant:"), ("<s>" + QUESTION, QUESTION), (QUESTION, "<s>" + QUESTION),
])  # fmt: skip
def test_a_repeated_text_is_seen_whatever_its_white_space_and_its_beginning(prompt: str, begins: str) -> None:
    pair, summary = read({"prompt": prompt, "chosen": begins + " Paris", "rejected": begins + " Rome"})
    text = TOKENIZER.decode(pair.prefix + pair.chosen)
    assert text.count("capital") == 1
    assert "Paris" in text
    assert summary.mended["with a prompt that both responses repeat"] == 1


@pytest.mark.parametrize(("prompt", "chosen", "rejected", "said"), [
    (QUESTION, "Paris", QUESTION + " Rome", "with a prompt that one of the responses repeats, trained as a part of it"),
    ("2+2=", "2+2=4", "2+2=5", "with a prompt of less than 8 characters with which both responses begin, left in them"),
    (QUESTION, "<s>Paris", "<s>Rome", "with a second beginning-of-sequence token"),
    (QUESTION, f"### Human: {QUESTION} ### Assistant: Paris", f"### Human:\n{QUESTION}\n### Assistant: Rome", "with a prompt that both responses have further on"),
    (QUESTION, "Paris</s> and more", "Rome", "with special tokens written in their texts"),
])  # fmt: skip
def test_what_may_be_meant_is_counted(prompt: str, chosen: str, rejected: str, said: str) -> None:
    pair, summary = read({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert summary.mended == {said: 1}
    assert TOKENIZER.decode(pair.prefix + pair.chosen).count("<s>") == 0


@pytest.mark.parametrize(("prompt", "shared"), [
    (ASKED, turns(ASKED)), (f" {ASKED}\n", turns(ASKED)), (ASKED, turns(f"Answer in brief.\n\n{ASKED}")), (ASKED, turns(f"{ASKED}\n\nAnswer in brief.")),
    ("Be kind.\n\nwhere is\nthe cat", [system("Be kind."), *turns(ASKED)]), (ASKED, turns(ASKED, "there", "and the dog")),
    ("and the dog", turns(ASKED, "there", "and the dog")),
])  # fmt: skip
def test_a_prompt_that_the_messages_say_is_theirs(prompt: str, shared: Talk) -> None:
    alone, _ = read({"chosen": [*shared, *answer(SAT)], "rejected": [*shared, *answer(RAN)]})
    pair, summary = read({"prompt": prompt, "chosen": [*shared, *answer(SAT)], "rejected": [*shared, *answer(RAN)]})
    assert (pair, summary.mended) == (alone, {"with a prompt that both responses repeat": 1})


Z = system("Be kind.")
SAID = "with a prompt that both responses repeat"


@pytest.mark.parametrize(("prompt", "begins"), [
    (turns(ASKED), [Z, *turns(ASKED)]), ([Z, *turns(ASKED)], [Z, *turns(ASKED)]), (turns(*THREE), [Z, *turns(*THREE)]),
    (turns(ASKED), [{"role": "developer", "content": "Be kind."}, *turns(ASKED)]),
])  # fmt: skip
def test_a_system_message_of_the_conversations_alone_goes_first_and_once(prompt: Talk, begins: Talk) -> None:
    pair, summary = read({"prompt": prompt, "chosen": [*begins, *answer(SAT)], "rejected": [*begins, *answer(RAN)]})
    alone, _ = read({"chosen": [*begins, *answer(SAT)], "rejected": [*begins, *answer(RAN)]})
    assert (pair, summary.mended) == (alone, {SAID: 1})


@pytest.mark.parametrize("row", [
    {"prompt": [system("Be rude."), *turns(ASKED)], "chosen": [Z, *turns(ASKED, SAT)], "rejected": [Z, *turns(ASKED, RAN)]},
    {"prompt": turns("z"), "chosen": [Z, *turns(ASKED, SAT)], "rejected": [Z, *turns(ASKED, RAN)]},
])  # fmt: skip
def test_a_system_message_in_the_middle_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="begin with a system message, and do not go on with the messages of 'prompt'"):
        read(row)


@pytest.mark.parametrize("row", [
    {"prompt": ASKED, "chosen": json.dumps(answer(SAT)), "rejected": json.dumps(answer(RAN))},
    {"prompt": json.dumps(turns(ASKED)), "chosen": SAT, "rejected": RAN},
    {"prompt": turns(ASKED), "chosen": json.dumps(answer(SAT)), "rejected": json.dumps(answer(RAN))},
    {"prompt": ASKED, "chosen": json.dumps(turns(ASKED, SAT)), "rejected": json.dumps(turns(ASKED, RAN))},
    {"prompt": json.dumps(turns(ASKED)[0]), "chosen": json.dumps(answer(SAT)[0]), "rejected": json.dumps(answer(RAN)[0])},
    {"prompt": turns(ASKED), "chosen": f"{ASKED} {SAT}", "rejected": f"{ASKED} {RAN}"},
])  # fmt: skip
def test_conversations_in_some_columns_alone_are_read(row: dict[str, Any]) -> None:
    text = TOKENIZER.decode(whole(read(row)[0])[0])
    assert text.count(ASKED) == 1
    assert "[{" not in text
    assert "role" not in text


@pytest.mark.parametrize(("row", "reason"), [
    ({"prompt": ASKED, "chosen": str(answer(SAT)), "rejected": str(answer(RAN))}, "conversations written as texts that are no JSON"),
    ({"prompt": ASKED, "chosen": json.dumps(answer(SAT)), "rejected": "[]"}, "must be all texts or all lists of messages"),
    ({"system": json.dumps(Z), "prompt": ASKED, "chosen": SAT, "rejected": RAN}, "'system' is a message written as a text"),
    ({"chosen": "\n\nHuman: How to bake bread?\n\nAssistant: Yes", "rejected": "\n\nHuman: How to bake a cake?\n\nAssistant: No"},
     "chosen and rejected differ before the assistant answers"),
])  # fmt: skip
def test_what_would_be_trained_as_it_is_written(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(row)


def test_a_system_prompt_that_the_text_begins_with_counts_once() -> None:
    row = {"prompt": f"Be kind.\n\n{ASKED}", "chosen": SAT, "rejected": RAN}
    assert read({**row, "system": "Be kind."})[0] == read(row)[0]


def test_turns_in_the_texts_of_hh_and_of_tools_are_counted() -> None:
    said = {"whose responses have turns of others than the assistant, which are trained as parts of them": 1}
    begun = "\n\nHuman: Hi\n\nAssistant:"
    assert read({"chosen": f"{begun} a\n\nHuman: why\n\nAssistant: b", "rejected": f"{begun} c"})[1].mended == said
    assert read({"chosen": f"{begun} a", "rejected": f"{begun} c"})[1].mended == {}
    tool = [{"role": "assistant", "content": "look"}, {"role": "tool", "content": "3"}, *answer(SAT)]
    assert read({"prompt": turns(ASKED), "chosen": tool, "rejected": answer(RAN)})[1].mended == said


def test_rows_of_two_kinds() -> None:
    plain, none = {"prompt": ASKED, "chosen": SAT, "rejected": RAN}, {"chosen": "Same a", "rejected": "Same b"}
    with pytest.raises(InputError, match="row 2: key 'prompt' is there, and the rows before do not have it"):
        read_pairs([none, plain], TOKENIZER)
    assert read_pairs([plain, {"prompt": turns(ASKED), **CHATS}], TOKENIZER)[1].mended["of texts, without the chat template that the others have"] == 1
    assert "of texts, without the chat template that the others have" not in read_pairs([plain, plain], TOKENIZER)[1].mended


@pytest.mark.parametrize(("chosen", "rejected"), [
    (turns(SAT, "why", "so", first="assistant"), answer(RAN)), (answer(SAT), turns(RAN, "why", "so", first="assistant")),
])  # fmt: skip
def test_turns_of_the_user_in_a_response_are_counted(chosen: Talk, rejected: Talk) -> None:
    for row in ({"prompt": turns(ASKED), "chosen": chosen, "rejected": rejected},
                {"chosen": [*turns(ASKED), *chosen], "rejected": [*turns(ASKED), *rejected]}):  # fmt: skip
        pair, summary = read(row)
        assert summary.mended == {"whose responses have turns of others than the assistant, which are trained as parts of them": 1}
        assert list(pair.prompt) == [*ids(ASKED), *written("<s>assistant\n")]
    assert read({"prompt": turns(ASKED), "chosen": answer(SAT), "rejected": answer(RAN)})[1].mended == {}


@pytest.mark.parametrize("text", ["on</s>", "on<s>user"])
@pytest.mark.parametrize("place", ["prompt", "chosen", "rejected"])
def test_special_tokens_in_messages_are_counted(place: str, text: str) -> None:
    row = {"prompt": turns(ASKED), "chosen": answer(SAT), "rejected": answer(RAN)}
    row[place] = turns(text) if place == "prompt" else answer(text)
    assert read(row)[1].mended == {"with special tokens written in their texts": 1}


def test_what_a_chat_template_wrote_is_no_special_token_too_many() -> None:
    begun = f"<s>user\n{ASKED}</s><s>assistant\n"
    assert read({"prompt": begun, "chosen": "on the mat</s>\n", "rejected": "with a dog</s>"})[1].mended == {}
    assert read({"prompt": begun, "chosen": "on</s> the", "rejected": "with a dog"})[1].mended == {"with special tokens written in their texts": 1}


def test_a_system_prompt_goes_behind_the_beginning_of_the_sequence() -> None:
    pair, _ = read({"system": "Sys", "prompt": "<s>Hi", "chosen": " a", "rejected": " b"})
    assert TOKENIZER.decode(pair.prompt) == "<s>Sys\n\nHi"


def test_a_text_that_ends_with_the_end_and_a_line_ends_once() -> None:
    pair, _ = read({"prompt": "the cat", "chosen": " sat</s>\n", "rejected": " ran</s>"})
    assert pair.chosen[-1] == 2
    assert [*pair.chosen].count(2) == 1


def test_a_row_without_the_prompt_that_others_have_is_a_bad_row() -> None:
    rows = [{"prompt": QUESTION, "chosen": "a", "rejected": "b"}, {"chosen": "The a", "rejected": "The b"}]
    with pytest.raises(InputError, match="row 2: key 'prompt' is missing, and the rows before have it"):
        read_pairs(rows, TOKENIZER)
    assert len(read_pairs(rows[1:], TOKENIZER)[0]) == 1


def test_messages_of_sharegpt_keep_their_other_fields_and_roles() -> None:
    from gpo_full.data.exchanges import exchange_of

    turn = {"from": "human", "value": "Which?", "weight": 1}
    answer = [{"from": "gpt", "value": "This."}]
    found = exchange_of({"prompt": [{"from": "critic", "value": "Be short."}, turn], "chosen": answer, "rejected": [{"from": "gpt", "value": "That."}]})
    assert found.prompt == [{"role": "critic", "content": "Be short."}, {"role": "user", "content": "Which?", "weight": 1}]
    assert found.chosen == [{"role": "assistant", "content": "This."}]
    mixed = {"role": "user", "from": "mail", "content": "Which?"}
    assert exchange_of({"prompt": [mixed], "chosen": answer, "rejected": "That."} | {"rejected": [{"role": "assistant", "content": "That."}]}).prompt == [mixed]


@pytest.mark.parametrize(("first", "column", "refused"), [("Be short.", "Be long.", True), ("Be short. ", "Be short.", False), ("", "Be short.", False)])
def test_two_system_prompts_are_one_or_refused(first: str, column: str, refused: bool) -> None:
    from gpo_full.data.exchanges import BadRow, exchange_of

    answers = {key: [{"role": "assistant", "content": key}] for key in ("chosen", "rejected")}
    row = {"system": column, "prompt": [{"role": "system", "content": first}, {"role": "user", "content": "Which?"}], **answers}
    if refused:
        with pytest.raises(BadRow, match="begins with a system message, and the column"):
            exchange_of(row)
    else:
        assert exchange_of(row).prompt == [{"role": "system", "content": column}, {"role": "user", "content": "Which?"}]


def other_forms(talk: Talk) -> dict[str, Talk]:
    return {
        "another key first": [{"id": 1, **each} for each in talk], "content first": [dict(reversed(each.items())) for each in talk],
        "sharegpt": sharegpt(talk), "a nested value": [{"meta": {"a": ["}", "{"]}, **each} for each in talk],
    }  # fmt: skip


@pytest.mark.parametrize("form", other_forms([]))
def test_conversations_as_json_texts_are_conversations_whatever_their_keys(form: str) -> None:
    row = {"prompt": turns("the cat"), "chosen": answer("sat"), "rejected": answer("ran")}
    as_text = {key: json.dumps(other_forms(talk)[form]) for key, talk in row.items()}
    pairs, summary = read_pairs([as_text, row], tiny_tokenizer())
    assert pairs[0] == pairs[1]
    assert not [text for text in summary.mended if "texts" in text]


@pytest.mark.parametrize("make", [
    lambda text: json.dumps(text), lambda text: json.dumps([text]), lambda text: json.dumps(json.dumps(answer(text))),
    lambda text: json.dumps({"messages": answer(text)}), lambda text: json.dumps({"content": text}),
])  # fmt: skip
def test_responses_that_are_other_json_are_counted(make: Any) -> None:
    rows = [{"prompt": "the cat ", "chosen": make("sat"), "rejected": make("ran")}]
    summary = read_pairs(rows, tiny_tokenizer())[1]
    assert summary.mended == {"whose responses are JSON, trained as texts": 1}
    assert not read_pairs([{"prompt": "the cat ", "chosen": '"sat" he', "rejected": "[ran"}], tiny_tokenizer())[1].mended


@pytest.mark.parametrize(("role", "known"), [("Human", "user"), ("USER", "user"), ("human", "user"), ("System", "system"), ("observation", "tool")])
@pytest.mark.parametrize("key", ["role", "from"])
def test_a_role_is_the_one_of_chat_templates(role: str, known: str, key: str) -> None:
    def row(name: str, key: str) -> dict[str, Any]:
        value = {"role": "content", "from": "value"}[key]
        message = {key: name, value: "mat"}
        prompt = [message, *turns("the cat")] if known == "system" else [*turns("the cat"), message]
        return {"prompt": prompt, "chosen": answer("sat"), "rejected": answer("ran")}

    assert read(row(role, key)) == read(row(known, "role"))
