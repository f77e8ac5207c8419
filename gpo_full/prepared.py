"""Folders that are prepared once by a function, checksummed, and prepared again if they were changed."""

__all__ = ["ensured", "prepared_root"]

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpo_full.download import sha256_of
from gpo_full.files import atomic_folder, cache_root


def prepared_root() -> Path:
    """Return the folder in the cache where `gpo prepare` writes."""
    return cache_root() / "prepared"


def ensured(folder: Path, write: Callable[[Path], Any], made_from: Any = None) -> Path:
    """Make `folder` with `write` unless it is there, unchanged, and made from the same sources; return it.

    `write` fills a temporary folder, which is then renamed, and returns the source to record in `manifest.json`.
    `made_from` is JSON; a folder that was made from anything else is made again.
    """
    if _holds(folder, made_from):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    with atomic_folder(folder) as temporary:
        source = write(temporary)
        files = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        manifest = {"schema": 1, "source": source, "made_from": made_from, "files": files}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return folder


def _holds(folder: Path, made_from: Any) -> bool:
    """Tell whether `folder` is complete, unchanged, and made from the same sources as would be used now."""
    if not (folder / "manifest.json").is_file():
        return False
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        stale = manifest["made_from"] != made_from
        wrong = [name for name, sha in manifest["files"].items() if sha256_of(folder / name) != sha]
    except (OSError, ValueError, KeyError, AttributeError):
        stale, wrong = False, ["manifest.json"]
    if wrong:
        print(f"{folder.name}: {', '.join(wrong)} changed since it was prepared; preparing it again", file=sys.stderr)
    elif stale:
        print(f"{folder.name}: the installed packages changed; preparing it again", file=sys.stderr)
    return not wrong and not stale
