"""One warm process, which never runs backward itself, forks trainings that die in every way; `python -m tests.support.crashing FOLDER`.

Importing the Trainer costs seconds, and torch refuses a backward pass in the fork of a process that has run one. So
every training is a fork of this process. Each writes what it ended with, or dies; the tests read `results.json`.
"""

import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import set_seed

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.checkpoints.state import encode, random_state
from tests.support.forking import ready_to_fork
from tests.support.soak import SOAK, budget
from tests.support.tiny_models import tiny_model
from tests.support.trainings import objects, trainer, untimed

STEPS = 4  # two micro-batches each; an epoch has three
# In short: the first save, and one that removes an older checkpoint.
CRASHED = range(1, STEPS + 1) if SOAK else (1, 3)
RANDOM_KILLS = budget(10, 50)
CORRUPTIONS = budget(20, 200)
# What a fork raises -> how it exits.
CODES = {KeyboardInterrupt: 130, checkpoint.CheckpointNotSaved: 1, checkpoint.DamagedCheckpoint: 4}


def dying(at: int, then: Callable[[], None]) -> checkpoint.Files:
    """The table of file operations, in which `then` is called before the operation number `at`."""
    count = itertools.count(1)

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            if next(count) == at:
                then()
            return operation(*arguments)

        return run

    return checkpoint.Files(*(counted(getattr(checkpoint.FILES, field.name)) for field in fields(checkpoint.Files)))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def disk_full() -> None:
    raise OSError(28, "No space left on device")


