"""The versions that a result depends on, and those that a training works with."""

__all__ = ["check_versions", "versions_of"]

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version

from gpo_theory.errors import InputError


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of each of `packages` that is installed, by name.

    >>> list(versions_of(["numpy", "no-such-package"]))
    ['python', 'numpy']
    """
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def check_versions() -> None:
    """Raise InputError if a package that trains is installed in a version outside the range that is tested.

    The ranges are those of this package's own requirements. What is missing, and what runs without an installation of
    this package, is not judged.
    """
    with suppress(ModuleNotFoundError):  # and so PackageNotFoundError
        from packaging.requirements import Requirement

        ranges = {each.name: each.specifier for each in map(Requirement, requires("gpo-toolkit") or ())
                  if each.marker is None or each.name == "datasets" or
                  any(each.marker.evaluate({"extra": extra}) for extra in ("toy", "lm"))}  # fmt: skip
        here = versions_of(ranges)
        wrong = [f"{name} {here[name]} is installed, and {needed} is needed" for name, needed in ranges.items()
                 if name in here and not needed.contains(here[name], prereleases=True)]  # fmt: skip
        if wrong:
            raise InputError(f"{'; '.join(wrong)}: pip install --upgrade 'gpo-toolkit[lm]'")
