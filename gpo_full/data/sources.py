"""Where pairs come from: a file, a folder that `datasets` saved or of files, a table, or a data set on the hub."""

__all__ = ["open_data", "fingerprint", "is_on_disk", "numbered_rows"]

import hashlib
import importlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpo_full.data.arrow_tables import arrow_rows, without_nulls
from gpo_full.data.columns import Columns
from gpo_full.data.file_formats import is_data, read_rows, stem_of
from gpo_full.other_libraries import in_one_line
from gpo_theory.errors import InputError, nearest

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Files by which a folder that `save_to_disk` wrote is recognised.
SAVED = ("state.json", "dataset_dict.json")
# The names of the files of one split on the hub: train-00000-of-00002.parquet.
SHARD = re.compile(r"-(\d+)-of-(\d+)$")
# Words in the names of splits, as `datasets` knows them, and a few more.
TRAIN = {"train", "training", "trainset", "trn"}
TEST = {"test", "tests", "testing", "testset", "tst", "validation", "valid", "val", "valset", "eval", "evaluation",
        "evalset", "dev", "devset", "heldout", "holdout", "unseen"}  # fmt: skip
# Files that a warning names.
MOST_NAMED = 8
_log = logging.getLogger(__name__)


def open_data(option: str, text: str, part: str = "train") -> Any:
    """Return the data that the value `text` of `option` names: the path of a file, or an iterable of rows.

    A folder holds what `datasets` saved with `save_to_disk`, or files of one split or of several, read in the order of
    their names. `owner/name` is a data set on the hub, loaded by `datasets`, which runs no code of it. `:SPLIT` at the
    end names a split; else it is the only one, train, or the only one whose name says that it is for `part`, "train" or
    "test", and a warning names the others; files whose names state no split are all read. Raises InputError if the
    file, the split, the package `datasets` or the network is missing, or if several splits are for `part`.
    """
    if Path(text).is_file():
        return text
    name, _, split = text.partition(":")
    if name and Path(name).is_dir():  # Path("") is the current folder
        return _saved(option, Path(name), split, part)
    if not HUB_NAME.fullmatch(name) or is_data(Path(name)):
        raise InputError(f"{option} {text!r} is not a file, a folder, or the owner/name[:split] of a data set")
    return _on_hub(option, name, split, part)