def forked(work: Callable[[], Any], kill_after: float | None = None) -> int:
    """Run `work` in a fork; its exit code, or minus the signal that ended it. An exception is exit code 99."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            work()
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException as error:
            code = next((code for kind, code in CODES.items() if isinstance(error, kind)), 99)
            if code == 99:
                traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Lab:
    """A trainer, not yet used, and what can befall it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainer = trainer(
            folder, tiny_model(), run="none", learning_rate=1e-2, max_steps=STEPS, per_device_train_batch_size=2,
            gradient_accumulation_steps=2, save_strategy="steps", save_steps=1, save_total_limit=1, logging_steps=2,
            lr_scheduler_type="cosine", warmup_steps=2,
        )  # fmt: skip
        self.rows: list[Any] = []
        self.in_micro_batch: Callable[[int], None] = lambda number: None
        self._watch()

    def _watch(self) -> None:
        """Keep the row ids of every micro-batch, by step, and call `in_micro_batch` in each."""
        compute, micro_batch = self.trainer.compute_loss, 0

        def watched(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            nonlocal micro_batch
            micro_batch += 1
            random.gauss(), np.random.standard_normal(), torch.rand(())  # every generator moves, and each has a spare
            self.rows.append([self.trainer.state.global_step + 1, *inputs["row"].tolist()])
            self.in_micro_batch(micro_batch)
            return compute(model, inputs, *rest, **named)

        self.trainer.compute_loss = watched

    def run(self, name: str, resume: bool = False) -> None:
        """Train in `name` and write what it ended with."""
        self.trainer.args.output_dir = str(self.folder / name)
        set_seed(self.trainer.args.seed)  # as in a process of its own; Python's generator is seeded anew in a fork
        self.trainer.train(resume_from_checkpoint=resume)
        self._write_end(name)

    def _write_end(self, name: str) -> None:
        """The state of the run at its end, which its last checkpoint holds too."""
        output, trainer = self.folder / name, self.trainer
        found = checkpoint.verify(output / f"checkpoint-{STEPS}")
        saved = {"weights": found.tensors("model.safetensors"), "moments": found.tensors("resume.safetensors"),
                 "random": {kind: value[0] for kind, value in found.tensors("random.safetensors").items()}}  # fmt: skip
        moments: dict[str, Any] = {}
        if trainer.optimizer is not None:  # None: resumed behind the last step, only the weights are wanted
            encode(trainer.optimizer.state_dict(), moments)
            saved["moments"], saved["random"] = moments, random_state()
        saved["weights"] = dict(trainer.model.state_dict())
        resume = found.json("resume.json")
        end = {kind: _sha256(each) for kind, each in saved.items()} | {
            "optimizer": resume["optimizer"], "schedule": resume["scheduler"],
            "trace": untimed(objects(self.folder, name))}  # fmt: skip
        left = sorted(path.name for path in output.iterdir())
        (self.folder / f"{name}.json").write_text(json.dumps({"end": end, "left": left, "rows": self.rows}))

    def resumed(self, name: str) -> dict[str, Any]:
        """Go on in `name`, and return what that ended with and where it began."""
        code = forked(lambda: self.run(name, resume=True))
        path = self.folder / f"{name}.json"
        return {"name": name, "code": code, **(json.loads(path.read_text()) if path.exists() else {})}

    def crash_points(self) -> list[dict[str, Any]]:
        """Die at every operation of the table, in the saves of CRASHED; each death in its own copy of the folder."""
        save, points = checkpoint.save, self.folder / "points.txt"
        points.touch()

        def crashing(output: Path, step: int, *rest: Any, **named: Any) -> Path:
            at = 0
            while step in CRASHED:
                at += 1
                name = f"crash-{step}-{at}"
                shutil.copytree(output, self.folder / name)
                code = forked(lambda at=at, name=name: doomed(at, name, step, *rest, **named))
                if code == 0:  # it came to the end: there is no such operation
                    shutil.rmtree(self.folder / name)
                    break
                with points.open("a") as file:
                    file.write(f"{name} {code}\n")
            return save(output, step, *rest, **named)

        def doomed(at: int, name: str, step: int, *rest: Any, **named: Any) -> None:
            checkpoint.FILES = dying(at, die)
            save(self.folder / name, step, *rest, **named)

        checkpoint.save = crashing
        forked(lambda: self.run("crashing"))
        checkpoint.save = save
        found = [line.split() for line in points.read_text().splitlines()]
        return [{"died": int(code), **self.resumed(name)} for name, code in found]

    def random_kills(self, duration: float) -> list[dict[str, Any]]:
        draw = random.Random(5)
        found = []
        while len(found) < RANDOM_KILLS:
            name = f"random-{len(found)}"
            died = forked(lambda name=name: self.run(name), kill_after=draw.uniform(0.02, 0.98) * duration)
            if died == 0:  # it was faster this time, and had ended
                duration *= 0.8
                shutil.rmtree(self.folder / name)
                (self.folder / f"{name}.json").unlink()
                continue
            found.append({"died": died, **self.resumed(name)})
        return found

    def in_step(self, name: str, number: int, action: Callable[[], None]) -> dict[str, Any]:
        """Do something in a micro-batch, counted over the run; then go on."""

        def act(micro_batch: int) -> None:
            if micro_batch == number:
                self.in_micro_batch = lambda _: None
                action()

        def first() -> None:
            self.in_micro_batch = act
            self.run(name)

        died = forked(first)
        left = sorted(path.name for path in (self.folder / name).iterdir())
        shutil.copytree(self.folder / name, self.folder / f"{name}-before")
        return {"died": died, "before": left, **self.resumed(name)}

    def corruptions(self) -> list[dict[str, Any]]:
        """Damage one file of a killed run's two checkpoints, or one of each, and go on."""
        self.trainer.args.save_total_limit = 2
        self.in_step("killed", 2 * STEPS, die)
        draw = random.Random(7)
        found = []
        for number in range(CORRUPTIONS):
            name = f"corrupt-{number}"
            shutil.copytree(self.folder / "killed-before", self.folder / name)
            saved = sorted((self.folder / name).glob("checkpoint-*"))
            assert len(saved) == 2
            said = [damage(draw.choice(files_in(folder)), draw) for folder in draw.choice((saved[:1], saved[1:], saved))]
            found.append({"damage": said, **self.resumed(name)})
        self.trainer.args.save_total_limit = 1
        return found

    def everything(self) -> dict[str, Any]:
        straight = forked(lambda: self.run("straight"))
        began = time.monotonic()
        again = forked(lambda: self.run("again"))
        duration = time.monotonic() - began

        def send(number: int) -> Callable[[], None]:
            return lambda: os.kill(os.getpid(), number)

        def twice() -> None:
            send(signal.SIGINT)()
            checkpoint.FILES = dying(12, send(signal.SIGINT))  # in the save that the first one asks for

        return {
            "straight": straight, "again": again, "crashes": self.crash_points(),
            "random": self.random_kills(duration), "corruptions": self.corruptions(),
            # Micro-batches 4, 5 and 8: within step 2, at the beginning of step 3, within step 4 (the second epoch).
            "mid_step": [self.in_step(f"mid-{number}", number, die) for number in (4, 5, 8)],
            "terminated": self.in_step("terminated", 5, send(signal.SIGTERM)),
            "interrupted": self.in_step("interrupted", 6, send(signal.SIGINT)),
            "last": self.in_step("last", 2 * STEPS - 1, send(signal.SIGTERM)),
            "twice": self.in_step("twice", 5, twice),
            "full": self.in_step("full", 5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, -1))),
        }  # fmt: skip


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def damage(path: Path, draw: random.Random) -> str:
    """Do to a file what disks, people and half-done copies do, so that its bytes change; say what was done."""
    data = path.read_bytes()
    at = draw.choice([place for place, byte in enumerate(data) if byte])  # where zeros are a change
    other = draw.choice([each for each in files_in(path.parent) if each.read_bytes() != data])
    kinds: dict[str, Callable[[], object]] = {
        "one bit flipped": lambda: path.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]),
        "cut off": lambda: path.write_bytes(data[:at]),
        "a block of zeros": lambda: path.write_bytes(data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]),
        "bytes added": lambda: path.write_bytes(data + draw.randbytes(draw.randrange(1, 100))),
        "another file's bytes": lambda: path.write_bytes(other.read_bytes()),
        "random bytes": lambda: path.write_bytes(draw.randbytes(len(data))),
        "gone": path.unlink,
        "a folder": lambda: (path.unlink(), path.mkdir()),
        "a link": lambda: (path.unlink(), path.symlink_to(other)),
        "a file too many": lambda: (path.parent / f"{path.name}.bak").write_bytes(data),
    }
    kind = draw.choice(list(kinds))
    kinds[kind]()
    return f"{path.parent.name}/{path.name}: {kind}"


def _sha256(tensors: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype}".encode())
        digest.update(tensors[name].detach().contiguous().reshape(-1).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    lab = Lab(Path(sys.argv[1]))
    lab.trainer.remove_callback(transformers.PrinterCallback)
    ready_to_fork()
    (lab.folder / "results.json").write_text(json.dumps(lab.everything()))
