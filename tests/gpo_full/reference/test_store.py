"""The reference store: one pass per weights and tokens, never per loss; what is read back is checked."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gpo_full.data.pairs import Pair
from gpo_full.data.pairs_on_disk import digests_of
from gpo_full.engine.model_plan import Plan
from gpo_full.reference.compute import Computed
from gpo_full.reference.store import _write, open_store
from gpo_full.reference.weights import weights_hash
from gpo_theory import InputError
from tests.support.pairs import ranked_pairs, some_pairs
from tests.support.tiny_models import tiny_model
from tests.support.trainings import Passes
from tests.support.two_sequences import response_sums, response_tokens

PAIRS = some_pairs(7)


def check(store: Any, model: Any, pairs: list[Pair], margin: str = "sum") -> None:
    """What is stored of the pairs is what a pass over each response alone computes."""
    expected = response_sums(model, pairs, margin).detach()
    torch.testing.assert_close(store.response_log_probabilities(pairs, margin), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("margin", ["sum", "mean"])
@pytest.mark.parametrize("layout", ["line", "rows", "apart"])
def test_values_are_those_of_separate_sequences_in_any_order(margin: str, layout: str, tmp_path: Path) -> None:
    model = tiny_model(dtype=torch.float64)
    check(open_store(model, PAIRS, tmp_path, plan=Plan(layout)), model, [PAIRS[3], PAIRS[0], PAIRS[3]], margin)


def test_tokens_are_kept_in_the_order_of_the_response(tmp_path: Path) -> None:
    model = tiny_model(dtype=torch.float64)
    for layout in ("line", "rows", "apart"):
        store = open_store(model, PAIRS[:1], tmp_path, plan=Plan(layout))
        expected = torch.cat(response_tokens(model, PAIRS[0])).detach()
        torch.testing.assert_close(torch.from_numpy(store.per_token.copy()), expected, rtol=1e-9, atol=1e-12)


def test_a_second_run_reads_and_recomputes_a_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo_full.reference.compute.BATCH_TOKENS", 30)
    model = tiny_model()
    passes = Passes(model)
    first = open_store(model, PAIRS, tmp_path)
    assert passes.count >= 4
    passes.count = 0
    second = open_store(model, list(reversed(PAIRS)), tmp_path)  # the order of the pairs does not matter
    assert 1 <= passes.count <= 3
    for name in ("keys", "starts", "lengths", "per_token"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("layout", ["line", "rows", "apart"])
def test_a_prompt_and_a_response_of_many_pairs_are_read_once(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = ranked_pairs(responses=5, prompts=10)
    random.Random(0).shuffle(pairs)
    parts = {pair.prompt: len(pair.prompt) for pair in pairs} | {
        pair.prompt + response: len(response) for pair in pairs for response in pair.responses}  # fmt: skip
    whole = sum(parts.values())
    monkeypatch.setattr("gpo_full.reference.compute.BATCH_TOKENS", whole // 3)
    read: list[int] = []

    def count(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        read.append(inputs["input_ids"].numel())

    model = tiny_model(dtype=torch.float64)
    model.register_forward_pre_hook(count, with_kwargs=True)
    store = open_store(model, pairs, tmp_path, plan=Plan(layout))
    laid, batches = sum(read), len(read)
    check(store, model, pairs)
    assert batches >= 2
    if layout == "line":
        assert max(read[:batches]) <= whole // 3
        # 10 prompts instead of 100, and 50 responses instead of 200, but for those of prompts that a batch's end divides.
        assert laid < 1.2 * whole
    check(open_store(model, pairs[:1], tmp_path, plan=Plan(layout)), model, pairs[:1])


def test_a_pair_larger_than_a_batch_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo_full.reference.compute.BATCH_TOKENS", 3)
    model = tiny_model(dtype=torch.float64)
    check(open_store(model, PAIRS, tmp_path), model, PAIRS)


def test_what_changes_the_values_changes_the_file(tmp_path: Path) -> None:
    model = tiny_model()
    open_store(model, PAIRS, tmp_path)
    open_store(model, PAIRS[1:], tmp_path)  # other tokens, as after another truncation
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3  # changed in memory only
    open_store(model, PAIRS, tmp_path)
    open_store(model.double(), PAIRS, tmp_path)
    open_store(tiny_model(attention="eager"), PAIRS, tmp_path)
    open_store(tiny_model(), PAIRS, tmp_path, plan=Plan("apart"))
    open_store(tiny_model(), PAIRS, tmp_path, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert len([*tmp_path.iterdir()]) == 7
    open_store(tiny_model(), PAIRS, tmp_path)
    assert len([*tmp_path.iterdir()]) == 7


def test_the_hash_sees_weights_and_configuration_not_where_they_came_from(tmp_path: Path) -> None:
    model = tiny_model(seed=1)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert weights_hash(loaded) == weights_hash(model)
    loaded.config.rms_norm_eps *= 2
    assert weights_hash(loaded) != weights_hash(model)
    assert weights_hash(tiny_model(seed=2)) != weights_hash(model)


def test_a_pair_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    store = open_store(tiny_model(), PAIRS[:2], tmp_path)
    with pytest.raises(KeyError, match="pair 2 of 2 is not in the reference store"):
        store.response_log_probabilities([PAIRS[0], PAIRS[2]])


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "other"])
def test_a_damaged_file_is_named_and_never_used(damage: str, tmp_path: Path) -> None:
    model = tiny_model()
    open_store(model, PAIRS, tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-7] ^= 1
    elif damage == "other":  # a valid store of other pairs under this name
        open_store(model, PAIRS[:2], tmp_path / "other")
        content = bytearray(next((tmp_path / "other").iterdir()).read_bytes())
    path.write_bytes(content[:-9] if damage == "cut" else b"" if damage == "empty" else content)
    with pytest.raises(InputError, match=f"{path.name}.* is damaged; delete it"):
        open_store(model, PAIRS, tmp_path)


def test_a_store_whose_values_are_of_another_model_is_refused(tmp_path: Path) -> None:
    open_store(tiny_model(seed=5), PAIRS, tmp_path, weights="claimed")
    with pytest.raises(InputError, match=r"is off by .* nats per token"):
        open_store(tiny_model(seed=6), PAIRS, tmp_path, weights="claimed")


def test_a_pass_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("power cut")

    model = tiny_model()
    model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="power cut"):
        open_store(model, PAIRS, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_file_holds_tensors_only(tmp_path: Path) -> None:
    open_store(tiny_model(), PAIRS, tmp_path)
    tensors = load_file(next(tmp_path.iterdir()))
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "keys": torch.uint8, "starts": torch.int64, "lengths": torch.int64, "per_token": torch.float32}  # fmt: skip
    assert int(tensors["lengths"].sum()) == len(tensors["per_token"])


# The child may take 16 MiB of memory of its own, enough for the stack of a thread that a library starts late; the values
# are 64 MiB on disk. Mapped files do not count.
CHILD = """
import resource, sys
from pathlib import Path
import torch
from gpo_full.reference import store as reference_store
from gpo_full.data.pairs import Pair

