"""A warm process whose forks are `gpo` as a program, without the seconds that importing torch and the Trainer costs each time.

`python warm.py FOLDER` writes the programs `FOLDER/gpo` and `FOLDER/gpo-python`, which takes the place of Python in
`python -m gpo_full.cli ...`, and serves them on `FOLDER/socket`. A fork that dies of a signal makes its program die of the same one, and SIGTERM
goes on to it. In the environment of the program, `AFTER_STEP_2` holds "kill RUN FILE" or "wait RUN FILE": once, when the
run in the folder RUN has saved step 2, it makes FILE, and dies by SIGKILL or waits to be told to stop.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PROGRAM = """#!{python} -SE
import json, os, signal, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
text = json.dumps({{"argv": sys.argv[{first}:], "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
socket.send_fds(server, [len(text).to_bytes(4, "big") + text], [1, 2])
answers = server.makefile()
pid = int(answers.readline())
signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def warm_program(folder: Path) -> Iterator[str]:
    """Yield the path of `gpo-python` while the warm process lives."""
    server = subprocess.Popen([sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert server.stdin
    assert server.stdout
    try:
        assert server.stdout.readline() == b"ready\n"
        yield str(folder / "gpo-python")
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def at_step_2(what: str, run: Path, file: Path) -> None:
    """Let this process do `what` when the run in folder `run` has saved step 2, unless `file` says it was done."""
    from gpo_full.checkpoints import atomic as checkpoint

    save, before = checkpoint.save, signal.getsignal(signal.SIGTERM)

    def acting(output: Path, step: int, *rest: Any, **named: Any) -> Path:
        saved = save(output, step, *rest, **named)
        if step == 2 and output.resolve() == run.resolve() and not file.exists():
            file.touch()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            listening, patience = signal.getsignal(signal.SIGTERM), time.monotonic() + 60
            assert listening != before
            while signal.getsignal(signal.SIGTERM) == listening and time.monotonic() < patience:
                time.sleep(0.01)
        return saved

    checkpoint.save = acting


def _serve(folder: Path) -> None:
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import gpo_full.evaluation.compare
    import gpo_full.training.trainer  # noqa: F401
    import toy_models  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # a collection in a fork would copy every page it visits
    program = folder / "gpo-python"
    for path, first in ((program, 3), (folder / "gpo", 1)):
        path.write_text(_PROGRAM.format(python=sys.executable, path=str(folder / "socket"), first=first))
        path.chmod(0o755)
    # Nobody waits for the forks that hold a connection each.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        server.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:  # its end: whoever wanted the programs is gone
                return
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _hold(connection, str(program))
            connection.close()


def _hold(connection: socket.socket, program: str) -> None:
    """Fork the run and say how it ended."""
    first, files, *_ = socket.recv_fds(connection, 1 << 20, 2)
    while len(first) < 4 + int.from_bytes(first[:4], "big"):
        first += connection.recv(1 << 20)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run(json.loads(first[4:]), files, program)
    for file in files:
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(call: dict[str, Any], files: list[int], program: str) -> None:
    from gpo_full.cli.entry import main

    code = 1
    try:
        for file, place in zip(files, (1, 2), strict=True):
            os.dup2(file, place)
        os.chdir(call["cwd"])
        os.environ.clear()
        os.environ.update(call["env"])
        sys.executable = program
        if "AFTER_STEP_2" in os.environ:
            what, run, file = os.environ["AFTER_STEP_2"].split()
            at_step_2(what, Path(run), Path(file))
        main(call["argv"])
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
