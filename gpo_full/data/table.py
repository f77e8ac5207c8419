"""Pairs that stay on disk: tokenised once, memory-mapped, and read row by row like a list of pairs."""

__all__ = ["PairTable", "pair_table", "digests_of", "prompts_of", "sizes_of", "lengths_of", "numbers_of", "extent"]

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import numpy as np

from gpo_full.data.hub import fingerprint
from gpo_full.data.numbers import PairNumbers
from gpo_full.data.pairs import Pair, PairReader, PairSummary
from gpo_full.data.tensor_stream import Array, mapped, streamed
from gpo_full.files import cache_root
from gpo_full.output import progress
from gpo_theory.errors import InputError

# Part of every key: a change of meaning of what is stored changes it.
FORMAT = 3
# Rows whose place and digest are kept in memory until they are written.
ROWS = 4096


class PairTable(Sequence[Pair]):
    """The pairs of a file that `pair_table` wrote; only what a row holds is read, when it is asked for.

    `digests` [N, 32], `prompts` [N] (`Pair.prompt_key`), `numbers` [N, 4], `lengths` [N, 2], `sizes` [N] (tokens, a
    shared prefix once), `longest` (tokens of the longest sequence) and `largest_id` are known without reading a pair;
    `summary` says what became of the rows of the source. ValueError if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        tensors, metadata = mapped(path)
        self.path, self.digests, self.prompts = path, tensors["digests"], tensors["prompts"]
        self._ids, self._rows, self.numbers = tensors["ids"], tensors["rows"], tensors["numbers"]
        about = json.loads(metadata["table"])
        self.summary = PairSummary(**about["summary"])
        self.longest, self.largest_id = about["longest"], about["largest_id"]

    def __reduce__(self) -> tuple[type["PairTable"], tuple[Path]]:
        """A copy in another process maps the file again; an array would carry its contents."""
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def sizes(self) -> Array:
        """The number of distinct tokens of each pair, as `Pair.size`."""
        sizes: Array = self._rows[:, 2:].sum(1)
        return sizes

    @property
    def lengths(self) -> Array:
        """The numbers of tokens of both responses of each pair, [N, 2]."""
        lengths: Array = (self._rows[:, 2] - self._rows[:, 1])[:, None] + self._rows[:, 3:]
        return lengths

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        start, prompt_length, prefix, chosen, rejected = self._rows[index].tolist()
        ids = self._ids[start : start + prefix + chosen + rejected].tolist()
        ends = prefix, prefix + chosen
        weight, p, *reference = self.numbers[index].tolist()
        numbers = PairNumbers(weight, p, None if math.isnan(reference[0]) else (reference[0], reference[1]))
        return Pair(tuple(ids[: ends[0]]), tuple(ids[ends[0] : ends[1]]), tuple(ids[ends[1] :]), prompt_length, numbers)


def digests_of(pairs: Sequence[Pair]) -> Array:
    """Return `Pair.digest` of each pair, [N, 32] uint8."""
    if isinstance(pairs, PairTable):
        return pairs.digests
    return np.frombuffer(b"".join(pair.digest for pair in pairs), np.uint8).reshape(-1, 32)


def prompts_of(pairs: Sequence[Pair]) -> Array:
    """Return `Pair.prompt_key` of each pair, [N] int64."""
    return pairs.prompts if isinstance(pairs, PairTable) else np.array([pair.prompt_key for pair in pairs], "<i8")


def sizes_of(pairs: Sequence[Pair]) -> Array:
    """Return `Pair.size` of each pair, [N]."""
    return pairs.sizes if isinstance(pairs, PairTable) else np.array([pair.size for pair in pairs])


def lengths_of(pairs: Sequence[Pair]) -> Array:
    """Return the numbers of tokens of both responses of each pair, [N, 2]."""
    if isinstance(pairs, PairTable):
        return pairs.lengths
    return np.array([[len(response) for response in pair.responses] for pair in pairs])


def numbers_of(pairs: Sequence[Pair]) -> Array:
    """Return weight, p and log pi_ref of chosen and rejected response of each pair, [N, 4]; NaN where not given."""
    return pairs.numbers if isinstance(pairs, PairTable) else np.array([_numbers(pair) for pair in pairs], "<f8")


def _numbers(pair: Pair) -> tuple[float, ...]:
    weight, p, reference = pair.numbers
    return weight, p, *(reference or (math.nan, math.nan))


def extent(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Return the tokens of the longest sequence, and the largest token id."""
    if isinstance(pairs, PairTable):
        return pairs.longest, pairs.largest_id
    return max(pair.length for pair in pairs), max(map(_largest_id, pairs))


