"""The base model that a saved adapter names, compared with the one that the adapter is trained on."""

__all__ = ["base_of", "check_named_base", "check_recorded_base", "hash_of_named_base"]

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpo_full.other_libraries import in_one_line
from gpo_full.reference.weights import PROVENANCE
from gpo_full.run_files import BASE_FILE
from gpo_full.training.start.adapters import HUB_NAME
from gpo_full.training.start.made_again import made_of
from gpo_theory.errors import InputError

# Words in the names of settings without an effect on what is computed here: dropout is off, tokens are the tokenizer's.
_NO_EFFECT = ("dropout", "layerdrop", "jitter", "token_id", "output_", "return_dict", "initializer", "label",
              "problem_type", "quantization_config")  # fmt: skip
_RECIPE = ("save that one by save_pretrained(FOLDER), with its tokenizer, and load it from there before the adapter is "
           "made, or train without an adapter")  # fmt: skip
_log = logging.getLogger(__name__)
Weights = Mapping[str, Callable[[], Tensor]]


def base_of(model: Any) -> tuple[str, str | None]:
    """Return the name of the base model, and its revision, with which the active adapter of `model` will be saved."""
    adapter = model.active_peft_config
    return adapter.base_model_name_or_path or model.get_base_model().name_or_path, adapter.revision


def check_named_base(model: Any) -> None:
    """Raise InputError if the adapter of `model` would be saved for a base model other than the one it is trained on.

    What the adapter names is read, one tensor at a time, and compared with the weights and the configuration in
    memory; what is saved with the adapter, as embeddings with new rows are, need not agree. A base that cannot be read
    is named in a warning. The weights of a quantised model are compared where they are not.
    """
    name, revision = base_of(model)
    if not name:
        raise InputError(f"the adapter would be saved without the name of its base model, which has none: {_RECIPE}")
    if not Path(name).is_dir() and not HUB_NAME.fullmatch(name):
        raise InputError(f"the adapter would be saved for the base model {name!r}, which is not there: {_RECIPE}")
    try:
        with in_one_line("it cannot be read"):
            found = _difference(model, model.get_base_model(), name, revision)
    except InputError as error:
        _log.warning("whether the base model in memory is %r, for which the adapter is saved, is not known: %s", name,
                     error)  # fmt: skip
        return
    if found:
        raise InputError(f"the adapter would be saved for the base model {name!r}, which is not the one that it is "
                         f"trained on: {found}; {_RECIPE}")  # fmt: skip


def hash_of_named_base(name: str, revision: str | None) -> str | None:
    """Return a sha256 of the weights and the configuration in the files of a base model.

    It depends neither on how they are divided into files nor on the library's version; None for other files than
    safetensors, and if they cannot be read.
    """
    try:
        with in_one_line(f"base model {name!r}"):
            weights, config = _stored(name, revision), _file(name, revision, "config.json")
            digest = hashlib.sha256(json.dumps(_settings(json.loads(Path(config or "").read_bytes()))).encode())
            for key, tensor in sorted(weights.items()):
                values = tensor().contiguous()
                digest.update(f"{key} {values.dtype} {tuple(values.shape)}".encode())
                digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    except InputError:
        return None
    return digest.hexdigest() if weights else None


def check_recorded_base(name: str, adapter: Any) -> None:
    """Raise InputError if the base model of our own adapter in the folder `name` is not what the training recorded."""
    record = Path(name) / BASE_FILE
    if not record.is_file():
        return
    with in_one_line(f"{str(record)!r} is damaged"):
        before = json.loads(record.read_bytes())["sha256"]
    now = hash_of_named_base(adapter.base_model_name_or_path, adapter.revision)
    if now is None:
        _log.warning("adapter %r: its base model %r cannot be compared with the one that it was trained on", name,
                     adapter.base_model_name_or_path)  # fmt: skip
    elif now != before:
        raise InputError(f"adapter {name!r} was trained on other weights or settings than its base model "
                         f"{adapter.base_model_name_or_path!r} has now: put those back, or remove {str(record)!r} to "
                         "use the adapter on these")  # fmt: skip


