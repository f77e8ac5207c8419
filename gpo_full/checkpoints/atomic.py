"""Checkpoints that are whole or absent: written under a temporary name, checksummed, renamed, verified when read.

A checkpoint is a Hugging Face folder `checkpoint-STEP` with one more file, a manifest of the sha256 of every other file
and of itself. It holds JSON, safetensors and text files; reading it runs no code from it.
"""

__all__ = ["Checkpoint", "DamagedCheckpoint", "NoGoodCheckpoint", "CheckpointNotSaved", "FolderInUse", "save", "load",
           "rotate", "sync", "verify", "sole_writer"]  # fmt: skip

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpo_full.strict_json import NotJson, parse_json
from gpo_theory.errors import InputError

MANIFEST = "manifest.json"
LOCK = ".writer.lock"
SCHEMA = 1
# The files that a checkpoint may hold. Pickles (.bin, .pt, .pth, .pkl) are refused, because loading one runs code.
SUFFIXES = {".json", ".safetensors", ".txt", ".jinja", ".md", ".model"}
# Largest header of a safetensors file (the limit of the format) and largest JSON file, in bytes.
HEADER_LIMIT = 100_000_000
JSON_LIMIT = 256_000_000
# Prefixes of the temporary files of a killed writer, which the next writer removes.
TEMPORARIES = (".checkpoint-", ".model-", ".metrics-", ".events-", ".run-")
_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]{0,15})")
_log = logging.getLogger(__name__)


class DamagedCheckpoint(RuntimeError):
    """A checkpoint is not as it was saved, or holds what may not be loaded; the message names the file."""


class NoGoodCheckpoint(DamagedCheckpoint):
    """There are checkpoints, but all of them are damaged."""


class CheckpointNotSaved(OSError):
    """A checkpoint could not be written; earlier ones are unchanged."""


class FolderInUse(InputError):
    """Another process, or another trainer of this process, is writing into the folder."""


@dataclass(frozen=True)
class Files:
    """Every operation with which this module changes a disk; tests replace them to fail or die at each."""

    mkdir: Callable[[Path], None] = os.mkdir
    open: Callable[[Path, int, int], int] = os.open
    write: Callable[[int, bytes], int] = os.write
    fsync: Callable[[int], None] = os.fsync
    rename: Callable[[Path, Path], None] = os.rename
    unlink: Callable[[Path], None] = os.unlink
    rmdir: Callable[[Path], None] = os.rmdir


FILES = Files()


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    path: Path
    step: int
    names: frozenset[str]

    def json(self, name: str) -> Any:
        """Return the JSON value of a file. Raises InputError if the checkpoint was saved without it."""
        return _strict_json(self._file(name), finite=True)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a file. Raises InputError if the checkpoint was saved without it."""
        return load_file(self._file(name))

    def _file(self, name: str) -> Path:
        if name not in self.names:
            raise InputError(f"{self.path.name} was saved without {name}: it holds a model, not a run to resume")
        return self.path / name


def save(
    folder: Path,
    step: int,
    parts: Mapping[str, Any],
    *,
    fill: Callable[[Path], None] | None = None,
    keep: int | None = None,
    protected: Collection[str] = (),
) -> Path:
    """Write `folder/checkpoint-STEP` whole or not at all, and return its path.

    `parts` maps file names to contents: `*.json` to a JSON value, `*.safetensors` to tensors. `fill` writes further
    files into a folder, as `save_pretrained` does. After the rename, all checkpoints but the newest `keep` and those
    named in `protected` are removed. Raises CheckpointNotSaved if writing fails, and leaves no temporary files.
    """
    target = folder / f"checkpoint-{step}"
    temporary, retired = _beside(target), _beside(target)
    try:
        FILES.mkdir(temporary)
        if fill is not None:
            fill(temporary)
        for name, part in parts.items():
            _write_part(temporary / name, part)
        _seal(temporary, step)
        if os.path.lexists(target):  # a damaged one, or that of a run which is repeated
            FILES.rename(target, retired)
        FILES.rename(temporary, target)
        sync(folder)
    except BaseException as error:
        with suppress(OSError):
            if retired.exists() and not target.exists():
                FILES.rename(retired, target)
        with suppress(OSError):
            _remove(temporary)
        if isinstance(error, OSError | SafetensorError):
            raise CheckpointNotSaved(f"{target.name} could not be saved: {error}") from error
        raise
    rotate(folder, step, keep, protected)
    return target


def rotate(folder: Path, step: int, keep: int | None, protected: Collection[str] = ()) -> None:
    """Remove temporary files, and all checkpoints up to `step` but the newest `keep` and those named in `protected`."""
    old = [path for number, path in _checkpoints(folder) if number < step and path.name not in protected]
    for path in old[: max(0, len(old) - keep + 1)] if keep else []:
        # Renamed first: a partly removed folder must not have the name of a checkpoint.
        hidden = _beside(path)
        FILES.rename(path, hidden)
        _remove(hidden)
    for path in [*folder.iterdir()]:
        if path.name.startswith(".checkpoint-"):
            _remove(path)


def load(folder: Path) -> Checkpoint | None:
    """Return the newest undamaged checkpoint of `folder`, None if there is no checkpoint.

    A damaged one is logged with the name of the file. Raises NoGoodCheckpoint if all are damaged.
    """
    candidates = _checkpoints(folder)
    for _, path in reversed(candidates):
        try:
            return verify(path)
        except DamagedCheckpoint as error:
            _log.warning("%s; going back to the one before", error)
    if candidates:
        raise NoGoodCheckpoint(f"none of the {len(candidates)} checkpoints in {str(folder)!r} is whole")
    return None


def verify(path: Path) -> Checkpoint:
    """Return the checkpoint in `path`. Raises DamagedCheckpoint, which names the file, if it is not as it was saved."""
    try:
        if path.is_symlink() or not path.is_dir():
            raise ValueError("it is not a folder")
        names, _ = _walk(path)
        if MANIFEST not in names:
            raise ValueError(f"{MANIFEST} is missing")
        manifest = _strict_json(path / MANIFEST, finite=True)
        step, files = _manifest_fields(manifest)
        if path.name != f"checkpoint-{step}":
            raise ValueError(f"{MANIFEST} is that of step {step}")
        for name in sorted({MANIFEST, *files} ^ set(names)):
            raise ValueError(f"{name!r} is {'missing' if name in files else 'not in the manifest'}")
        for name, entry in files.items():
            if (path / name).stat().st_size != entry["size"] or _sha256(path / name) != entry["sha256"]:
                raise ValueError(f"{name!r} is not what was saved")
            _check_content(path / name, name)
        return Checkpoint(path, step, frozenset(files))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path.name} is damaged: {error}") from None


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` and remove temporary files. Raises FolderInUse while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    handle = _lock(lock)
    try:
        for path in [*folder.iterdir()]:
            if path.name.startswith(TEMPORARIES):
                _remove(path)
        yield
    finally:
        with suppress(OSError):
            FILES.unlink(lock)
        os.close(handle)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk (fsync)."""
    handle = FILES.open(path, os.O_RDONLY, 0)
    try:
        FILES.fsync(handle)
    finally:
        os.close(handle)


