"""Pairs on disk: tokenized once, memory-mapped, read row by row like a list of pairs."""

__all__ = ["PairTable", "pair_table", "digests_of", "prompt_keys_of", "sizes_of", "response_lengths_of",
           "optional_columns_of", "largest_length_and_id"]  # fmt: skip

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from gpo_full.data.pairs import Pair, PairReader, PairSummary
from gpo_full.data.sources import fingerprint
from gpo_full.data.tensor_files import Array, memory_mapped, tensor_writer
from gpo_full.files import cache_root
from gpo_full.output import progress
from gpo_full.source_hash import code_hash
from gpo_theory.errors import InputError

# Pairs that are held in memory while a table is written: a few MiB at 2,048 tokens each.
ROWS = 256


class PairTable(Sequence[Pair]):
    """The pairs of a file that `pair_table` wrote; indexing reads the tokens of one pair.

    Known without reading tokens: `digests` [N, 32], `prompt_keys` [N], `optional_columns` [N, 4] (weight, p and both
    reference log-probabilities), `shapes` [N, 4] (prompt_length, and the sizes of prefix, chosen and rejected),
    `largest_id`, and the `summary` of the rows that were read. Raises ValueError if the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        tensors, metadata = memory_mapped(path)
        self.path, self.digests, self.prompt_keys = path, tensors["digests"], tensors["prompts"]
        # [N, 5]: where the tokens of a pair begin in `_ids`, and its shape
        self._ids, self._rows, self.optional_columns = tensors["ids"], tensors["rows"], tensors["numbers"]
        self.shapes = self._rows[:, 1:]
        about = json.loads(metadata["table"])
        self.summary, self.largest_id = PairSummary(**about["summary"]), about["largest_id"]

    def __reduce__(self) -> tuple[type["PairTable"], tuple[Path]]:
        """Pickle as the path: the other process maps the file too, instead of being sent the arrays."""
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        start, prompt_length, prefix, chosen, rejected = self._rows[index].tolist()
        ids = tuple(self._ids[start : start + prefix + chosen + rejected].tolist())
        weight, p, *reference = self.optional_columns[index].tolist()
        stated = None if math.isnan(reference[0]) else (reference[0], reference[1])
        middle = prefix + chosen
        return Pair(ids[:prefix], ids[prefix:middle], ids[middle:], prompt_length, weight, p, stated)


def digests_of(pairs: Sequence[Pair]) -> Array:
    """Return `Pair.digest` of each pair, [N, 32] uint8."""
    if isinstance(pairs, PairTable):
        return pairs.digests
    return np.frombuffer(b"".join(pair.digest for pair in pairs), np.uint8).reshape(-1, 32)


def prompt_keys_of(pairs: Sequence[Pair]) -> Array:
    """Return `Pair.prompt_key` of each pair, [N] int64."""
    return pairs.prompt_keys if isinstance(pairs, PairTable) else np.array([pair.prompt_key for pair in pairs], "<i8")


def sizes_of(pairs: Sequence[Pair]) -> Array:
    """Return `Pair.size` of each pair, [N]."""
    return np.asarray(_shapes_of(pairs)[:, 1:].sum(1))


def response_lengths_of(pairs: Sequence[Pair]) -> Array:
    """Return the numbers of tokens of both responses of each pair, [N, 2]."""
    prompts, prefixes, *others = _shapes_of(pairs).T
    return np.stack([prefixes - prompts + each for each in others], 1)


def _shapes_of(pairs: Sequence[Pair]) -> Array:
    if isinstance(pairs, PairTable):
        return pairs.shapes
    return np.array([(each.prompt_length, len(each.prefix), len(each.chosen), len(each.rejected)) for each in pairs])


def optional_columns_of(pairs: Sequence[Pair]) -> Array:
    """Return weight, p and log pi_ref of the chosen and the rejected response, [N, 4]; NaN where not stated."""
    if isinstance(pairs, PairTable):
        return pairs.optional_columns
    missing = math.nan, math.nan
    return np.array([[pair.weight, pair.p, *(pair.reference_log_probabilities or missing)] for pair in pairs], "<f8")


def largest_length_and_id(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Return the number of tokens of the longest sequence, and the largest token id."""
    shapes = _shapes_of(pairs)
    longest = int((shapes[:, 1] + shapes[:, 2:].max(1)).max())
    if isinstance(pairs, PairTable):
        return longest, pairs.largest_id
    return longest, max(max(*pair.prefix, *pair.chosen, *pair.rejected) for pair in pairs)


def pair_table(source: Any, tokenizer: Any, *, folder: Path | None = None, **options: Any) -> PairTable:
    """Return the pairs of data on disk as a table in `folder` (default: in the cache), written if it is not there.

    `source` is a file, or other data for which `is_on_disk` is true; `options` are those of `PairReader`. The table's
    name is a hash of the contents, the tokenizer, the options and the code that makes pairs. It is written whole or not
    at all, with at most ROWS pairs in memory; a damaged one is reported on stderr and written again. Raises InputError
    as `PairReader` does.
    """
    reader = PairReader(source, tokenizer, **options)
    made_from = [code_hash([__name__]), *_contents(source), _tokenizer_hash(tokenizer), reader.max_length,
                 reader.max_prompt_length, reader.bad_rows, reader.columns or {}]  # fmt: skip
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    path = (cache_root() / "pairs" if folder is None else folder) / f"pairs-{key[:32]}.safetensors"
    if path.exists():
        try:
            return PairTable(path)
        except (ValueError, KeyError, TypeError) as error:
            print(f"{path.name} is damaged ({error}); tokenizing the data again", file=sys.stderr)
    _write(reader, path)
    return PairTable(path)


def _write(reader: PairReader, path: Path) -> None:
    start, largest_id = 0, 0
    pairs = iter(progress(reader, "tokenizing"))
    with tensor_writer(path) as writer:
        while some := list(islice(pairs, ROWS)):
            ids = [(*pair.prefix, *pair.chosen, *pair.rejected) for pair in some]
            starts = start + np.cumsum([0, *map(len, ids)])
            writer.append("ids", np.concatenate([np.array(each, "<i4") for each in ids]))
            writer.append("rows", np.column_stack([starts[:-1], _shapes_of(some)]))
            writer.append("digests", digests_of(some))
            writer.append("prompts", prompt_keys_of(some))
            writer.append("numbers", optional_columns_of(some))
            start, largest_id = int(starts[-1]), max(largest_id, largest_length_and_id(some)[1])
        writer.metadata["table"] = json.dumps({"summary": asdict(reader.summary), "largest_id": largest_id})


def _contents(source: Any) -> list[Any]:
    """Return a hash of the data's contents and, of files, the suffixes by which their formats are chosen."""
    try:
        files = [source] if isinstance(source, str | Path) else getattr(source, "files", [])
        return [fingerprint(source), [Path(path).suffixes[-2:] for path in files]]
    except OSError as error:
        raise InputError(f"{str(source)!r} cannot be read: {error.strerror or error}") from None


def _tokenizer_hash(tokenizer: Any) -> str:
    """Return a hash of the files that the tokenizer is saved as, which hold whatever changes its output."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as name:
        tokenizer.save_pretrained(name)
        for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()
