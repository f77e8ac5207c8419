"""The review list: sentences that sound like a claim (a trigger word and a comparative) and carry no mark."""

__all__ = ["Answer", "answers", "review"]

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpo_full.book.prose import Sentence, page_sentences
from gpo_theory.errors import InputError, nearest

REASONS = {
    "definition": "it says what a word or symbol means",
    "setting": "it says what is done here",
    "instruction": "it asks the reader to do something",
    "convention": "it says how something is written",
    "reasoning": "it is a step between two marked claims",
    "repeated": "it says again what is marked elsewhere in the lesson",
    "computed": "it is written by a cell from the numbers of the run",
    "advice": "it recommends, and claims nothing that could be false",
    "wrong": "it is a mistake, shown as one",
    "scope": "it says what is not claimed",
}
_TRIGGER = re.compile(r"beta|β|\bKL|\btails?\b|convex|consisten|margin|gradient", re.IGNORECASE)
_COMPARATIVE = re.compile(
    r"\b(?:raises?|rises?|lowers?|larger|largest|smaller|smallest|higher|highest|equals?|never|always|every|no|none|more|"
    r"less|fewer|closer|farther|further|falls?|grows?|shrinks?|twice|half|double|same|nothing|cannot|only|all|both|not)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Answer:
    """Why a sentence of a page needs no mark; `reason` is one of REASONS."""

    page: str
    sentence: str
    reason: str


def answers(path: Path) -> tuple[Answer, ...]:
    """Return the answers of a TOML file: `[[answer]]` tables with `page`, `sentence` and `reason`."""
    found = tuple(Answer(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("answer", ()))
    for answer in found:
        if answer.reason not in REASONS:
            hint = nearest(answer.reason, REASONS)
            raise InputError(f"{path.name}: unknown reason {answer.reason!r}{hint}; allowed: {', '.join(REASONS)}")
    return tuple(Answer(answer.page, " ".join(answer.sentence.split()), answer.reason) for answer in found)


def review(pages: Sequence[Path], given: Sequence[Answer]) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    """Return (missing, stale): sentences that sound like a claim, without a reason; answers to no such sentence."""
    found = [(page.stem, one.text) for page in pages for one in page_sentences(page) if _sounds_like_a_claim(one)]
    answered = {(answer.page, answer.sentence) for answer in given}
    missing = tuple(Answer(page, text, "") for page, text in dict.fromkeys(found) if (page, text) not in answered)
    read = {page.stem for page in pages}
    stale = tuple(one for one in given if one.page in read and (one.page, one.sentence) not in found)
    return missing, stale


def _sounds_like_a_claim(one: Sentence) -> bool:
    asked = one.section.startswith("Prediction") or (one.section.startswith("True or false") and not one.folded)
    if one.marks or one.kind != "prose" or asked or one.text.endswith("?"):
        return False
    return bool(_TRIGGER.search(one.text) and _COMPARATIVE.search(one.text))
