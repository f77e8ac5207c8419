"""RELIABILITY's specifications 13 to 15 by number: margins gone wild, bad rows in every format, texts beyond the limits."""

import csv
import io
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from tokenizers import normalizers

from gpo_full import GPOTrainer
from gpo_full.data.file_formats import MAX_CHARACTERS
from gpo_full.data.pairs import Pair, PairSummary, read_pairs
from gpo_full.training.reporting.metrics import pair_metrics
from gpo_theory import LOSSES, InputError, to_numpy, to_torch
from tests.gpo_theory.lowering.test_lowering import truth
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, objects, trainer, weights
from tests.support.two_sequences import response_sums

# 13: margins up to 1e30, infinite, and NaN.

SIZES = [sign * 10.0**power for power in (3, 6, 10, 20, 30) for sign in (1, -1)]
SQUARES = ("cauchy", "canonical_boosting", "sqrt_hinge")
FADING = ("cauchit",)  # whose slope 1/(acot(y) (1 + y^2)), about 1/y, is 0 there
DTYPES = {"float64": (torch.float64, 1e-9), "float32": (torch.float32, 1e-5), "bfloat16": (torch.bfloat16, 1e-2)}


@cache
def expected(name: str, x: float) -> tuple[mp.mpf, mp.mpf]:
    """f and f' at x by mpmath, beyond a knee those of the tangent there."""
    value, slope, _ = truth(LOSSES[name], to_torch(LOSSES[name]).knees, x)
    return value, slope


@pytest.mark.parametrize("name", LOSSES)
def test_spec_13_margins_up_to_1e30_give_the_loss_or_its_tangent_and_a_finite_gradient(name: str) -> None:
    """The saturations: a value beyond the dtype's largest number is an infinity of the right sign; and in float32 the
    formulas of SQUARES are infinite beyond 2^63, where x^2 is, and the slopes of FADING are 0."""
    for dtype, tolerance in DTYPES.values():
        x = torch.tensor(SIZES, dtype=dtype, requires_grad=True)
        value = to_torch(LOSSES[name])(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        largest = torch.finfo(dtype).max
        for at, found, gradient in zip(x.tolist(), value.tolist(), slope.tolist(), strict=True):
            f, first = expected(name, at)
            where = f"{name}({at}) in {dtype}"
            saturated = name in SQUARES and dtype is not torch.float64 and abs(at) > 2**63
            if saturated:
                assert found == math.inf, where
            elif abs(f) > largest:
                assert found == (math.inf if f > 0 else -math.inf), where
            else:
                assert abs(found - f) <= tolerance * abs(f) + 1e-37, where
            assert math.isfinite(gradient), where
            if name in FADING and dtype is not torch.float64 and abs(at) > 2**63:
                assert gradient == 0, where
            elif not saturated:
                assert abs(gradient - first) <= tolerance * abs(first) + 1e-37, where


@pytest.mark.parametrize("name", LOSSES)
def test_spec_13_nan_stays_nan_and_infinity_is_the_limit_or_nan(name: str) -> None:
    f = to_torch(LOSSES[name])
    for dtype, tolerance in DTYPES.values():
        assert f(torch.tensor([0.0, math.nan], dtype=dtype))[1].isnan()
        for sign in (1, -1):
            found = float(f(torch.tensor(sign * math.inf, dtype=dtype)))
            far, half = (float(expected(name, sign * size)[0]) for size in (1e30, 1e15))
            towards = math.inf if far > 0 else -math.inf
            assert math.isnan(found) or found == pytest.approx(far, rel=tolerance, abs=1e-29) or (
                found == towards and abs(far) > 1.5 * abs(half))  # fmt: skip
    assert np.isnan(to_numpy(LOSSES[name])(np.array([math.nan]))).all()


@pytest.mark.parametrize("name", LOSSES)
def test_spec_13_no_loss_hides_a_margin_that_is_not_finite_from_the_metrics(name: str) -> None:
    """What a step is judged by: the sums over a batch in which one of two pairs is broken."""
    f = to_torch(LOSSES[name])
    for value in (math.inf, -math.inf, math.nan):
        ratios = torch.tensor([[0.3, 0.1], [value, 0.0]])
        x = (ratios[:, 0] - ratios[:, 1]).requires_grad_()
        (slope,) = torch.autograd.grad(f(x).sum(), x)
        assert not pair_metrics(f(x), slope, x, ratios, knees=f.knees).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_spec_13_a_flat_loss_trains_on_nothing_that_is_not_finite(value: float, tmp_path: Path) -> None:
    """The ramp loss is 0 or 2 far out, with slope 0: loss and gradient alone would look well."""
    made = trainer(tmp_path, tiny_model(), loss="ramp", per_device_train_batch_size=len(PAIRS))
    made.train_dataset.reference[3, 0] = value
    before = weights(made.model)
    made.train()
    (event,) = objects(tmp_path, name="events")
    assert (event["step"], event["event"]) == (1, "not finite, not applied")
    assert "margin" in event["quantities"]
    assert torch.equal(weights(made.model), before)
    assert objects(tmp_path) == []


# 14: rows that cannot be used.

TOKENIZER = tiny_tokenizer()
GOOD = {"prompt": "the cat sat", "chosen": " on the mat", "rejected": " on a dog"}
LONG = "a" * 10_000_000


def of_json(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def of_csv(*rows: Any) -> bytes:
    def line(row: Any) -> bytes:
        if isinstance(row, bytes):
            return row + b"\n"
        text = io.StringIO(newline="")
        csv.DictWriter(text, GOOD).writerow(row)
        return text.getvalue().encode()

    return b"".join(map(line, [dict(zip(GOOD, GOOD, strict=True)), *rows]))


def of_parquet(*rows: Any) -> bytes:
    """Texts are bytes without a check, as another writer may leave them; anything else gets a type of its own."""
    columns = {}
    for name in GOOD:
        values = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, str | bytes) for value in values):
            encoded = [value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value for value in values]
            array = pyarrow.array(encoded, pyarrow.binary())
            columns[name] = pyarrow.Array.from_buffers(pyarrow.string(), len(array), array.buffers())
        else:
            columns[name] = pyarrow.array(values)
    made = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), made)
    return made.getvalue()


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


