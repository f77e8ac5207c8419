"""Resuming a run: what must be the same, which checkpoint it continues, and putting back what that one keeps."""

__all__ = ["Resumed", "changes", "check_loaded", "check_trained", "chosen_checkpoint", "data_hash", "record", "restore",
           "restore_generators", "resumed", "saved_parts", "settings"]  # fmt: skip

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from gpo_full.checkpoints import atomic
from gpo_full.checkpoints.atomic import Checkpoint, DamagedCheckpoint
from gpo_full.checkpoints.sharded import SavedShards
from gpo_full.checkpoints.state import decode, encode, random_state, set_random_state
from gpo_full.config import GPOConfig
from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import digests_of, optional_columns_of
from gpo_full.distributed import largest, stacked, together
from gpo_theory.errors import InputError, nearest

# Optimizer, schedule and settings; and the random generators of every rank.
RESUME_FILE, TENSORS_FILE, RANDOM_FILE = "resume.json", "resume.safetensors", "random.safetensors"
# Of a sharded run: a file of each rank instead.
PIECES = "resume"
# Fields of the configuration that do not change what is computed.
UNRECORDED = {"output_dir", "reference_store", "logging_dir", "run_name", "disable_tqdm", "report_to", "project",
              "resume_from_checkpoint"}  # fmt: skip
# Settings of earlier versions, and the value with which such a run computed what a run without them computes.
REMOVED = {"compile_mlp": False, "prompt_from": None}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumed:
    """What a training continues: a verified checkpoint, and the settings that differ, by name [old, new]."""

    checkpoint: Checkpoint
    changes: Mapping[str, Any]


def settings(args: GPOConfig) -> dict[str, Any]:
    """Return the configuration as JSON, without what does not change what is computed."""
    values = {name: value for name, value in args.to_dict().items() if name not in UNRECORDED}
    if args.automatic_logging:
        values["logging_steps"] = None  # it follows from max_steps, and is no setting of its own
    return json.loads(json.dumps(values, default=str))  # type: ignore[no-any-return]


def data_hash(pairs: Sequence[Pair]) -> str:
    """Return a sha256 of the pairs in their order: token ids and optional columns."""
    return hashlib.sha256(digests_of(pairs).tobytes() + optional_columns_of(pairs).tobytes()).hexdigest()


def record(args: GPOConfig, *, data: str, reference_weights: str) -> dict[str, Any]:
    """Return what a resumed run must agree with, as JSON; `data` is `data_hash`."""
    return {**settings(args), "data": data, "reference_weights": reference_weights, "world_size": args.world_size}


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], allowed: Collection[str], *, run: str, hint: str = ""
) -> dict[str, list[Any]]:
    """Return the settings in which a run differs from `before`, by name [old, new].

    Raises InputError, which names `run` and ends with `hint`, if one of them is not in `allowed`, and for a name in
    `allowed` that is no setting. A setting that this version no longer has differs only if it had an effect.

    >>> changes({"beta": 0.1, "compile_mlp": False}, {"beta": 0.2}, ["beta"], run="run")
    {'beta': [0.1, 0.2]}
    """
    before = {name: value for name, value in before.items() if name in now or value != REMOVED.get(name, ...)}
    for name in sorted({*allowed} - {*before, *now}):
        raise InputError(f"{name!r} may change, but is no setting of a run{nearest(name, now)}")
    found = {name: [before.get(name), now.get(name)] for name in sorted({*before, *now})
             if before.get(name) != now.get(name)}  # fmt: skip
    if "bf16" in allowed:  # which sets it where there is no accelerator
        allowed = {*allowed, "use_cpu"}
    refused = [f"{name}: {old!r} -> {new!r}" for name, (old, new) in found.items() if name not in allowed]
    if refused:
        other = "reference_weights" in found.keys() - {*allowed}
        what = " (the files of the model, or of the reference, have changed since: put those back)" if other else ""
        raise InputError(f"{run} is of another run: {'; '.join(refused)}{what}{hint}")
    return found


def chosen_checkpoint(wanted: str | bool | None, output: Path, accelerator: Any) -> Checkpoint | None:
    """Return the checkpoint to resume from: a path, the newest whole one of `output` (True), or None for the start.

    Raises NoGoodCheckpoint if there are some in `output` and none is whole, DamagedCheckpoint if that in the path is
    not, or if the ranks find different ones.
    """
    if not wanted:
        return None
    with together(accelerator, "no checkpoint that can be read"):
        found = atomic.verify(Path(wanted)) if isinstance(wanted, str) else atomic.load(output)
        step = -1 if found is None else found.step
    if largest(accelerator, step if accelerator.is_main_process else -1) != step:
        raise DamagedCheckpoint("the ranks find different checkpoints: output_dir must be a folder that all share")
    _log.warning("resuming from %s", found.path.name if found else "the start: no checkpoint was saved")
    return found


