"""Safetensors files larger than memory: written in pieces, and read memory-mapped, with checksums."""

__all__ = ["Array", "TensorWriter", "tensor_writer", "memory_mapped"]

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
# The types that are written here, by their names in the safetensors format.
TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I32": np.dtype("<i4"), "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}  # fmt: skip


@dataclass
class _Part:
    """One tensor of a file that is being written: its rows so far, in a temporary file."""

    file: IO[bytes]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    digest: Any
    length: int = 0


class TensorWriter:
    """Named tensors that grow along their first dimension; `metadata` is written into the header at the end."""

    def __init__(self, folder: Path, open_files: ExitStack) -> None:
        self.metadata: dict[str, str] = {}
        self._folder, self._open_files = folder, open_files
        self._parts: dict[str, _Part] = {}

    def append(self, name: str, values: Array) -> None:
        """Append `values`, [n, ...], to tensor `name`; the first call sets the type and the other dimensions."""
        if name not in self._parts:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the writer
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
        """Write header and tensors, the widest type first so that each is aligned.

        `safetensors.numpy.save_file` orders metadata differently from call to call; these files are the same each time.
        """
        parts = sorted(self._parts.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
        digests = {f"sha256 {name}": part.digest.hexdigest() for name, part in parts}
        header: dict[str, Any] = {"__metadata__": {**self.metadata, **digests}}
        names, end = {dtype: name for name, dtype in TYPES.items()}, 0
        for name, part in parts:
            start, end = end, end + part.file.tell()
            shape = [part.length, *part.shape]
            header[name] = {"dtype": names[part.dtype], "shape": shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with target.open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, part in parts:
                part.file.seek(0)
                shutil.copyfileobj(part.file, out)


@contextmanager
def tensor_writer(path: Path) -> Iterator[TensorWriter]:
    """Yield a writer whose tensors become the safetensors file `path` on success; on failure there is no file.

    >>> import numpy as np
    >>> folder = getfixture("tmp_path")
    >>> with tensor_writer(folder / "a.safetensors") as writer:
    ...     writer.append("x", np.array([1, 2]))
    ...     writer.append("x", np.array([3]))
    >>> memory_mapped(folder / "a.safetensors")[0]["x"].tolist()
    [1, 2, 3]
    """
    with atomic_file(path) as temporary, ExitStack() as open_files:
        writer = TensorWriter(path.parent, open_files)
        yield writer
        writer.write(temporary)


def memory_mapped(path: Path) -> tuple[dict[str, Array], Mapping[str, str]]:
    """Return the tensors of a file that `tensor_writer` wrote, memory-mapped and read-only, and its metadata.

    Every checksum is verified, in one pass over the file. Raises ValueError if the file is damaged.
    """
    try:
        with safe_open(path, framework="np"):  # checks the header, and that header and size agree
            pass
        # A plain array: indexing numpy's subclass costs several times as much.
        content = np.asarray(np.memmap(path, np.uint8, "r"))
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8:start].tobytes())
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"not a safetensors file: {error}") from None
    metadata, tensors = header.pop("__metadata__", {}), {}
    for name, about in header.items():
        if about["dtype"] not in TYPES:
            raise ValueError(f"type {about['dtype']} is none of {', '.join(TYPES)}")
        begin, end = (start + offset for offset in about["data_offsets"])
        if metadata.get(f"sha256 {name}") != hashlib.sha256(content[begin:end]).hexdigest():  # type: ignore[arg-type]
            raise ValueError(f"tensor {name} is not what was written")
        tensors[name] = content[begin:end].view(TYPES[about["dtype"]]).reshape(about["shape"])
    return tensors, metadata