def _largest_id(pair: Pair) -> int:
    return max(*pair.prefix, *pair.chosen, *pair.rejected)


def pair_table(
    source: Any,
    tokenizer: Any,
    *,
    max_length: int = 1024,
    max_prompt_length: int = 512,
    bad_rows: str = "fail",
    folder: Path | None = None,
) -> PairTable:
    """Return the pairs of data on disk as `read_pairs` reads them, in a table in `folder` (default: in the cache).

    `source` is a file, or what else `is_on_disk` knows. The table's name is a hash of its contents, the tokenizer, the
    truncation and `bad_rows`: it is written by the first run that needs it, whole or not at all, and never holds more
    than a few rows in memory. One that is damaged is said to be, and written again. InputError as from `read_pairs`.
    """
    reader = PairReader(source, tokenizer, max_length=max_length, max_prompt_length=max_prompt_length,
                        bad_rows=bad_rows)  # fmt: skip
    folder = cache_root() / "pairs" if folder is None else folder
    made_from = [FORMAT, *_contents(source), _tokenizer_hash(tokenizer), max_length, max_prompt_length, bad_rows]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    path = folder / f"pairs-{key[:32]}.safetensors"
    if path.exists():
        try:
            return PairTable(path)
        except (ValueError, KeyError, TypeError) as error:
            print(f"{path.name} is damaged ({error}); tokenising the data again", file=sys.stderr)
    _write(reader, path)
    return PairTable(path)


def _write(reader: PairReader, path: Path) -> None:
    longest = largest = start = 0
    rows: list[list[int]] = []
    digests: list[bytes] = []
    prompts: list[int] = []
    numbers: list[tuple[float, ...]] = []
    with streamed(path) as stream:

        def flush() -> None:
            stream.append("rows", np.array(rows, "<i8").reshape(-1, 5))
            stream.append("digests", np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32))
            stream.append("prompts", np.array(prompts, "<i8"))
            stream.append("numbers", np.array(numbers, "<f8").reshape(-1, 4))
            for written in (rows, digests, prompts, numbers):
                written.clear()

        for pair in progress(reader, "tokenising"):
            ids = (*pair.prefix, *pair.chosen, *pair.rejected)
            stream.append("ids", np.array(ids, "<i4"))
            rows.append([start, pair.prompt_length, len(pair.prefix), len(pair.chosen), len(pair.rejected)])
            digests.append(pair.digest)
            prompts.append(pair.prompt_key)
            numbers.append(_numbers(pair))
            start += len(ids)
            longest, largest = max(longest, pair.length), max(largest, _largest_id(pair))
            if len(rows) == ROWS:
                flush()
        flush()
        about = {"summary": asdict(reader.summary), "longest": longest, "largest_id": largest}
        stream.metadata["table"] = json.dumps(about)


def _contents(source: Any) -> list[Any]:
    """A hash of what is in the data, and of a file the suffixes by which it is read."""
    try:
        suffixes = Path(source).suffixes[-2:] if isinstance(source, str | Path) else []
        return [fingerprint(source), suffixes]
    except OSError as error:
        raise InputError(f"{str(source)!r} cannot be read: {error.strerror or error}") from None


def _tokenizer_hash(tokenizer: Any) -> str:
    """A hash of the files that the tokenizer would be saved as: whatever changes its output is in them."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as name:
        tokenizer.save_pretrained(name)
        for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()