def resumed(found: Checkpoint, now: Mapping[str, Any], allowed: Collection[str]) -> Resumed:
    """Return what a run of the record `now` continues; InputError as in `changes`."""
    differing = changes(found.json(RESUME_FILE)["record"], now, allowed, run=found.path.name)
    if "lora_rank" in differing:
        raise InputError(f"lora_rank cannot change within a run, which is of other weights: {differing['lora_rank']}; "
                         f"start one with {found.path.name} as its model")  # fmt: skip
    return Resumed(found, differing)


def saved_parts(recorded: Mapping[str, Any], optimizer: Any, scheduler: Any, accelerator: Any) -> dict[str, Any]:
    """Return the files of a checkpoint from which optimizer, schedule and random generators are restored."""
    tensors: dict[str, Tensor] = {}
    states = {name: encode(part.state_dict(), tensors)
              for name, part in (("optimizer", optimizer), ("scheduler", scheduler))}  # fmt: skip
    generators = {name: stacked(accelerator, value) for name, value in random_state().items()}
    return {RESUME_FILE: {"record": recorded, **states}, TENSORS_FILE: tensors, RANDOM_FILE: generators}


def check_trained(found: Checkpoint, optimizer: Any) -> None:
    """Raise InputError if the checkpoint's optimizer is of other parameters: its moments are assigned by number."""
    groups = dict(found.json(RESUME_FILE)["optimizer"]["dict"])["param_groups"]
    before = sum(len(dict(each["dict"])["params"]) for each in groups)
    now = sum(len(group["params"]) for group in optimizer.param_groups)
    if before != now:
        raise InputError(f"{found.path.name} is of a run that trained {before} parameters, and this one trains {now}: "
                         f"that cannot change within a run; start one with {found.path.name} as its model")


def restore(resumed: Resumed, optimizer: Any, scheduler: Any) -> None:
    """Put optimizer and schedule back; after a change, what this run sets of them stays."""
    found = resumed.checkpoint
    saved = found.json(RESUME_FILE)
    try:
        tensors = _tensors(found, saved, optimizer)
        parts = {name: decode(saved[name], tensors) for name in ("optimizer", "scheduler")}
        if resumed.changes:
            _keep_settings(parts, optimizer, scheduler)
        if "optim" in resumed.changes:
            parts["optimizer"]["state"] = {}  # another optimizer's
        optimizer.load_state_dict(parts["optimizer"])
        scheduler.load_state_dict(parts["scheduler"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{found.path.name}: {RESUME_FILE} does not fit this run: {error}") from None


def restore_generators(found: Checkpoint, rank: int) -> None:
    """Put the random generators of a rank back; one that did not exist when the checkpoint was saved keeps its own."""
    generators = found.tensors(RANDOM_FILE)
    if rank < len(generators["torch"]):
        set_random_state({name: value[rank] for name, value in generators.items()})


def check_loaded(model: nn.Module, load_result: Any) -> None:
    """Raise DamagedCheckpoint if the weights that were loaded are not those of `model`, tied ones apart."""
    ignored: Any = getattr(model, "_keys_to_ignore_on_save", None)
    tied = {*(getattr(model, "all_tied_weights_keys", None) or ()), *(ignored or ())}
    strange = sorted({*load_result.missing_keys} - tied) + load_result.unexpected_keys
    if strange:
        raise DamagedCheckpoint(f"the checkpoint's weights are not this model's: {', '.join(strange[:5])}")


def _tensors(found: Checkpoint, saved: Mapping[str, Any], optimizer: Any) -> dict[str, Tensor]:
    """The saved tensors, those of a parameter's moments sharded as the parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if TENSORS_FILE in found.names and not any(isinstance(parameter, DTensor) for parameter in parameters):
        return found.tensors(TENSORS_FILE)
    pieces = SavedShards(found, PIECES)
    names: Any = {key: key for key in pieces.shapes}
    moments = decode(saved["optimizer"], names)["state"]
    owner = {key: parameters[i] for i, each in moments.items() for key in each.values()
             if pieces.shapes.get(key) == tuple(parameters[i].shape)}  # fmt: skip
    return {key: pieces.read(key, owner.get(key)) for key in names}


def _keep_settings(parts: dict[str, Any], optimizer: Any, scheduler: Any) -> None:
    """Put this run's settings of optimizer and schedule into the saved `parts`, at the step of those."""
    if not isinstance(scheduler, LambdaLR):
        raise InputError(f"settings cannot change under the schedule {type(scheduler).__name__}")
    step = parts["scheduler"]["last_epoch"]
    rates = [base * of(step) for base, of in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    parts["scheduler"] |= {"base_lrs": scheduler.base_lrs, "_last_lr": rates}
    groups = optimizer.state_dict()["param_groups"]
    parts["optimizer"]["param_groups"] = [{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
