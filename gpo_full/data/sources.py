"""Where pairs come from: a file, a folder that `datasets` saved or of Parquet files, or a data set on the hub."""

__all__ = ["open_data", "fingerprint", "is_on_disk", "numbered_rows"]

import hashlib
import importlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpo_full.data.file_formats import read_rows
from gpo_theory.errors import InputError, nearest

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Files by which a folder that `save_to_disk` wrote is recognised.
SAVED = ("state.json", "dataset_dict.json")
# The names of the files of one split on the hub: train-00000-of-00002.parquet.
SHARD = re.compile(r"-\d+-of-\d+$")


def open_data(option: str, text: str) -> Any:
    """Return the data that the value `text` of `option` names: the path of a file, or an iterable of rows.

    A folder holds what `datasets` saved with `save_to_disk`, or Parquet files, read in the order of their names.
    `owner/name` is a data set on the hub, loaded by `datasets`, which runs no code of it. `:SPLIT` at the end names a
    split (default: train, or the only one; all Parquet files if their names state no split). Raises InputError if the
    file, the split, the package `datasets` or the network is missing.
    """
    if Path(text).is_file():
        return text
    name, _, split = text.partition(":")
    if name and Path(name).is_dir():  # Path("") is the current folder
        return _saved(option, Path(name), split)
    if not HUB_NAME.fullmatch(name) or Path(name).suffix in (".jsonl", ".csv", ".parquet", ".json", ".gz"):
        raise InputError(f"{option} {text!r} is not a file, a folder, or the owner/name[:split] of a data set")
    return _on_hub(option, name, split)


def fingerprint(data: Any) -> str:
    """Return a hash of the data: of a file's contents, of the data's own `contents_hash()`, or of `datasets`."""
    if isinstance(data, str | Path):
        with open(data, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return data.contents_hash() if hasattr(data, "contents_hash") else f"datasets:{data._fingerprint}"


def is_on_disk(data: Any) -> bool:
    """Return whether rows are read from files on demand, so that `fingerprint` identifies their contents."""
    return isinstance(data, str | Path) or bool(getattr(data, "is_on_disk", getattr(data, "cache_files", None)))


def numbered_rows(data: Any, also: Collection[str] = ()) -> Iterator[tuple[int, Any]]:
    """Yield number, from 1, and value of each row of what `open_data` returned, with the columns `also`."""
    if isinstance(data, str):
        return read_rows(data, also)
    return enumerate(data.rows(also) if isinstance(data, _ParquetFolder) else data, 1)


class _ParquetFolder:
    """The rows of several Parquet files in sequence; each iteration reads them again."""

    is_on_disk = True

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def contents_hash(self) -> str:
        return hashlib.sha256("".join(fingerprint(str(path)) for path in self.files).encode()).hexdigest()

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self.rows()

    def rows(self, also: Collection[str] = ()) -> Iterator[Mapping[str, Any]]:
        return (row for path in self.files for _, row in read_rows(path, also))


def _saved(option: str, folder: Path, split: str) -> Iterable[Mapping[str, Any]]:
    if any((folder / name).is_file() for name in SAVED):
        datasets = _datasets(f"{option} {str(folder)!r} was saved by datasets")
        try:
            return _split(option, datasets.load_from_disk(str(folder)), split)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{option} {str(folder)!r} cannot be read: {_first_line(error)}") from None
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise InputError(f"{option} {str(folder)!r} holds neither a saved data set nor Parquet files")
    names = [SHARD.sub("", path.stem) for path in files]
    if not split and "train" not in names:
        return _ParquetFolder(files)
    by_split = {each: [path for path, name in zip(files, names, strict=True) if name == each] for each in names}
    return _split(option, {name: _ParquetFolder(each) for name, each in by_split.items()}, split)


def _on_hub(option: str, name: str, split: str) -> Iterable[Mapping[str, Any]]:
    from huggingface_hub import HfApi, constants

    datasets = _datasets(f"{option} {name!r} is no file or folder, and as the name of a data set on the hub")
    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(name, timeout=10)  # fails sooner than load_dataset, which retries for a minute
        return _split(option, datasets.load_dataset(name), split)
    except InputError:
        raise
    except Exception as error:  # the client raises the errors of its network library
        how = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "HF_HUB_OFFLINE=1 uses what is in the cache"
        raise InputError(f"{option} {name!r} is no file or folder, and cannot be fetched from the hub ({how}): "
                         f"{_first_line(error)}") from None  # fmt: skip


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _datasets(what: str) -> Any:
    try:
        datasets: Any = importlib.import_module("datasets")
    except ModuleNotFoundError:
        raise InputError(f"{what} needs the package datasets: pip install datasets") from None
    if int(datasets.__version__.partition(".")[0]) < 4:  # older versions run a data set's own script
        raise InputError(f"{what} needs datasets>=4, not {datasets.__version__}: pip install -U datasets")
    datasets.disable_progress_bars()
    return datasets


def _split(option: str, found: Any, split: str) -> Iterable[Mapping[str, Any]]:
    if not isinstance(found, dict):
        if split:
            raise InputError(f"{option}: the data set has no splits, so there is no {split!r}")
        return found  # type: ignore[no-any-return]
    names = [str(name) for name in found]
    wanted = split or ("train" if "train" in names else names[0] if len(names) == 1 else "")
    if wanted not in names:
        missing = f"there is no split {split!r}" if split else "no split is named, and none is called train"
        raise InputError(f"{option}: {missing}; there are {', '.join(names)}{nearest(split, names)}")
    return found[wanted]  # type: ignore[no-any-return]
