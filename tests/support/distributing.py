"""One warm process whose forks are the ranks of small runs; `python -m tests.support.distributing FOLDER` writes FOLDER/results.json.

Importing the Trainer costs seconds, so the ranks of every run are forks of this process, which makes no trainer itself.
A rank writes what it found to RUN-RANK.json, or dies. The tests read results.json: exit codes, seconds, findings.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import save_file
from torch import distributed
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from gpo_full import GPOConfig, GPOTrainer
from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.checkpoints import sharded as sharded_model
from gpo_full.checkpoints.atomic import CheckpointNotSaved
from gpo_full.checkpoints.sharded import SavedShards, sharded_copy, write_shards
from gpo_full.checkpoints.state import encode
from gpo_full.distributed import OtherRankFailed
from gpo_full.engine import log_probabilities
from gpo_full.engine.log_probabilities import response_log_probabilities
from gpo_full.engine.model_plan import Plan
from gpo_full.engine.packing import pack
from gpo_full.reference import compute
from gpo_full.reference.store import open_store
from gpo_full.training import saving
from gpo_full.training.callbacks import Interrupted
from gpo_full.training.start import launch
from gpo_theory import InputError
from tests.support.crashing import die, disk_full, dying
from tests.support.forking import ready_to_fork
from tests.support.pairs import ranked_pairs
from tests.support.places import ROOT
from tests.support.tables import write_rows
from tests.support.tiny_models import adapted, on_disk, tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, at_call, objects

# What a rank raises -> how it exits.
CODES = {CheckpointNotSaved: 11, OtherRankFailed: 12, InputError: 13}


class Ranks:
    """Runs of some ranks, each a fork, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results: dict[str, Any] = {}

    def run(self, name: str, world: int, work: Callable[[int], Any], hangs: int | None = None, **told: str) -> None:
        """Run `work(rank)` in `world` forks, and keep exit codes, seconds and what it returned by rank.

        The rank that `hangs` is killed once all others have ended; the seconds are then those since it hung.
        """
        port, began = get_free_port(), time.monotonic()
        children = {self._fork(name, rank, world, port, work, told): rank for rank in range(world)}
        codes, seconds = [0] * world, [0.0] * world
        while children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child:
                rank = children.pop(child)
                codes[rank], seconds[rank] = os.waitstatus_to_exitcode(status), time.monotonic() - began
            elif [*children.values()] == [hangs] or time.monotonic() - began > 60:
                for child in children:
                    os.kill(child, signal.SIGKILL)
            else:
                time.sleep(0.01)
        if hangs is not None:
            hung = float((self.folder / "hung.since").read_text())
            seconds = [each + began - hung for each in seconds]
        found = [json.loads(path.read_text()) if path.exists() else None
                 for path in (self.folder / f"{name}-{rank}.json" for rank in range(world))]  # fmt: skip
        self.results[name] = {"codes": codes, "seconds": seconds, "found": found}

    def copy(self, run: str, other: str, *, but: str = "") -> Path:
        return Path(shutil.copytree(self.folder / run, self.folder / other, ignore=shutil.ignore_patterns(but)))

    def hang(self) -> None:
        """Say when, on the clock that all processes share, and do nothing for an hour."""
        (self.folder / "hung.since").write_text(str(time.monotonic()))
        time.sleep(3600)

    def _fork(self, name: str, rank: int, world: int, port: int, work: Callable[[int], Any], more: dict[str, str]) -> int:
        child = os.fork()
        if child:
            return child
        code = 0
        try:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                           "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **more}  # fmt: skip
            if world == 1:
                for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
                    del os.environ[key]
            (self.folder / f"{name}-{rank}.json").write_text(json.dumps(work(rank)))
        except Interrupted as error:
            code = int(error.code or 0)
        except BaseException as error:
            traceback.print_exc()
            code = next((code for kind, code in CODES.items() if isinstance(error, kind)), 99)
            (self.folder / f"{name}-{rank}.error").write_text(f"{type(error).__name__}: {error}")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def training(self, name: str, world: int, pairs: list[Any] = PAIRS, *, run: str | None = None,
                 hangs: int | None = None, told: dict[str, str] | None = None, **options: Any) -> None:  # fmt: skip
        """A training in `run`, or in the folder of its name, by ranks that are `told` this by their environment."""
        self.run(name, world, lambda rank: self.train(run or name, rank, pairs, **options), hangs=hangs, **(told or {}))

    def train(
        self, run: str, rank: int, pairs: list[Any], *, resume: Any = None, allow: tuple[str, ...] = (),
        spoil: Callable[[GPOTrainer], None] = lambda made: None, sharded: bool = False, **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Train, save the weights of each rank (of a sharded model, those of the whole), and return the metrics so far."""
        seen = watch_sharding() if sharded else {}
        settings = {"learning_rate": 1e-2, "num_train_epochs": 2, "save_strategy": "no", "lr_scheduler_type": "cosine",
                    "logging_steps": 1, "reference_store": str(self.folder / "references"), **options}  # fmt: skip
        others = {name: settings.pop(name, None) for name in ("eval_dataset", "processing_class")}
        model = settings.pop("model", None) or tiny_model(dtype=torch.float64)
        model = on_disk(model) if "lora_rank" in settings else model
        args = GPOConfig(output_dir=str(self.folder / run), use_cpu=True, disable_tqdm=True, **settings)
        made = GPOTrainer(model, args, pairs, **others)
        made.remove_callback(transformers.PrinterCallback)
        made.add_callback(rounded := Rounded(sharded))
        spoil(made)
        there = sorted(path.name for path in (self.folder / run).glob("checkpoint-*"))
        made.train(resume_from_checkpoint=resume, allow_changes=allow)
        parameters = {type(each).__name__ for each in made.model_wrapped.parameters()}
        if sharded:
            made.save_model(str(self.folder / f"{run}-model"))
        else:
            save_file({name: value.detach().clone() for name, value in made.model.state_dict().items()},
                      self.folder / f"{run}-{rank}.safetensors")  # fmt: skip
        held_out = made.evaluate() if made.eval_dataset is not None else {}
        moments = next(iter(made.optimizer.state.values()))["exp_avg"].dtype
        return {"kind": [each.__name__ for each in type(made.model_wrapped).__mro__], "parameters": sorted(parameters),
                "held_out": held_out, "there": there, "rounded": rounded.found, "moments": str(moments), **seen,
                **{name: self._lines(run, name) for name in ("metrics", "events", "samples")}}  # fmt: skip

    def _lines(self, run: str, name: str) -> list[dict[str, Any]]:
        return objects(self.folder, run, name) if (self.folder / run / f"{name}.jsonl").exists() else []


def at_micro_batch(number: int, rank: int, action: Callable[[], Any]) -> Callable[[GPOTrainer], None]:
    """In a rank, call `action` before its micro-batch `number`."""

    def spoil(made: GPOTrainer) -> None:
        if made.args.process_index == rank:
            made.compute_loss = at_call(number, made.compute_loss, action)

    return spoil


def fails_to_save(made: GPOTrainer) -> None:
    if made.args.process_index == 0:
        checkpoint.FILES = dying(20, disk_full)


def hangs_between_steps(ranks: Ranks) -> Callable[[GPOTrainer], None]:
    class Hanging(transformers.TrainerCallback):  # type: ignore[misc]
        def on_optimizer_step(self, args: Any, *_: Any, **named: Any) -> None:
            if args.process_index:
                ranks.hang()

    return lambda made: made.add_callback(Hanging())


def bad_row(made: GPOTrainer) -> None:
    made.train_dataset.reference[10, 0] = float("nan")


def everything(ranks: Ranks) -> None:
    for world in (1, 2):
        four: dict[str, Any] = {"per_device_train_batch_size": 4 // world}
        ranks.training(f"uneven-{world}", world, eval_dataset=PAIRS[:5], per_device_eval_batch_size=2, **four)
        ranks.training(f"intervals-{world}", world, logging_steps=3, **four)
        ranks.training(f"accumulated-{world}", world, PAIRS[:7], per_device_train_batch_size=2 // world,
                       gradient_accumulation_steps=2)  # fmt: skip
        # Llama's norms compute in float32, and a prompt that two ranks divide is attended to in another order.
        ranks.training(f"grouped-{world}", world, ranked_pairs(3, 5), model=tiny_model("gpt2", dtype=torch.float64),
                       group_by_prompt=True, **four)  # fmt: skip
        ranks.training(f"few-{world}", world, PAIRS[:3], per_device_train_batch_size=8 // world)
        ranks.training(f"adapter-{world}", world, lora_rank=2, **four)
        ranks.training(f"bad-{world}", world, spoil=bad_row, **four)
    sizes(ranks)
    failures(ranks)
    resumed(ranks)
    sampled(ranks)
    passes(ranks)
    ranks.run("core", 2, lambda rank: core(ranks.folder, rank))
    sharded(ranks)


def forge_sharding() -> None:
    """Let accelerate shard on the CPU, where it would silently not: the only way to run FSDP2 in the Trainer here."""
    original = accelerate.state.AcceleratorState.__init__

    def init(self: Any, *arguments: Any, fsdp_plugin: Any = None, **named: Any) -> None:
        original(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
        if fsdp_plugin is not None:
            if self._mixed_precision != "no":  # as it does on a device
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            forged = {"distributed_type": DistributedType.FSDP}
            accelerate.PartialState._shared_state |= forged
            accelerate.state.AcceleratorState._shared_state |= {**forged, "fsdp_plugin": fsdp_plugin}

    accelerate.state.AcceleratorState.__init__ = init


def launched(config: str) -> dict[str, str]:
    """What `accelerate launch` with a shipped configuration tells its processes."""
    words = ["--config_file", str(ROOT / "gpo_full" / "configs" / config), "--num_processes", "2", "script"]
    told = prepare_multi_gpu_env(_validate_launch_command(launch_command_parser().parse_args(words))[0])
    return {name: value for name, value in told.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def dies_writing_its_pieces(made: GPOTrainer) -> None:
    """A rank dies in its second save, one file of its two written."""
    write, count = saving.write_shards, 0

    def dying(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2 and made.args.process_index == 1:
            write(*arguments)[-1].unlink()
            die()
        return write(*arguments)

    saving.write_shards = dying


def dies_before_the_rename(made: GPOTrainer) -> None:
    """The first rank dies when its second checkpoint is whole, and not yet in its place."""
    rename = checkpoint.FILES.rename

    def dying(source: Path, target: Path) -> None:
        if target.name == "checkpoint-4":
            die()
        rename(source, target)

    if made.args.process_index == 0:
        checkpoint.FILES = replace(checkpoint.FILES, rename=dying)


class Rounded(transformers.TrainerCallback):  # type: ignore[misc]
    """Whether every gradient of a model in pieces, before each step, is a bfloat16 number."""

    def __init__(self, sharded: bool) -> None:
        self.found: list[bool] = []
        self.sharded = sharded

    def on_pre_optimizer_step(self, *_: Any, model: Any, **named: Any) -> None:
        local = [each.grad.to_local() for each in model.parameters() if each.grad is not None] if self.sharded else []
        self.found.append(all(torch.equal(each, each.bfloat16().to(each.dtype)) for each in local))


def watch_sharding() -> dict[str, Any]:
    """Shard, and note of which models log-probabilities of a reference are computed, and their types."""
    forge_sharding()
    seen: dict[str, Any] = {"referred": [], "types": []}
    log_ratios = compute.token_log_probabilities

    def noted(model: Any, *arguments: Any, **named: Any) -> Any:
        found = log_ratios(model, *arguments, **named)
        seen["referred"].append(sharded_model.is_sharded(model))
        seen["types"].append(str(found.dtype))
        return found

    compute.token_log_probabilities = noted
    return seen


def sharded(ranks: Ranks) -> None:
    """The Trainer under FSDP2: a run, two killed in a save and resumed, and one that goes on unsharded."""
    fsdp = launched("fsdp2.yaml")
    saving = {"save_strategy": "steps", "save_steps": 2}

    def train(name: str, world: int = 2, size: int = 2, **options: Any) -> None:
        ranks.training(name, world, sharded=True, told=fsdp, per_device_train_batch_size=size, **saving, **options)

    for name, pairs in (("whole", PAIRS), ("few", PAIRS[:1]), ("again", PAIRS), ("adapter", PAIRS), ("left", PAIRS)):
        folder, adapter = ranks.folder / f"sharded-pass-{name.replace('again', 'whole')}", name == "adapter"
        ranks.run(f"sharded-pass-{name}", 2, lambda rank: sharded_pass(folder, pairs, adapter=adapter), **fsdp)  # noqa: B023
    train("sharded", eval_dataset=PAIRS[:5], per_device_eval_batch_size=1)
    # Adapters of rank 2 on four processes, of which two hold nothing of some matrices.
    train("sharded-adapter", 4, 1, lora_rank=2)
    ranks.copy("sharded-adapter", "sharded-adapter-resumed", but="checkpoint-[46]")
    train("sharded-adapter-resumed", 4, 1, lora_rank=2, resume=True)
    # Without clipping, which would scale gradients after they are added up.
    half = {"bf16": True, "max_grad_norm": 0.0, "model": tiny_model()}
    train("sharded-half", **half)
    ranks.training("replicated-half", 2, per_device_train_batch_size=2, **half)
    for which, spoil in (("second", dies_writing_its_pieces), ("first", dies_before_the_rename)):
        train(f"sharded-{which}-killed", run=f"sharded-{which}", spoil=spoil)
        train(f"sharded-{which}-resumed", run=f"sharded-{which}", resume=True)
    train("sharded-full", spoil=fails_to_save)
    train("sharded-bad", spoil=bad_row)
    ranks.copy("sharded", "gathered", but="checkpoint-[46]")
    ranks.training("gathered", 1, per_device_train_batch_size=4, per_device_eval_batch_size=1, **saving, resume=True,
                   allow=("world_size", "per_device_train_batch_size"))  # fmt: skip
    # What was asked for is FSDP2, and what runs is DDP; and what the launcher says is not what the run says.
    ranks.training("precision", 1, told={"ACCELERATE_MIXED_PRECISION": "bf16"})
    ranks.training("empty", 2, told={**fsdp, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"})
    ranks.run("forged", 2, lambda rank: forged(ranks, rank), **fsdp)


def forged(ranks: Ranks, rank: int) -> Any:
    launch.check_asked.__code__ = (lambda accelerator, args: None).__code__
    return ranks.train("forged", rank, PAIRS, per_device_train_batch_size=2)


def core(folder: Path, rank: int) -> dict[str, Any]:
    """The engine without a Trainer, its model sharded by torch alone: reference, loss, gradients, a step, pieces."""
    distributed.init_process_group("gloo")
    found: dict[str, Any] = {}
    for name, changes in (("plain", {}), ("tied", {"tie_word_embeddings": True})):
        plain, model = (tiny_model(dtype=torch.float64, **changes) for _ in range(2))
        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
        sides = []
        for each, world in ((plain, 1), (model, 2)):
            # A pass without gradients leaves the root gathered: an optimizer made after it would miss its shards.
            optimizer = torch.optim.AdamW(each.parameters(), lr=1e-2)
            store = open_store(each, PAIRS, folder / f"{name}-{world}-{rank}", plan=Plan("line"), weights=name)
            reference = store.response_log_probabilities(PAIRS)
            losses = [step(each, optimizer, reference, PAIRS if world == 1 else PAIRS[5 * rank : 5 + 6 * rank], world, number)
                      for number in range(3)]  # fmt: skip
            sides.append((each, optimizer, reference, losses))
        found[name] = {"kind": [each.__name__ for each in type(model).__mro__],
                       "parameters": sorted({type(each).__name__ for each in model.parameters()}),
                       "local": sum(each.to_local().numel() for each in model.parameters()),
                       "all": sum(each.numel() for each in model.parameters()), **compare(*sides)}  # fmt: skip
        found[name] |= {"pieces": pieces(folder / name, model, sides[1][1], rank)}
    return found


def resumed(ranks: Ranks) -> None:
    """Two ranks under DDP, saving every second step: to the end, and killed before the last micro-batch and gone on."""
    saving = {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 2}
    ranks.training("saved", 2, **saving)
    for which in (0, 1):
        ranks.training(f"saved-{which}-killed", 2, run=f"saved-{which}", spoil=at_micro_batch(6, which, die), **saving)
        ranks.training(f"saved-{which}", 2, resume=True, **saving)


def sampled(ranks: Ranks) -> None:
    """Samples during training, which every rank draws alike."""
    rows = [{"prompt": text, "target": "the mat"} for text in ("the cat", "a dog on")]
    prompts = write_rows(ranks.folder / "prompts.jsonl", rows)
    options = {"sample_every": 3, "sample_prompts": str(prompts), "sample_length": 4,
               "processing_class": tiny_tokenizer(), "sample_reward": "tests.gpo_full.training.test_live_evaluation:shorter"}  # fmt: skip
    for world in (1, 2):
        ranks.training(f"sampled-{world}", world, per_device_train_batch_size=4 // world, **options)


def passes(ranks: Ranks) -> None:
    """The reference pass alone: by one process, by two, by four for three pairs, and by two of which something is wrong."""
    for name, world, count in (("one", 1, 11), ("two", 2, 11), ("few", 4, 3)):
        ranks.run(f"pass-{name}", world, lambda rank: reference_pass(ranks.folder / f"pass-{name}", PAIRS[:count]))  # noqa: B023
    # What was made by two is read by two, and by one.
    ranks.run("pass-again", 2, lambda rank: reference_pass(ranks.folder / "pass-two", PAIRS))
    ranks.run("pass-alone", 1, lambda rank: reference_pass(ranks.folder / "pass-two", PAIRS))
    ranks.run("pass-apart", 2, lambda rank: reference_pass(ranks.folder / f"pass-apart-{rank}", PAIRS))
    full = ranks.folder / "pass-full"
    ranks.run("pass-full", 2, lambda rank: reference_pass(full, PAIRS, fails=rank == 1))
    ranks.copy("pass-full", "sharded-pass-left")
    damaged = ranks.copy("pass-full", "pass-damaged")
    (part,) = damaged.glob("*-of-*")
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    ranks.run("pass-damaged", 2, lambda rank: reference_pass(damaged, PAIRS))
    ranks.run("pass-resumed", 2, lambda rank: reference_pass(full, PAIRS))


def sharded_pass(folder: Path, pairs: list[Any], *, adapter: bool = False) -> dict[str, Any]:
    """A pass of a model in pieces, or of one with an adapter that is not 0; of two ranks one has more batches than the other."""
    forge_sharding()
    model = adapted() if adapter else tiny_model(dtype=torch.float64)
    return reference_pass(folder, pairs, model=lambda accelerator: sharded_copy(model, accelerator))


def reference_pass(folder: Path, pairs: list[Any], *, fails: bool = False, model: Any = None) -> dict[str, Any]:
    """What a rank of the pass found, the tokens that it read itself, and what is in the folder then."""
    tokens: list[int] = []

    def counted(model: Any, batch: Any, **options: Any) -> torch.Tensor:
        if fails:
            raise OSError(28, "No space left on device")
        tokens.append(int((batch.block > 0).sum()))
        return log_probabilities.token_log_probabilities(model, batch, **options)

    compute.token_log_probabilities, compute.BATCH_TOKENS = counted, 30
    accelerator = accelerate.Accelerator(cpu=True)
    reference = tiny_model(dtype=torch.float64) if model is None else model(accelerator)
    # Before the pass: what it needs last, it leaves whole.
    parameters = sorted({type(each).__name__ for each in reference.parameters()})
    store = open_store(reference, pairs, folder, plan=Plan("line"), weights="theirs", accelerator=accelerator)
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
    return {"values": store.response_log_probabilities(pairs).tolist(), "tokens": sum(tokens), "calls": len(tokens),
            "parameters": parameters, "files": sorted(path.name for path in folder.iterdir())}  # fmt: skip


def step(model: Any, optimizer: Any, reference: torch.Tensor, pairs: Any, world: int, number: int) -> float:
    """One step on a rank's part of the pairs; the mean loss of all."""
    rows = [PAIRS.index(pair) for pair in pairs]
    x = response_log_probabilities(model, pack(pairs, "line")) - reference[rows]
    loss = -torch.nn.functional.logsigmoid(0.3 * (x[:, 0] - x[:, 1])).sum() / len(PAIRS)
    optimizer.zero_grad()
    (loss * world).backward()  # sharding averages over ranks
    optimizer.step()
    total = loss.detach().clone()
    if world > 1:
        distributed.all_reduce(total)
    return float(total)


def compare(one: Any, two: Any) -> dict[str, Any]:
    (plain, _, reference, losses), (model, _, other_reference, other_losses) = one, two
    whole = {name: (each.full_tensor(), each.grad.full_tensor()) for name, each in model.named_parameters()}
    worst = [max(float((whole[name][i] - (each, each.grad)[i]).norm() / (each, each.grad)[i].norm())
                 for name, each in plain.named_parameters()) for i in (0, 1)]  # fmt: skip
    return {"reference": float((reference - other_reference).abs().max()), "losses": [losses, other_losses],
            "weights": worst[0], "gradients": worst[1]}  # fmt: skip


def pieces(folder: Path, model: Any, optimizer: Any, rank: int) -> dict[str, Any]:
    """Save in pieces, spoil everything, put it back; and read each tensor whole, as one process would."""
    saved = {name: value for name, value in model.state_dict().items() if name not in model.all_tied_weights_keys}
    moments: dict[str, Any] = {}
    encode(optimizer.state_dict(), moments)
    before = {name: value.to_local().clone() for name, value in saved.items()}
    whole = {name: value.full_tensor() for name, value in saved.items()}
    if rank == 0:
        folder.mkdir()
    distributed.barrier()
    files = [*write_shards(folder, "model", saved, rank, 2), *write_shards(folder, "moments", moments, rank, 2)]
    distributed.barrier()
    found = checkpoint.Checkpoint(folder, 1, frozenset(path.name for path in folder.iterdir()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(7)
    sharded_model.load_model(found, model)
    back, read = SavedShards(found, "model"), SavedShards(found, "moments")
    largest = max((value for value in moments.values() if isinstance(value, DTensor)), key=lambda value: value.numel())
    key = next(key for key, value in moments.items() if value is largest)
    return {"files": [path.name for path in files],
            "model": all(torch.equal(model.state_dict()[name].to_local(), value) for name, value in before.items()),
            "whole": all(torch.equal(back.read(name), whole[name]) for name in back.shapes),
            "moments": torch.equal(read.read(key, largest).to_local(), largest.to_local())}  # fmt: skip


def sizes(ranks: Ranks) -> None:
    """Specification 9: begun with one number of processes, gone on with another; saved within a logging interval."""
    for before, after in ((2, 1), (1, 2)):
        run = f"size-{before}-{after}"
        options: dict[str, Any] = {"run": run, "save_strategy": "steps", "save_steps": 2, "logging_steps": 3}
        ranks.training(f"{run}-begun", before, per_device_train_batch_size=4 // before, **options)
        options |= {"per_device_train_batch_size": 4 // after, "resume": str(ranks.folder / run / "checkpoint-2")}
        ranks.training(f"{run}-refused", after, **options)
        ranks.training(run, after, allow=("world_size", "per_device_train_batch_size"), **options)


def failures(ranks: Ranks) -> None:
    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    two = {"world": 2, "per_device_train_batch_size": 2}
    ranks.training("killed", spoil=at_micro_batch(3, 1, die), **two)
    ranks.training("hung", spoil=at_micro_batch(3, 1, ranks.hang), ddp_timeout=3, hangs=1, **two)
    ranks.training("hung-between", spoil=hangs_between_steps(ranks), ddp_timeout=3, hangs=1, **two)
    ranks.training("full", spoil=fails_to_save, save_strategy="steps", save_steps=2, **two)
    ranks.training("terminated", spoil=at_micro_batch(2, 1, terminate), save_strategy="steps", save_steps=100, **two)
    ranks.training("asked-2", run="asked", fsdp=True, **two)
    ranks.training("asked-1", run="asked", fsdp=True, **two | {"world": 1})
    ranks.training("launched", run="asked", told={"ACCELERATE_USE_FSDP": "true"}, **two)


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    ready_to_fork()
    lab = Ranks(Path(sys.argv[1]))
    everything(lab)
    (lab.folder / "results.json").write_text(json.dumps(lab.results))