FORMATS: dict[str, Callable[..., bytes]] = {"jsonl": of_json, "csv": of_csv, "parquet": of_parquet}
# Fault -> the row in each format that can hold it, and what is said.
BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"jsonl": {"prompt": "the", "chosen": " cat"}, "csv": b"the, cat", "parquet": changed(chosen=None)},
                "missing|has 2 fields, the header 3|'chosen' must be a text or a list of messages, not NoneType"),
    "wrong type": ({"jsonl": changed(chosen=3)}, "'chosen' must be a text or a list of messages, not int"),
    "empty": (dict.fromkeys(FORMATS, changed(rejected="")), "'rejected' is empty"),
    "blank": (dict.fromkeys(FORMATS, changed(chosen=" \t")), "'chosen' is empty"),
    "equal": (dict.fromkeys(FORMATS, changed(rejected=GOOD["chosen"])), "chosen and rejected are equal"),
    "10 MB": (dict.fromkeys(FORMATS, changed(prompt=LONG)), f"more than {MAX_CHARACTERS} characters|field larger"),
    "NUL": (dict.fromkeys(FORMATS, changed(chosen=" a\0b")), "contains a NUL character"),
    "lone surrogate": ({"jsonl": b'{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}',
                        "csv": b"the,\xed\xa0\x80,dog", "parquet": changed(chosen=b"\xed\xa0\x80")},
                       "lone surrogate|not UTF-8"),
    "byte order mark": ({"jsonl": b"\xef\xbb\xbf" + json.dumps(GOOD).encode()}, "begins with a byte order mark"),
    "not UTF-8": ({"jsonl": b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}', "csv": b"the,\xff,dog",
                   "parquet": changed(chosen=b"\xff\xfe")}, "not UTF-8"),
    "nested": ({"jsonl": changed(chosen={"text": "a"})}, "'chosen' must be a text or a list of messages, not dict"),
    "nested too deeply": ({"jsonl": b"[" * 200_000}, "not JSON"),
    "cut short": ({"jsonl": b'{"prompt": "the', "csv": b'the,"cat'}, "not JSON|not CSV"),
}  # fmt: skip
CASES = [(fault, kind) for fault, (rows, _) in BAD_ROWS.items() for kind in rows]


@pytest.mark.parametrize(("fault", "kind"), CASES)
def test_spec_14_a_bad_row_is_named_or_skipped_and_counted(fault: str, kind: str, tmp_path: Path) -> None:
    rows, reason = BAD_ROWS[fault]
    path = tmp_path / f"pairs.{kind}"
    last = fault == "cut short"  # what follows an open quote belongs to it
    path.write_bytes(FORMATS[kind](GOOD, rows[kind], *[GOOD] * (not last)))
    with pytest.raises(InputError, match=rf"^{path}: row 2: .*({reason})") as caught:
        read_pairs(path, TOKENIZER)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))
    pairs, summary = read_pairs(path, TOKENIZER, bad_rows="skip")
    good = 1 if last else 2
    assert pairs == read_pairs([GOOD] * good, TOKENIZER)[0]
    assert (summary.rows, summary.kept, sum(summary.skipped.values())) == (good + 1, good, 1)
    assert f"{good} of {good + 1} pairs, 1 skipped ({next(iter(summary.skipped))})" in str(summary)


