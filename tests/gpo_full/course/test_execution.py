"""A lesson is executed from top to bottom, and again only when something that its outputs depend on has changed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gpo_full.course.execution import LessonError, execute
from tests.support.lessons import code_cells, lesson
from tests.support.places import ROOT


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lessons"


def test_a_lesson_that_fails_writes_nothing_and_quotes_the_cell(tmp_path: Path, cache: Path) -> None:
    small = lesson(tmp_path, "", "beta = 0.1\nassert beta > 1, 'beta is small'")
    with pytest.raises(LessonError, match=r"(?s)04_small\.md: AssertionError: beta is small.*assert beta > 1"):
        execute([small], tmp_path / "out", {}, {})
    assert not (tmp_path / "out").exists()


def test_a_lesson_sees_its_environment_and_this_installation(tmp_path: Path, cache: Path) -> None:
    code = "import os\n!gpo --version\nprint(os.environ['GPO_SCALE'], os.environ['OMP_NUM_THREADS'])"
    (target,) = execute([lesson(tmp_path, "", code)], tmp_path / "out", {"GPO_SCALE": "smoke"}, {})
    assert target == tmp_path / "out" / "04_small.ipynb"
    (cell,) = code_cells(json.loads(target.read_text(encoding="utf-8")))
    printed = "".join(text for output in cell["outputs"] for text in output["text"])
    assert re.search(r"gpo-toolkit \d+\.\d+", printed)
    assert printed.splitlines()[-1] == "smoke 1"


def test_lessons_are_executed_once_and_again_when_their_text_changes(tmp_path: Path, cache: Path) -> None:
    diary = tmp_path / "diary"
    code = "with open({!r}, 'a') as file:\n    file.write('{}')\nprint('{}')"
    lessons = [lesson(tmp_path, "", code.format(str(diary), name, name), name=f"0{name}_x") for name in (1, 2)]
    lines: list[str] = []
    first = execute(lessons, tmp_path / "a", {}, {}, lines.append)
    assert [path.name for path in first] == ["01_x.ipynb", "02_x.ipynb"]
    assert sorted(diary.read_text()) == ["1", "2"]
    again = execute(lessons, tmp_path / "b", {}, {}, lines.append)
    assert sorted(diary.read_text()) == ["1", "2"]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in first]
    lesson(tmp_path, "", code.format(str(diary), 3, 3), name="01_x")
    changed, same = execute(lessons, tmp_path / "b", {}, {}, lines.append)
    assert sorted(diary.read_text()) == ["1", "2", "3"]
    assert '"3\\n"' in changed.read_text()
    assert same.read_bytes() == first[1].read_bytes()
    assert [line.split(": ")[1] == "from the cache" for line in sorted(lines[2:4])] == [True, True]
    assert [line.split(": ")[1] == "from the cache" for line in sorted(lines[4:])] == [False, True]


def kernels(place: Path) -> list[int]:
    """The processes whose environment names the place."""
    return [each.pid for each in psutil.process_iter(["environ"]) if str(place) in (each.info["environ"] or {}).values()]


def test_a_lesson_that_fails_stops_the_others_and_keeps_nothing_of_them(tmp_path: Path, cache: Path) -> None:
    slow = lesson(tmp_path, "", f"import time\nopen({str(tmp_path / 'ready')!r}, 'w').close()\ntime.sleep(60)", name="01_slow")
    wait = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'ready')!r}):\n    time.sleep(0.1)\nassert 1 > 2"
    start = time.monotonic()
    with pytest.raises(LessonError, match=r"02_false\.md: AssertionError"):
        execute([slow, lesson(tmp_path, "", wait, name="02_false")], tmp_path / "out", {"PLACE": str(tmp_path)}, {})
    assert time.monotonic() - start < 50
    assert not cache.exists()
    assert not (tmp_path / "out").exists()
    assert kernels(tmp_path) == []


def test_an_interrupt_ends_the_kernels(tmp_path: Path, cache: Path) -> None:
    for name in ("01_a", "02_b"):
        lesson(tmp_path, "", f"import time\nopen({str(tmp_path / name)!r}, 'w').close()\ntime.sleep(60)", name=name)
    text = ("import sys; from pathlib import Path; from gpo_full.course.execution import execute\n"
            "folder = Path(sys.argv[1])\nexecute(sorted(folder.glob('*.md')), folder / 'out', {}, {})")  # fmt: skip
    place = tmp_path / "kernels"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PLACE": str(place)}
    running = subprocess.Popen([sys.executable, "-c", text, str(tmp_path)], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if sum((tmp_path / name).exists() for name in ("01_a", "02_b")) == min(2, os.cpu_count() or 1):
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode != 0
    assert told.decode().splitlines()[-1] == "KeyboardInterrupt", told.decode()
    assert kernels(place) == []
    assert not (tmp_path / "out").exists()
