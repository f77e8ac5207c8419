"""A warm process whose forks are programs, without the seconds that importing torch and the Trainer costs each time.

`python -m tests.support.warm FOLDER` writes the programs `FOLDER/gpo` and `FOLDER/gpo-python`, which takes the place of Python in
`python -m gpo_full.cli ...` and `python -m ipykernel_launcher ...`, the specification of the kernel "python3" as such a
program, in `FOLDER/kernels`, and serves them on `FOLDER/socket`. A fork that dies of a signal makes its program die of the
same one, SIGTERM goes on to it, and it dies with its program. In the environment of the program, `AFTER_STEP_2` holds
"kill RUN FILE" or "wait RUN FILE": once, when the run in the folder RUN has saved step 2, it makes FILE, and dies by SIGKILL
or waits to be told to stop.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.forking import ready_to_fork
from tests.support.places import ROOT
from tests.support.shared import share

_PROGRAM = """#!{python} -SE
import json, os, signal, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
text = json.dumps({{"words": {words}, "cwd": os.getcwd(), "env": dict(os.environ)}}).encode()
socket.send_fds(server, [len(text).to_bytes(4, "big") + text], [1, 2])
answers = server.makefile()
pid = int(answers.readline())
for number in signal.SIGTERM, signal.SIGINT:
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def warm_program(folder: Path) -> Iterator[str]:
    """Yield the path of `gpo-python` while the warm process lives."""
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    server = subprocess.Popen([sys.executable, "-m", "tests.support.warm", str(folder)], cwd=ROOT, env=settings,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
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
    share()
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import gpo_full.evaluation.compare
    import gpo_full.training.trainer  # noqa: F401
    import toy_models  # noqa: F401

    torch.set_num_threads(1)
    program = _write_programs(folder)
    ready_to_fork()
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
                _hold(connection, program)
            connection.close()


def _write_programs(folder: Path) -> str:
    """Write the programs and the kernel's specification; import what a kernel needs, after tqdm, which asks for it."""
    import ipykernel.kernelapp  # noqa: F401
    from ipykernel.kernelspec import get_kernel_dict

    program = folder / "gpo-python"
    for path, words in ((program, "sys.argv[2:]"), (folder / "gpo", '["gpo_full.cli", *sys.argv[1:]]')):
        path.write_text(_PROGRAM.format(python=sys.executable, path=str(folder / "socket"), words=words))
        path.chmod(0o755)
    kernel = get_kernel_dict()
    kernel["argv"] = [str(program), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(kernel))
    return str(program)


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
    ended = os.pidfd_open(pid)
    if ended not in select.select([connection, ended], [], [])[0]:  # the program was killed
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(call: dict[str, Any], files: list[int], program: str) -> None:
    code, (module, *words) = 1, call["words"]
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
        if module == "ipykernel_launcher":
            from ipykernel.kernelapp import launch_new_instance

            # Its default is read when ipykernel is imported.
            launch_new_instance([*words, f"--IPKernelApp.parent_handle={os.environ['JPY_PARENT_PID']}"])
        else:
            from gpo_full.cli.entry import main

            main(words)
        code = 0
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