@pytest.mark.parametrize(("column", "found"), [
    ([3, 4], "int"), ([{"text": "a"}, {"text": "b"}], "dict"), ([b"a", b"b"], "bytes"), ([[1], [2]], "messages with a role"),
])  # fmt: skip
def test_spec_14_a_parquet_column_of_another_type_is_named(column: list[Any], found: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    texts = pyarrow.array(["the cat", "the dog"])
    parquet.write_table(pyarrow.table({"prompt": texts, "chosen": pyarrow.array(column), "rejected": texts}), path)
    with pytest.raises(InputError, match=rf"row 1: .*{found}|row 1: prompt, chosen and rejected must be all texts"):
        read_pairs(path, TOKENIZER)
    with pytest.raises(InputError, match="no usable pair in 2 rows; most often: "):
        read_pairs(path, TOKENIZER, bad_rows="skip")


def test_spec_14_a_mark_at_the_head_of_a_csv_is_a_spreadsheet_s_and_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"\xef\xbb\xbf" + of_csv(GOOD))
    assert read_pairs(path, TOKENIZER) == read_pairs([GOOD], TOKENIZER)


# 15: texts beyond the limits.


def averaged(folder: Path, rows: list[dict[str, str]], **limits: Any) -> tuple[GPOTrainer, PairSummary]:
    """A trainer whose margin divides by the length of each response."""
    made = trainer(folder, tiny_model(dtype=torch.float64), rows, processing_class=TOKENIZER, bad_rows="skip",
                   margin="mean", loss="ipo", per_device_train_batch_size=8, **limits)  # fmt: skip
    return made, made.summaries["train"]


def test_spec_15_a_prompt_longer_than_the_limit_is_cut_counted_and_leaves_the_responses(tmp_path: Path) -> None:
    """5,000 tokens of prompt, 3 tokens in all, 2 of them prompt: one token for each response, and f(0) = 1."""
    rows = [
        {**GOOD, "prompt": "the cat " * 2500, "chosen": " mat"},
        {**GOOD, "chosen": " the mat", "rejected": " a dog"},
    ]
    made, summary = averaged(tmp_path, rows, max_length=3, max_prompt_length=2)
    assert (summary.kept, summary.prompts_truncated, summary.responses_truncated) == (2, 2, 4)
    pairs = [made.train_dataset[row][1] for row in range(2)]
    assert {len(response) for pair in pairs for response in pair.responses} == {1}
    assert {pair.prompt_length for pair in pairs} == {2}
    expected = response_sums(made.model, pairs, "mean")
    assert expected.isfinite().all()
    made.train()
    (first,) = objects(tmp_path)
    assert first["loss"] == pytest.approx(1.0, abs=1e-9)
    assert 0 < first["grad_norm"] < math.inf


def test_spec_15_responses_that_the_cut_makes_equal_are_counted_not_trained_on(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "chosen": " the mat", "rejected": " the dog"}]
    made, summary = averaged(tmp_path, [*rows, {**GOOD, "chosen": " mat"}], max_length=4, max_prompt_length=3)
    assert (summary.rows, summary.kept) == (3, 1)
    assert summary.skipped == {"the responses are equal within max_length=4 tokens": 2}
    made.train()
    assert objects(tmp_path)[0]["loss"] == pytest.approx(1.0, abs=1e-9)


def test_spec_15_a_response_of_no_token_is_a_bad_row_never_0_over_0() -> None:
    """A tokenizer without an end token that strips what it does not know may leave nothing of a response."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("~", "")
    rows = [{**GOOD, "chosen": "~~"}, {**GOOD, "rejected": "~"}, {**GOOD, "chosen": "~", "rejected": "~~"}, GOOD]
    pairs, summary = read_pairs(rows, tokenizer, bad_rows="skip")
    assert len(pairs) == 1
    assert all(pairs[0].responses)
    assert sum(summary.skipped.values()) == 3
    with pytest.raises(InputError):
        Pair((1, 2), (), (3,), prompt_length=2)