def _lock(path: Path) -> int:
    while True:
        handle = FILES.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # The kernel releases it when its holder dies, however it dies.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise FolderInUse(f"another run is writing into {str(path.parent)!r}; wait for it, or stop it") from None
        # Between open and lock the last holder may have removed the file; then this lock has no effect.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}-{secrets.token_hex(8)}")


def _write_part(path: Path, part: Any) -> None:
    if path.suffix == ".safetensors":
        save_file(part, path)
    else:
        _write(path, json.dumps(part, allow_nan=False, sort_keys=True).encode())


def _write(path: Path, data: bytes) -> None:
    handle = FILES.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        while data:
            data = data[FILES.write(handle, data) :]
    finally:
        os.close(handle)


def _seal(folder: Path, step: int) -> None:
    """Check and flush every file, and write the manifest last."""
    files = {}
    names, folders = _walk(folder)
    for name in names:
        _check_content(folder / name, name)
        sync(folder / name)
        files[name] = {"sha256": _sha256(folder / name), "size": (folder / name).stat().st_size}
    body = {"schema": SCHEMA, "step": step, "files": files}
    _write(folder / MANIFEST, json.dumps({**body, "sha256": _digest(body)}, sort_keys=True).encode())
    for path in (folder / MANIFEST, *folders, folder):
        sync(path)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        FILES.unlink(path)
        return
    for inner in [*path.iterdir()]:
        _remove(inner)
    FILES.rmdir(path)


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return step and path of each checkpoint, oldest first."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]), path) for match, path in matches if match)


def _manifest_fields(manifest: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _digest(manifest):
        raise ValueError(f"{MANIFEST} is not what was saved")
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"{MANIFEST} has schema {manifest.get('schema')!r}, not {SCHEMA}")
    step, files = manifest.get("step"), manifest.get("files")
    fields = {"sha256", "size"}
    if not (isinstance(step, int) and isinstance(files, dict)
            and all(isinstance(each, dict) and {*each} == fields for each in files.values())):  # fmt: skip
        raise ValueError(f"{MANIFEST} does not have the fields of a manifest")
    for name in files:
        if not _inside(name):
            raise ValueError(f"{MANIFEST} names {name!r}, which is not a file inside the checkpoint")
    return step, files


def _inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and "/".join(parts) == name and not {"..", "/"} & {*parts} and not {"\\", "\0"} & {*name}


def _walk(folder: Path) -> tuple[list[str], list[Path]]:
    """Return the files below `folder` by relative name, and the folders. Raises ValueError for links and devices."""
    paths = sorted(folder.rglob("*"))
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    for path, name in names.items():
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise ValueError(f"{name!r} is a link or device, not a file")
    return [name for path, name in names.items() if path.is_file()], [path for path in paths if path.is_dir()]


def _check_content(path: Path, name: str) -> None:
    """Raise ValueError if a file is not of a kind or form that a checkpoint may have, before a library opens it."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{name!r} is not a kind of file that a checkpoint may hold")
    if path.suffix == ".json":
        _strict_json(path, finite=False)
    if path.suffix == ".safetensors":
        _check_header(path, name)
        with safe_open(path, framework="pt"):  # checks offsets, shapes and types
            pass


def _check_header(path: Path, name: str) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise ValueError(f"{name!r} claims a header of {length} bytes")
        _parse(file.read(length), name, finite=True)


def _strict_json(path: Path, *, finite: bool) -> Any:
    if path.stat().st_size > JSON_LIMIT:
        raise ValueError(f"{path.name!r} has more than {JSON_LIMIT} bytes")
    return _parse(path.read_bytes(), path.name, finite=finite)


def _parse(data: bytes, name: str, *, finite: bool) -> Any:
    try:
        return parse_json(data, finite=finite)
    except NotJson as error:
        raise ValueError(f"{name!r} cannot be read: {error}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