def fingerprint(data: Any) -> str:
    """Return a hash of the data: of a file's contents, of the data's own `contents_hash()`, or of `datasets`."""
    if isinstance(data, str | Path):
        with open(data, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return data.contents_hash() if hasattr(data, "contents_hash") else f"datasets:{data._fingerprint}"


def is_on_disk(data: Any) -> bool:
    """Return whether rows are read from files on demand, so that `fingerprint` identifies their contents."""
    return isinstance(data, str | Path) or bool(getattr(data, "is_on_disk", getattr(data, "cache_files", None)))


def numbered_rows(data: Any, columns: Columns | None = None) -> Iterator[tuple[int, Any]]:
    """Yield number, from 1, and value of each row of a file, a table, or what `open_data` returned."""
    if isinstance(data, str | Path):
        return read_rows(data, columns)
    if isinstance(data, Mapping):
        raise InputError(f"the data is a mapping of {', '.join(map(repr, data))}, as of splits: give one of them")
    return enumerate(_rows(data, columns), 1)


def _rows(data: Any, columns: Columns | None) -> Iterable[Any]:
    if isinstance(data, _Files):
        return data.rows(columns)
    if hasattr(data, "__arrow_c_stream__"):  # a table of pandas, polars or pyarrow
        pyarrow: Any = importlib.import_module("pyarrow")
        try:
            return arrow_rows(pyarrow.RecordBatchReader.from_stream(data))
        except (pyarrow.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"the table cannot be read: {_first_line(error)}") from None
    if hasattr(data, "features"):  # of datasets, which are kept in Arrow, whatever its rows are made into
        shown = {"columns": data.format["columns"]} if hasattr(data, "format") else {}
        return map(without_nulls, data.with_format(None, **shown))
    return data  # type: ignore[no-any-return]


class _Files:
    """The rows of several files in sequence; each iteration reads them again."""

    is_on_disk = True

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def contents_hash(self) -> str:
        return hashlib.sha256("".join(fingerprint(str(path)) for path in self.files).encode()).hexdigest()

    def __iter__(self) -> Iterator[Any]:
        return self.rows()

    def rows(self, columns: Columns | None = None) -> Iterator[Any]:
        return (row for path in self.files for _, row in read_rows(path, columns))


def _saved(option: str, folder: Path, split: str, part: str) -> Iterable[Any]:
    if any((folder / name).is_file() for name in SAVED):
        datasets = _datasets(f"{option} {str(folder)!r} was saved by datasets")
        with in_one_line(f"{option} {str(folder)!r} cannot be read"):  # as a split without rows
            saved = datasets.load_from_disk(str(folder))
        return _split(option, saved, str(folder), split, part)
    by_split: dict[str, list[Path]] = {}
    found = _data_files(folder)
    for path in found:
        by_split.setdefault(_split_name(path, folder), []).append(path)
    if not by_split:
        raise InputError(f"{option} {str(folder)!r} holds neither a saved data set nor files of data")
    for name, files in by_split.items():
        if len({path.name.removeprefix(stem_of(path)) for path in files}) > 1:
            raise InputError(f"{option} {str(folder)!r} holds {name} in several formats, "
                             f"{', '.join(path.name for path in files)}: give one file")  # fmt: skip
    for name, files in by_split.items():
        _check_shards(f"{option} {str(folder)!r}", name, files)
    if others := sorted({*_in_folder(folder, "**/*")} - {*found}):
        _log.warning("%s %r: not read: %s", option, str(folder), _named(others, folder))
    if not split and not any(map(_part, by_split)):
        if len(by_split) > 1:
            _log.warning("%s %r: all its files are read: %s", option, str(folder), _named(found, folder))
        return _Files(sorted(path for files in by_split.values() for path in files))
    return _split(option, {name: _Files(files) for name, files in by_split.items()}, str(folder), split, part)


def _data_files(folder: Path) -> list[Path]:
    """Return the files of rows in a folder, else in its folder `data` as on the hub, else in its folders, two deep."""
    return next(filter(None, (_in_folder(folder, pattern) for pattern in ("*", "data/*", "*/*", "*/*/*"))), [])


def _in_folder(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() and is_data(path)
                  and not any(part.startswith(".") for part in path.relative_to(folder).parts))  # fmt: skip


def _named(files: list[Path], folder: Path) -> str:
    names = [path.relative_to(folder).as_posix() for path in files[:MOST_NAMED]]
    return ", ".join(names) + (f" and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else "")


def _split_name(path: Path, folder: Path) -> str:
    """Return the name of the split of which a file is a part: train of train-00000-of-00002.parquet."""
    name = SHARD.sub("", stem_of(path))
    place = path.parent.relative_to(folder).as_posix()
    return name if place in (".", "data") else place if _part(place) and not _part(name) else f"{place}/{name}"


def _check_shards(where: str, name: str, files: list[Path]) -> None:
    """Raise InputError if files that are numbered as parts of a whole are not all there."""
    parts = [found for path in files if (found := SHARD.search(stem_of(path)))]
    if 0 < len(parts) < len(files):
        raise InputError(f"{where}: {name} is there whole and in parts: keep one of them")
    counts = sorted({int(found[2]) for found in parts})
    if len(counts) > 1:
        raise InputError(f"{where}: files of {name} in {' and in '.join(map(str, counts))} parts: keep one set")
    if (count := sum(counts)) and len({int(found[1]) for found in parts}) < count:
        raise InputError(f"{where}: {len(parts)} of the {count} files of {name} are there")


def _part(name: str) -> str | None:
    """Return what a split's name says that it is for: "train", "test", or None."""
    words = {*re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())}  # pairsTest
    return "test" if words & TEST else "train" if words & TRAIN else None


def _on_hub(option: str, name: str, split: str, part: str) -> Iterable[Any]:
    from huggingface_hub import HfApi, constants

    datasets = _datasets(f"{option} {name!r} is no file or folder, and as the name of a data set on the hub")
    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(name, timeout=10)  # fails sooner than load_dataset, which retries for a minute
        return _split(option, datasets.load_dataset(name), name, split, part)
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


def _split(option: str, found: Any, where: str, split: str, part: str) -> Iterable[Any]:
    """Return the split that is named, else the only one for `part`, "train" or "test"."""
    if not isinstance(found, dict):
        if split:
            raise InputError(f"{option}: the data set has no splits, so there is no {split!r}")
        return found  # type: ignore[no-any-return]
    names = [str(name) for name in found]
    fitting = [name for name in names if name == "train" == part] or [name for name in names if _part(name) == part]
    wanted = split or (names if len(names) == 1 else fitting if len(fitting) == 1 else [""])[0]
    if wanted not in names:
        missing = (f"there is no split {split!r}" if split else f"no split is named, and {_are(fitting)} for {part}ing"
                   if fitting or part == "test" else "no split is named, and none is called train")  # fmt: skip
        tests = [name for name in names if _part(name) == "test"]
        one = (fitting or [name for name in names if name not in tests] or names)[0]
        held_out = next((name for name in tests if name != one), None) if part == "train" else None
        raise InputError(f"{option}: {missing}; there are {', '.join(names)}{nearest(split, names)}"
                         + (f"; one is given as {where}:{one}" if not split else "")
                         + (f", for held-out pairs `eval_data='{where}:{held_out}'`" if held_out and not split else "")
                         )  # fmt: skip
    if len(names) > 1 and not split:
        others = ", ".join(name for name in names if name != wanted)
        _log.warning("%s %r: the split %s is used, not %s", option, where, wanted, others)
    if part == "train" and not split and _part(wanted) == "test":
        _log.warning("%s %r: its only split, %s, is trained on", option, where, wanted)
    return found[wanted]  # type: ignore[no-any-return]


def _are(names: list[str]) -> str:
    return f"{', '.join(names)} are" if names else "none is"
