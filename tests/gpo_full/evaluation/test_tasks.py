"""Prompts to evaluate on are read as training reads them, and become the tokens of a training's prompt."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpo_full.data.pairs import read_pairs
from gpo_full.evaluation.tasks import read_tasks
from gpo_theory import InputError
from tests.support.tables import write_rows
from tests.support.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
USER = [{"role": "user", "content": "Which bird?"}]
ANSWERS = {"chosen": [{"role": "assistant", "content": "This."}], "rejected": [{"role": "assistant", "content": "That."}]}


def adding() -> Any:
    """A tokenizer that adds the beginning of a sequence."""
    from tokenizers.processors import TemplateProcessing

    found = tiny_tokenizer()
    found.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", found.bos_token_id)])
    return found


@pytest.mark.parametrize("row", [
    {"prompt": USER}, {"prompt": USER, "system": "Be short."}, {"prompt": json.dumps(USER)}, {"prompt": [{"from": "human", "value": "Which bird?"}]},
    {"prompt": "Which bird?"}, {"prompt": "Which bird?", "system": "Be short."}, {"prompt": "<s>Which bird?"},
])  # fmt: skip
@pytest.mark.parametrize("tokenizer", [TOKENIZER, adding()], ids=["plain", "adding"])
def test_a_prompt_has_the_tokens_that_training_gives_it(row: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    """The text may end in a token that goes on into the response, so one that both responses begin with is added."""
    (task,) = read_tasks(write_rows(tmp_path / "tasks.jsonl", [{**row, "target": "a"}]))
    found = tokenizer(task.as_text(tokenizer).prompt)["input_ids"]
    texts = isinstance(row["prompt"], str) and not row["prompt"].startswith("[")
    answers = {key: value[0]["content"] for key, value in ANSWERS.items()} if texts else ANSWERS
    answers = {key: json.dumps(value) for key, value in answers.items()} if row["prompt"] == json.dumps(USER) else answers
    (pair,), _ = read_pairs([{**row, **answers}], tokenizer)
    assert tuple(found) == pair.prompt
    assert found.count(tokenizer.bos_token_id) <= 3  # of a template, one a message


def test_a_row_whose_prompt_is_elsewhere_names_the_mapping(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "tasks.jsonl", [{"question": "Which bird?", "target": "a"}])
    with pytest.raises(InputError, match=r"row 1: there is no column 'prompt', and 'question' may hold it"):
        read_tasks(path)
    assert read_tasks(path, names={"prompt": "question"})[0].prompt == "Which bird?"


@pytest.mark.parametrize(("rows", "said"), [
    ([{"prompt": "a bird", "context": "long", "notes": "b"}], "not used, though it may belong to the prompt: context, not used: notes"),
    ([{"prompt": USER, "tools": [{"name": "f"}], "system": "Be short."}], "not used: tools"),
    ([{"prompt": "a bird", "system": "Be short."}], ""),
    ([{"prompt": USER}, {"prompt": json.dumps(USER)}], ""),
    ([{"prompt": USER}, {"prompt": "a bird"}, {"prompt": json.dumps(USER)}], "1 of 3 prompts are texts, without the chat template"),
])  # fmt: skip
def test_what_no_prompt_is_made_of_and_texts_among_messages_are_named(
    rows: list[dict[str, Any]], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_tasks(write_rows(tmp_path / "tasks.jsonl", [{**row, "target": "a"} for row in rows]))
    assert caplog.text.count("tasks.jsonl: ") == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize("prompt", ['{"content": "a bird"}', '["a bird"]', '{"role": "a bird"}'])
def test_a_prompt_of_other_json_is_a_text(prompt: str, tmp_path: Path) -> None:
    assert read_tasks(write_rows(tmp_path / "tasks.jsonl", [{"prompt": prompt, "target": "a"}]))[0].prompt == prompt