def _difference(model: Any, base: Any, name: str, revision: str | None) -> str | None:
    """Return in what the base model in memory is not the named one, None if they are one."""
    mine, kept = _own_weights(model, base)
    named = type(base.config).from_pretrained(name, revision=revision)
    ours, theirs = _settings(base.config.to_dict()), _settings(named.to_dict())
    grown = base.config.vocab_size != named.vocab_size and base.get_input_embeddings().weight.data_ptr() in kept
    for key in sorted({*ours, *theirs} - ({"vocab_size"} if grown else set())):
        if ours.get(key) != theirs.get(key):
            return f"{key} is {ours.get(key)!r} in memory, and {theirs.get(key)!r} there"
    made, stored = made_of(base), _stored(name, revision)
    if made is not None and next(_other_weights([*made.state_dict()], mine, stored, kept), None) is None:
        return None
    whole = _whole(base, name, revision)  # whose files may call or divide the weights otherwise
    return next(_other_weights([*whole], mine, whole, kept), None)


def _other_weights(names: list[str], mine: Mapping[str, Tensor], theirs: Weights, kept: set[int]) -> Iterator[str]:
    there = {mine[name].data_ptr() for name in names if name in mine and name in theirs}
    for name in names:
        if name not in mine or mine[name].data_ptr() in kept:
            continue
        if name not in theirs:
            if mine[name].data_ptr() not in there:  # else it is tied to one that is
                yield f"{name} is not there"
        elif not _equal(mine[name], theirs[name]()):
            yield f"{name} has other values in memory than there"


def _own_weights(model: Any, base: Any) -> tuple[dict[str, Tensor], set[int]]:
    """Return the base's tensors in memory by their names without the adapter, and where those are that it brings."""
    from peft import get_peft_model_state_dict
    from peft.utils.other import ModulesToSaveWrapper

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = get_peft_model_state_dict(model, adapter_name=model.active_adapter)
    replaced = tuple(f"{name}." for name, each in base.named_modules() if isinstance(each, ModulesToSaveWrapper))
    mine: dict[str, Tensor] = {}
    quantised = getattr(base, "is_quantized", False)
    for name, tensor in base.state_dict().items():
        if not name.startswith(replaced) and not (quantised and not tensor.is_floating_point()):
            for word in (".base_layer", ".token_adapter", ".original_module"):
                name = name.replace(word, "")
            mine.setdefault(name, tensor.detach())
    return mine, {each.data_ptr() for each in saved.values()}


def _equal(mine: Tensor, stored: Tensor) -> bool:
    """Return whether two tensors are equal but for a precision that one of them had before."""
    mine = mine.cpu()
    kinds = {stored.dtype, mine.dtype, torch.bfloat16, torch.float16} if mine.is_floating_point() else {mine.dtype}
    rounded = (stored.to(kind).to(mine.dtype) for kind in kinds)
    # NaN is equal to NaN here.
    return mine.shape == stored.shape and any(
        bool(((each == mine) | (each.isnan() & mine.isnan())).all()) for each in rounded)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration, as JSON, that change what is computed."""
    kept = {name: _settings(value) if isinstance(value, Mapping) else value for name, value in config.items()
            if name not in PROVENANCE and not any(word in name for word in _NO_EFFECT)}  # fmt: skip
    return json.loads(json.dumps(kept, sort_keys=True, default=str))  # type: ignore[no-any-return]


def _file(name: str, revision: str | None, file: str) -> str | None:
    from transformers.utils import cached_file

    found: str | None = cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False,
                                    _raise_exceptions_for_connection_errors=False)  # fmt: skip
    return found


def _stored(name: str, revision: str | None) -> dict[str, Callable[[], Tensor]]:
    """Return what reads each tensor of a model's safetensors files, none if it has no such files."""
    from safetensors import safe_open

    index = _file(name, revision, "model.safetensors.index.json")
    files = sorted({*json.loads(Path(index).read_bytes())["weight_map"].values()} if index else {"model.safetensors"})
    paths = [path for file in files if (path := _file(name, revision, file))]
    opened: list[Any] = [safe_open(path, framework="pt") for path in paths]
    return {key: partial(part.get_tensor, key) for part in opened for key in [*part.keys()]}


def _whole(base: Any, name: str, revision: str | None) -> dict[str, Callable[[], Tensor]]:
    options: dict[str, Any] = {"dtype": base.dtype, "revision": revision, "ignore_mismatched_sizes": True}
    model, report = type(base).from_pretrained(name, output_loading_info=True, **options)
    missing = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    return {key: partial(torch.Tensor.detach, value) for key, value in model.state_dict().items() if key not in missing}