def own():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmData:"))) * 1024

reference_store.ROWS = 1
torch.set_num_threads(1)  # each would want memory for its stack
limit = own() + 16 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
store = reference_store._read(Path(sys.argv[1]), "large")
if sys.argv[2] == "rows":
    pairs = [Pair((row + 1,), (2,) * 32_768, (3,) * 32_768, 1) for row in (0, 255)]
    print(store.response_log_probabilities(pairs, "mean").tolist())
else:
    kept = store.per_token.copy()
"""


@pytest.mark.slow
def test_a_store_several_times_larger_than_the_memory_that_is_allowed(tmp_path: Path) -> None:
    """256 pairs of two responses of 32,768 tokens, log-probability minus their row and minus twice it."""
    pairs = [Pair((row + 1,), (2,) * 32_768, (3,) * 32_768, 1) for row in range(256)]
    keys = digests_of(pairs).view("S32")[:, 0]
    order = keys.argsort()
    computed = (Computed(np.array([at]), np.full((1, 2), 32_768), np.repeat(np.float32([-row, -2 * row]), 32_768))
                for at, row in enumerate(order.tolist()))  # fmt: skip
    path = tmp_path / "large.safetensors"
    _write(path, "large", keys[order], computed)
    assert path.stat().st_size > 4 * 16 * 2**20
    found, whole = (subprocess.run([sys.executable, "-c", CHILD, str(path), mode], capture_output=True, text=True, timeout=100)
                    for mode in ("rows", "memory"))  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout) == [[0, 0], [-255, -510]]
    assert "MemoryError" in whole.stderr  # the limit is one
