"""What the experiment needs besides this package, prepared once: the policy, the golden reward, and real text."""

__all__ = ["PARTS", "prepare"]

import json
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpo_full.evaluation.golden_reward import write_reward
from gpo_full.experiment.inputs.docstrings import Example, harvest
from gpo_full.experiment.inputs.policy import write_policy
from gpo_full.output import progress
from gpo_full.prepared import ensured, prepared_root
from gpo_full.source_hash import code_hash
from gpo_full.versions import versions_of

PARTS = ("policy", "reward", "data")

# (distribution, import name, licence): the permissive ones that the `book` extra installs.
_PACKAGES = (
    ("accelerate", "accelerate", "Apache-2.0"), ("click", "click", "BSD-3-Clause"),
    ("debugpy", "debugpy", "MIT"), ("fonttools", "fontTools", "MIT"), ("fsspec", "fsspec", "BSD-3-Clause"),
    ("huggingface_hub", "huggingface_hub", "Apache-2.0"), ("ipython", "IPython", "BSD-3-Clause"),
    ("jedi", "jedi", "MIT"), ("Jinja2", "jinja2", "BSD-3-Clause"), ("jupyter_client", "jupyter_client", "BSD-3-Clause"),
    ("matplotlib", "matplotlib", "PSF-based"), ("mpmath", "mpmath", "BSD-3-Clause"),
    ("networkx", "networkx", "BSD-3-Clause"), ("numpy", "numpy", "BSD-3-Clause"),
    ("packaging", "packaging", "Apache-2.0 OR BSD-2-Clause"), ("peft", "peft", "Apache-2.0"),
    ("pexpect", "pexpect", "ISC"), ("pillow", "PIL", "MIT-CMU"), ("plotly", "plotly", "MIT"),
    ("prompt_toolkit", "prompt_toolkit", "BSD-3-Clause"), ("Pygments", "pygments", "BSD-2-Clause"),
    ("scipy", "scipy", "BSD-3-Clause"), ("setuptools", "setuptools", "MIT"), ("Sphinx", "sphinx", "BSD-2-Clause"),
    ("SQLAlchemy", "sqlalchemy", "MIT"), ("sympy", "sympy", "BSD-3-Clause"), ("torch", "torch", "BSD-3-Clause"),
    ("tornado", "tornado", "Apache-2.0"), ("traitlets", "traitlets", "BSD-3-Clause"),
    ("transformers", "transformers", "Apache-2.0"),
)  # fmt: skip
# Whole packages are held out, so that no text of a test package was seen in training.
_HELD_OUT = {"networkx": "test", "scipy": "test", "matplotlib": "test",
             "numpy": "pilot", "huggingface_hub": "pilot", "ipython": "pilot", "tornado": "pilot"}  # fmt: skip
_SPLITS = ("train", "pilot", "test")


def prepare(parts: Sequence[str] = PARTS, root: Path | None = None) -> dict[str, Path]:
    """Make each of `parts` in `root` (default: the cache) unless it is there, unchanged; return its folder by its name.

    `policy` is a causal LM, `reward` a sentence encoder, `data` has `train|pilot|test.jsonl`. A part is written to a
    temporary folder and renamed, so it is whole or absent. Raises InputError without a network or disk space.
    """
    root = prepared_root() if root is None else root
    root.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path], Any]] = {"policy": write_policy, "reward": write_reward, "data": _write_data}
    return {part: ensured(root / part, makers[part], _sources() if part == "data" else None) for part in parts}


def _sources() -> dict[str, Any]:
    """Return what the data depend on: each package's version, and the code that selects texts."""
    return {"packages": versions_of(distribution for distribution, _, _ in _PACKAGES),
            "rules": code_hash(("gpo_full.experiment.inputs.docstrings",)), "held_out": _HELD_OUT}  # fmt: skip


def _write_data(folder: Path) -> dict[str, Any]:
    """Harvest docstrings into `train.jsonl`, `pilot.jsonl` and `test.jsonl`, split by package; return their counts."""
    print("harvesting docstrings of the installed packages", file=sys.stderr, flush=True)
    counts: dict[str, dict[str, Any]] = {}
    lines: dict[str, list[str]] = {split: [] for split in _SPLITS}
    seen: set[str] = set()
    places = list(_places())
    for distribution, package, licence, place in progress(places, "harvesting packages", len(places)):
        split = _HELD_OUT.get(distribution, "train")
        fresh = list(_fresh(harvest(place, package), seen))
        lines[split] += [json.dumps({"prompt": e.prompt, "target": e.target, "package": package}) for e in fresh]
        kept = counts.setdefault(distribution, {"licence": licence, "split": split, "examples": 0})
        kept["examples"] += len(fresh)
    for split in _SPLITS:
        (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines[split]), encoding="utf-8")
    return {"packages": counts, "examples": {split: len(lines[split]) for split in _SPLITS}}


def _fresh(examples: Iterator[Example], seen: set[str]) -> Iterator[Example]:
    """Yield the examples whose summary and body are in no earlier example of any package."""
    for example in examples:
        keys = {example.target.casefold(), example.prompt.split("\n\n")[1].casefold()}
        if not keys & seen:
            seen |= keys
            yield example


def _places() -> Iterator[tuple[str, str, str, Path]]:
    """Yield (distribution, import name, licence, path): held-out packages first, so that duplicates leave training."""
    paths = sysconfig.get_paths()
    for distribution, package, licence in sorted(_PACKAGES, key=lambda entry: (entry[0] not in _HELD_OUT, entry[0])):
        for site in dict.fromkeys((paths["purelib"], paths["platlib"])):
            if (Path(site) / package).is_dir():
                yield distribution, package, licence, Path(site) / package
                break
    for path in sorted(Path(paths["stdlib"]).iterdir()):
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file()):
            yield "python", "python", "PSF-2.0", path
