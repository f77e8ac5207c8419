"""Tensor files that may exceed memory: written piece by piece as safetensors, and read where they lie."""

__all__ = ["TensorStream", "streamed", "mapped"]

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from gpo_full.files import atomic_file

Array = np.ndarray[Any, np.dtype[Any]]
# What safetensors calls the types that are written here.
NAMES = {"<f4": "F32", "<f8": "F64", "<i4": "I32", "<i8": "I64", "|u1": "U8"}
TYPES = {name: np.dtype(kind) for kind, name in NAMES.items()}
# Bytes that are hashed at a time, of a file that is mapped.
PIECE = 1 << 24


@dataclass
class _Part:
    file: IO[bytes]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    digest: Any
    length: int = 0


class TensorStream:
    """Named tensors that grow along their first dimension; `metadata` is written with them at the end."""

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        self.metadata: dict[str, str] = {}
        self._folder, self._open_files = folder, open_files
        self._parts: dict[str, _Part] = {}

    def append(self, name: str, values: Array) -> None:
        """Add `values`, [n, ...], to tensor `name`; its first piece decides the type and the other dimensions."""
        if name not in self._parts:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the stream
            self._open_files.enter_context(file)
            self._parts[name] = _Part(file, values.dtype, values.shape[1:], hashlib.sha256())
        part = self._parts[name]
        if (values.dtype, values.shape[1:]) != (part.dtype, part.shape):
            raise ValueError(f"{name}: {values.dtype}{values.shape} does not continue {part.dtype}{part.shape}")
        data = values.tobytes()
        part.file.write(data)
        part.digest.update(data)
        part.length += len(values)

    def write(self, target: Path) -> None:
        """Write header and tensors, the widest type first so that each is aligned."""
        parts = sorted(self._parts.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
        digests = {f"sha256 {name}": part.digest.hexdigest() for name, part in parts}
        header: dict[str, Any] = {"__metadata__": {**self.metadata, **digests}}
        end = 0
        for name, part in parts:
            start, end = end, end + part.file.tell()
            header[name] = {"dtype": NAMES[part.dtype.str], "shape": [part.length, *part.shape],
                            "data_offsets": [start, end]}  # fmt: skip
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with target.open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, part in parts:
                part.file.seek(0)
                shutil.copyfileobj(part.file, out, PIECE)


@contextmanager
def streamed(path: Path) -> Iterator[TensorStream]:
    """Yield a stream that becomes the safetensors file `path` at the end, whole or not at all; memory stays free.

    >>> import numpy as np
    >>> folder = getfixture("tmp_path")
    >>> with streamed(folder / "a.safetensors") as stream:
    ...     stream.append("x", np.array([1, 2]))
    ...     stream.append("x", np.array([3]))
    >>> mapped(folder / "a.safetensors")[0]["x"].tolist()
    [1, 2, 3]
    """
    with atomic_file(path) as temporary, ExitStack() as open_files:
        stream = TensorStream(path.parent, open_files)
        yield stream
        stream.write(temporary)


def mapped(path: Path) -> tuple[dict[str, Array], Mapping[str, str]]:
    """Return the tensors of a file that `streamed` wrote, memory-mapped and read-only, and its metadata.

    Every checksum is verified, in one pass over the file; ValueError if it is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:  # it checks that header and size agree
            metadata = file.metadata() or {}
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"not a safetensors file: {error}") from None
    arrays = {name: _map(path, 8 + size, about) for name, about in header.items() if name != "__metadata__"}
    for name, array in arrays.items():
        if metadata.get(f"sha256 {name}") != _sha256(array):
            raise ValueError(f"tensor {name} is not what was written")
    return arrays, metadata


def _map(path: Path, start: int, about: Mapping[str, Any]) -> Array:
    dtype, shape = TYPES.get(about["dtype"]), tuple(about["shape"])
    if dtype is None:
        raise ValueError(f"type {about['dtype']} is none of {', '.join(TYPES)}")
    if 0 in shape:
        return np.empty(shape, dtype)
    # A plain view: indexing the subclass costs several times as much.
    return np.asarray(np.memmap(path, dtype, "r", start + about["data_offsets"][0], shape))


def _sha256(array: Array) -> str:
    digest, flat = hashlib.sha256(), array.reshape(-1)
    step = PIECE // array.itemsize
    for start in range(0, len(flat), step):
        digest.update(flat[start : start + step].data)
    return digest.hexdigest()
