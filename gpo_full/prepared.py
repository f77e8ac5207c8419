"""Folders that are prepared once by a function, checksummed, and prepared again if they were changed."""

__all__ = ["ensured", "prepared_root"]

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from gpo_full.download import sha256_of
from gpo_full.files import cache_root


def prepared_root() -> Path:
    """Return the folder in the cache where `gpo prepare` writes."""
    return cache_root() / "prepared"


def ensured(folder: Path, write: Callable[[Path], Any], made_from: Any = None) -> Path:
    """Return a folder that `write` filled, now or earlier and unchanged since; of several processes, the first's.

    `write` fills a temporary folder, which is then renamed, and returns the source to record in `manifest.json`.
    `made_from` is JSON, and part of the folder's name: what was made from anything else stays beside it.
    """
    if made_from is not None:
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        folder = folder.with_name(f"{folder.name}-{key[:12]}")
    wrong = _changed(folder)
    if not wrong:
        return folder
    if folder.exists():
        print(f"{folder.name}: {', '.join(wrong)} changed since it was prepared; preparing it again", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        made = Path(place) / "new"
        made.mkdir()
        source = write(made)
        files = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
        manifest = {"schema": 1, "source": source, "made_from": made_from, "files": files}
        (made / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _put(made, folder)
    return folder


def _put(made: Path, folder: Path) -> None:
    """Rename `made` to `folder`, unless another process has put a whole one there; what is damaged makes room."""
    for number in count():
        try:
            os.rename(made, folder)
        except OSError:
            if not _changed(folder):
                return
            os.rename(folder, made.with_name(f"damaged-{number}"))
        else:
            return


def _changed(folder: Path) -> list[str]:
    """Return the files that are not as the manifest says; the manifest itself if it cannot be read."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return [name for name, sha in manifest["files"].items() if not _is(folder / name, sha)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ["manifest.json"]


def _is(path: Path, sha: str) -> bool:
    return path.is_file() and sha256_of(path) == sha
