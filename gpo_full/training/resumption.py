"""Going on where a run was saved: what must be the same, what a checkpoint keeps of it, and putting that back."""

__all__ = ["settings", "data_hash", "record", "changes", "saved_parts", "restore"]

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from gpo_full.checkpoints.atomic import Checkpoint, DamagedCheckpoint
from gpo_full.checkpoints.sharded import SavedShards
from gpo_full.checkpoints.state import decode, encode
from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import digests_of, optional_columns_of
from gpo_full.training.config import GPOConfig
from gpo_theory.errors import InputError, nearest

# Optimizer, schedule and settings; and the random generators of every rank.
RESUME_FILE, TENSORS_FILE, RANDOM_FILE = "resume.json", "resume.safetensors", "random.safetensors"
# Of a sharded run: a file of each rank instead.
PIECES = "resume"
# Fields of the configuration that do not change what is computed.
UNRECORDED = {"output_dir", "reference_store", "logging_dir", "run_name", "disable_tqdm", "report_to", "project"}


def settings(args: GPOConfig) -> dict[str, Any]:
    """Return the configuration as JSON, without what does not change what is computed."""
    values = {name: value for name, value in args.to_dict().items() if name not in UNRECORDED}
    if args.automatic_logging:
        values["logging_steps"] = None  # it follows from max_steps, and is no setting of its own
    return json.loads(json.dumps(values, default=str))  # type: ignore[no-any-return]


def data_hash(pairs: Sequence[Pair]) -> str:
    """Return a sha256 of the pairs in their order: token ids and optional columns."""
    return hashlib.sha256(digests_of(pairs).tobytes() + optional_columns_of(pairs).tobytes()).hexdigest()


def record(args: GPOConfig, data: str, reference_weights: str) -> dict[str, Any]:
    """Return what a resumed run must agree with, as JSON; `data` is `data_hash`."""
    return {**settings(args), "data": data, "reference_weights": reference_weights, "world_size": args.world_size}


def changes(found: Checkpoint, now: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    """Return what differs from the run that was saved; InputError if any of it is not allowed."""
    before = found.json(RESUME_FILE)["record"]
    for name in {*allowed} - {*before, *now}:
        raise InputError(f"allow_changes names {name!r}, which is no setting{nearest(name, now)}")
    changed = {name: [before.get(name), now.get(name)] for name in sorted({*before, *now})
               if before.get(name) != now.get(name)}  # fmt: skip
    refused = [f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items() if name not in allowed]
    if refused:
        raise InputError(f"{found.path.name} is of another run: {'; '.join(refused)}")
    return changed


def saved_parts(recorded: Mapping[str, Any], optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """Return the files of a checkpoint from which `restore` puts optimizer and schedule back."""
    tensors: dict[str, Tensor] = {}
    states = {name: encode(part.state_dict(), tensors)
              for name, part in (("optimizer", optimizer), ("scheduler", scheduler))}  # fmt: skip
    return {RESUME_FILE: {"record": recorded, **states}, TENSORS_FILE: tensors}


def restore(found: Checkpoint, optimizer: Any, scheduler: Any, *, keep_settings: bool) -> None:
    """Put optimizer and schedule back; with `keep_settings`, what this run sets of them stands."""
    resume = found.json(RESUME_FILE)
    try:
        tensors = _tensors(found, resume, optimizer)
        parts = {name: decode(resume[name], tensors) for name in ("optimizer", "scheduler")}
        if keep_settings:
            _keep_settings(parts, optimizer, scheduler)
        optimizer.load_state_dict(parts["optimizer"])
        scheduler.load_state_dict(parts["scheduler"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{found.path.name}: {RESUME_FILE} does not fit this run: {error}") from None


def _tensors(found: Checkpoint, resume: Mapping[str, Any], optimizer: Any) -> dict[str, Tensor]:
    """The saved tensors, those of a parameter's moments sharded as the parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if TENSORS_FILE in found.names and not any(isinstance(parameter, DTensor) for parameter in parameters):
        return found.tensors(TENSORS_FILE)
    saved = SavedShards(found, PIECES)
    names: Any = {key: key for key in saved.shapes}
    moments = decode(resume["optimizer"], names)["state"]
    owner = {key: parameters[i] for i, each in moments.items() for key in each.values()
             if saved.shapes.get(key) == tuple(parameters[i].shape)}  # fmt: skip
    return {key: saved.read(key, owner.get(key)) for key in names}


def _keep_settings(parts: dict[str, Any], optimizer: Any, scheduler: Any) -> None:
    """Let the new run's settings of optimizer and schedule stand, at the step of the old one."""
    if not isinstance(scheduler, LambdaLR):
        raise InputError(f"settings cannot change under the schedule {type(scheduler).__name__}")
    step = parts["scheduler"]["last_epoch"]
    rates = [base * of(step) for base, of in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    parts["scheduler"] |= {"base_lrs": scheduler.base_lrs, "_last_lr": rates}
    groups = optimizer.state_dict()["param_groups"]
    parts["optimizer"]["param_groups"] = [{**group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
