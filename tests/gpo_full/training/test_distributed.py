"""Two processes equal one: DDP and FSDP2, through the Trainer and without it; crashed ranks; RELIABILITY's specifications by number.

The runs are made once, in `distributing.py`, whose results the tests read. Everything is in float64, on the CPU, by gloo.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gpo_full.checkpoints import atomic as checkpoint
from gpo_full.checkpoints.atomic import DamagedCheckpoint
from gpo_full.checkpoints.sharded import SavedShards, write_shards
from tests.support.commands import results_of
from tests.support.pairs import some_pairs
from tests.support.tiny_models import adapted, tiny_model
from tests.support.trainings import same, untimed
from tests.support.two_sequences import response_sums

PAIRS = some_pairs(11)


@dataclass(frozen=True)
class Ran:
    """The folder in which the runs were made, and what came of them."""

    folder: Path
    results: dict[str, Any]

    def of(self, run: str) -> list[dict[str, Any]]:
        """What each rank found, all having ended well."""
        assert not any(self.results[run]["codes"]), run
        found: list[dict[str, Any]] = self.results[run]["found"]
        return found

    def error(self, run: str, rank: int = 0) -> str:
        return (self.folder / f"{run}-{rank}.error").read_text()

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = load_file(self.folder / f"{name}.safetensors")
        return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("distributed")
    return Ran(folder, results_of("distributing", folder))


def compared(lines: list[dict[str, Any]], *but: str) -> list[dict[str, float]]:
    """Without what is another matter, and without the sign of rho where every rho is 0 up to the order of a sum."""
    return [{name: value for name, value in line.items() if name != "accuracy" or line["margin_std"] >= 1e-12}
            for line in untimed(lines, *but)]  # fmt: skip


def check_same_metrics(found: list[dict[str, Any]], expected: list[dict[str, Any]], *but: str) -> None:
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(compared(found, *but), compared(expected, *but), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("run", ["uneven", "intervals", "accumulated", "grouped", "few", "adapter", "bad"])
def test_two_ranks_under_ddp_are_one_process(run: str, ran: Ran) -> None:
    """Eleven pairs in steps of four; seven in micro-batches of one; fifteen of five prompts, grouped; three, of which the
    second rank gets none."""
    (one,), two = ran.of(f"{run}-1"), ran.of(f"{run}-2")
    assert [each["kind"][0] for each in two] == ["DistributedDataParallel"] * 2
    assert "Distributed" not in one["kind"][0]
    # Two ranks lay a prompt down twice whose pairs they divide.
    check_same_metrics(two[0]["metrics"], one["metrics"], *(["tokens"] if run == "grouped" else []))
    weights = [ran.weights(f"{run}-{which}") for which in ("1-0", "2-0", "2-1")]
    for name, value in weights[0].items():
        assert torch.equal(weights[1][name], weights[2][name]), name
        torch.testing.assert_close(weights[1][name], value, rtol=1e-6, atol=1e-9)
    for mine, theirs in zip(two[0]["events"][1:], one["events"], strict=True):
        assert mine == theirs


def test_liger_under_ddp_the_gradients_of_the_head_are_synced(ran: Ran) -> None:
    """A fused head that reads its weight behind DDP's back trains each rank's own: ours meets it inside the forward pass."""
    before = tiny_model(dtype=torch.float64).lm_head.weight.detach()
    one, mine, theirs = (ran.weights(f"uneven-{which}")["lm_head.weight"] for which in ("1-0", "2-0", "2-1"))
    assert float((mine - before).abs().max()) > 1e-3
    assert torch.equal(mine, theirs)
    torch.testing.assert_close(mine, one, rtol=1e-6, atol=1e-9)


def test_what_runs_is_recorded(ran: Ran) -> None:
    for run, model, parameters in (("uneven-2", "DistributedDataParallel", "replicated"), ("sharded", "FSDP2", "sharded")):
        expected = {"step": 0, "event": "distributed", "processes": 2, "model": model, "parameters": parameters}
        assert ran.of(run)[0]["events"][0] == expected
    assert ran.of("uneven-1")[0]["events"] == []


def test_the_uneven_run_s_first_epoch_is_every_pair_once(ran: Ran) -> None:
    (one,) = ran.of("uneven-1")
    tokens = sum(pair.size for pair in PAIRS)
    assert [line["tokens"] for line in one["metrics"]][2::3] == [tokens, 2 * tokens]
    assert ran.of("uneven-2")[0]["metrics"][-1]["tokens"] == 2 * tokens


def test_held_out_metrics_of_uneven_ranks_are_exact(ran: Ran) -> None:
    """Five pairs, two a batch, on two ranks: one rank's last pairs are there for the second time, and do not count."""
    policy, reference = (tiny_model(dtype=torch.float64) for _ in range(2))
    policy.load_state_dict(ran.weights("uneven-2-0"))
    with torch.no_grad():
        ratios = response_sums(policy, PAIRS[:5]) - response_sums(reference, PAIRS[:5])
    rho = ratios[:, 0] - ratios[:, 1]
    for found in ran.of("uneven-2"):
        assert found["held_out"]["eval_margin"] == pytest.approx(float(rho.mean()), rel=1e-6)
        assert found["held_out"]["eval_loss"] == pytest.approx(float(torch.log1p(torch.exp(-0.1 * rho)).mean()), rel=1e-6)


def test_spec_11_a_row_of_one_rank_that_is_not_finite_stops_the_step_on_both(ran: Ran) -> None:
    for run in ("bad-2", "sharded-bad"):
        events = ran.of(run)[0]["events"][1:]
        assert [event["step"] for event in events] == [2, 5]
        assert all(event["rows_with_loss_not_finite"] == [10] and len(event["rows"]) == 4 for event in events)
        assert [line["step"] for line in ran.of(run)[0]["metrics"]] == [1, 3, 4, 6]


def test_ranks_share_the_reference_pass(ran: Ran) -> None:
    """Eleven pairs by two ranks, three pairs by four, of which one has nothing to do."""
    (one,), two, few = (ran.of(f"pass-{name}") for name in ("one", "two", "few"))
    with torch.no_grad():
        expected = response_sums(tiny_model(dtype=torch.float64), PAIRS).tolist()
    for found in (one, *two):
        assert found["values"] == [pytest.approx(row, rel=1e-9) for row in expected]
        assert found["files"] == one["files"]  # one store, and nothing of its parts
    assert len(one["files"]) == 1
    assert sum(found["tokens"] for found in two) == one["tokens"] == sum(pair.size for pair in PAIRS)
    assert max(found["tokens"] for found in two) < 0.6 * one["tokens"]
    for found in few:
        assert found["values"] == [pytest.approx(row, rel=1e-9) for row in expected[:3]]
    assert sorted(found["tokens"] for found in few) == sorted([0, *(pair.size for pair in PAIRS[:3])])
    for run in ("pass-again", "pass-alone"):
        for found in ran.of(run):
            assert found["values"] == two[0]["values"]
            assert found["tokens"] < one["tokens"] / 2  # the few rows that are computed again


@pytest.mark.parametrize(("run", "count"), [("whole", 11), ("few", 1), ("again", 11), ("adapter", 11), ("left", 11)])
def test_the_reference_pass_of_a_sharded_model_is_that_of_the_whole_one(run: str, count: int, ran: Ran) -> None:
    """Of one pair, one rank has nothing to do; the second time, only three pairs are computed; an adapter is on; of a
    pass that was cut, one rank's part is there."""
    found = ran.of(f"sharded-pass-{run}")
    model = adapted() if run == "adapter" else tiny_model(dtype=torch.float64)
    with torch.no_grad():
        expected = response_sums(model, PAIRS[:count]).tolist()
    for each in found:
        assert each["parameters"] == ["DTensor"]
        assert each["values"] == [pytest.approx(row, rel=1e-9) for row in expected]
    assert found[0]["calls"] == found[1]["calls"] > 0  # else one would wait for the other for ever
    if run == "whole":
        assert found[0]["calls"] < ran.of("pass-one")[0]["calls"]


def test_folders_that_ranks_do_not_share_are_refused_before_the_pass(ran: Ran) -> None:
    assert ran.results["pass-apart"]["codes"] == [12, 13]
    assert "all processes must see one folder" in ran.error("pass-apart", 1)


def test_a_pass_that_fails_on_one_rank_raises_on_every_rank_at_once(ran: Ran) -> None:
    assert ran.results["pass-full"]["codes"] == [12, 99]
    assert max(ran.results["pass-full"]["seconds"]) < 10
    assert "No space left" in ran.error("pass-full", 1)
    mine, other = ran.of("pass-resumed")
    assert mine["tokens"] == 0 < other["tokens"]  # what the first rank had done is there
    assert mine["values"] == other["values"] == ran.of("pass-two")[0]["values"]
    assert mine["files"] == other["files"] == ran.of("pass-two")[0]["files"]
    assert ran.results["pass-damaged"]["codes"] == [13, 12]
    assert "1-of-2.safetensors' is damaged; delete it" in ran.error("pass-damaged")


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_spec_09_another_number_of_processes_goes_on_if_allowed(before: int, after: int, ran: Ran) -> None:
    """Saved at step 2 of 6, in the middle of an epoch and of a logging interval, both of three steps."""
    name = f"size-{before}-{after}"
    refused = ran.results[f"{name}-refused"]
    assert refused["codes"] == [13] * after
    error = ran.error(f"{name}-refused")
    assert f"world_size: {before} -> {after}" in error
    assert f"per_device_train_batch_size: {4 // before} -> {4 // after}" in error
    found = ran.of(name)[0]
    check_same_metrics(found["metrics"], ran.of("intervals-1")[0]["metrics"])
    (event,) = [event for event in found["events"] if event["event"] == "resumed with changes"]
    assert event["changes"]["world_size"] == [before, after]


@pytest.mark.parametrize("killed", [0, 1])
def test_spec_01_a_killed_rank_under_ddp_resumes_bitwise(killed: int, ran: Ran) -> None:
    assert ran.results[f"saved-{killed}-killed"]["codes"][killed] == -9
    straight, found = ran.of("saved"), ran.of(f"saved-{killed}")
    assert [event["event"] for event in found[0]["events"]].count("distributed") == 2  # it was begun twice
    assert compared(found[0]["metrics"]) == compared(straight[0]["metrics"])
    for rank in (0, 1):
        mine, theirs = (ran.weights(f"{run}-{rank}") for run in (f"saved-{killed}", "saved"))
        assert same(mine, theirs)


def test_ranks_sample_the_same_and_training_stays_as_it_is(ran: Ran) -> None:
    (one,), two = ran.of("sampled-1"), ran.of("sampled-2")
    assert [row["step"] for row in two[0]["samples"]] == [3, 6]  # written once, by the first rank
    for mine, theirs in zip(two[0]["samples"], one["samples"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    assert one["samples"][-1]["kl"] > 0
    plain, sampling = (ran.weights(f"{run}-0") for run in ("uneven-2", "sampled-2"))
    assert same(plain, sampling)


def test_spec_17_a_killed_rank_ends_the_others_within_ten_seconds(ran: Ran) -> None:
    for run, killed in (("killed", 1), ("sharded-second-killed", 1), ("sharded-first-killed", 0)):
        found, other = ran.results[run], 1 - killed
        assert found["codes"][killed] == -9
        assert found["codes"][other] not in (0, -9)
        assert found["seconds"][other] - found["seconds"][killed] < 10


@pytest.mark.parametrize(("run", "said"), [
    ("hung", "Timed out waiting 3000ms"), ("hung-between", "Operation timed out!"),
])  # fmt: skip
def test_spec_17_a_rank_that_hangs_ends_the_others_within_the_timeout(run: str, said: str, ran: Ran) -> None:
    found = ran.results[run]  # a timeout of three seconds; the launcher ends the one that hangs
    assert found["codes"] == [99, -9]
    assert 2 <= found["seconds"][0] < 13  # the wait may have begun a little before the other rank hangs; ten seconds to end
    assert said in ran.error(run)


@pytest.mark.parametrize("run", ["full", "sharded-full"])
def test_spec_18_a_save_that_fails_on_the_first_rank_raises_on_every_rank_at_once(run: str, ran: Ran) -> None:
    assert ran.results[run]["codes"] == [11, 12]
    assert max(ran.results[run]["seconds"]) < 10  # of a timeout of 120
    assert "No space left on device" in ran.error(run)
    assert ran.error(run, 1) == ("OtherRankFailed: checkpoint-2 could not be saved on " "another rank, which says why")
    assert not list((ran.folder / run).glob("checkpoint-*"))


def test_spec_16_a_signal_to_one_rank_finishes_the_step_on_both(ran: Ran) -> None:
    assert ran.results["terminated"]["codes"] == [143, 143]
    assert checkpoint.verify(ran.folder / "terminated" / "checkpoint-2").step == 2


@pytest.mark.parametrize(("run", "reason"), [
    ("asked-2", r"fsdp=True is refused: 2 process(es) on cpu would run unsharded"),
    ("asked-1", r"fsdp=True is refused: 1 process(es) on cpu would run unsharded"),
    ("launched", r"sharding (FSDP) was asked for, but 2 process(es) on cpu would run MULTI_CPU"),
    ("precision", "the launcher's mixed_precision is 'bf16', the run's 'no'"),
    ("empty", "fsdp_cpu_ram_efficient_loading is refused"),
    ("forged", "asked for was FSDP2 with sharded parameters, but what would run is DistributedDataParallel with replicated"),
])  # fmt: skip
def test_a_run_that_asked_for_sharding_and_is_not_sharded_is_refused(run: str, reason: str, ran: Ran) -> None:
    for rank, code in enumerate(ran.results[run]["codes"]):
        if rank and ran.error(run, rank).startswith("DistNetworkError"):
            continue  # rank 0, to which it was about to connect, had been refused and was gone
        assert code == 13
        assert reason in ran.error(run, rank)


@pytest.mark.parametrize("model", ["plain", "tied"])
def test_the_core_under_fully_shard_is_one_process(model: str, ran: Ran) -> None:
    halves = [each[model] for each in ran.of("core")]
    for found in halves:
        assert "FSDPModule" in found["kind"]
        assert found["parameters"] == ["DTensor"]
        assert found["reference"] < 1e-10
        assert found["losses"][1] == pytest.approx(found["losses"][0], rel=1e-9)
        assert len({*found["losses"][0]}) == 3  # they are of three steps
        assert found["weights"] < 1e-6
        assert found["gradients"] < 1e-6  # of the third step, after two of the optimizer
        assert found["pieces"]["model"] is found["pieces"]["whole"] is found["pieces"]["moments"] is True
    assert sum(found["local"] for found in halves) == halves[0]["all"]


def test_the_trainer_under_fsdp2_is_one_process(ran: Ran) -> None:
    """accelerate is made to shard on the CPU; what runs then is FSDP2, as its classes and parameters say."""
    for found in ran.of("sharded"):
        assert "FSDPModule" in found["kind"]
        assert found["parameters"] == ["DTensor"]
        assert found["referred"] == [True, True]  # rows of the stores of both sets of pairs, computed again in pieces
        assert found["held_out"]["eval_loss"] == pytest.approx(ran.of("uneven-1")[0]["held_out"]["eval_loss"], rel=1e-6)
    check_same_metrics(ran.of("sharded")[0]["metrics"], ran.of("uneven-1")[0]["metrics"])
    one, two = ran.weights("uneven-1-0"), ran.weights("sharded-model/model")
    for name, value in two.items():
        torch.testing.assert_close(value, one[name], rtol=1e-6, atol=1e-9)


def test_a_sharded_adapter_is_that_of_ddp_and_resumes_bitwise(ran: Ran) -> None:
    found, resumed = (ran.of(f"sharded-adapter{more}") for more in ("", "-resumed"))
    check_same_metrics(found[0]["metrics"], ran.of("adapter-2")[0]["metrics"])
    assert [event["event"] for event in resumed[0]["events"]].count("distributed") == 2
    assert compared(resumed[0]["metrics"]) == compared(found[0]["metrics"])
    once, twice = (ran.weights(f"sharded-adapter{more}-model/adapter_model") for more in ("", "-resumed"))
    assert same(once, twice)
    assert any("lora_B" in name and float(value.abs().max()) > 0 for name, value in once.items())


def test_under_fsdp2_half_precision_ends_within_the_layers(ran: Ran) -> None:
    """Log-probabilities leave the model in float32, which accelerate would round; the run is as far from DDP's as rounding."""
    found, other = ran.of("sharded-half"), ran.of("replicated-half")
    for each in found:
        assert {*each["types"]} == {"torch.float32"}
        assert each["moments"] == "torch.float32"
        assert len(each["rounded"]) == 6
        assert not any(each["rounded"])  # gradients are added up in float32
    for mine, theirs in zip(found[0]["metrics"], other[0]["metrics"], strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=0.02)
    assert found[0]["metrics"][-1]["loss"] < 0.5


@pytest.mark.parametrize("killed", ["first", "second"])
def test_spec_01_a_rank_killed_in_a_sharded_save_resumes_bitwise(killed: str, ran: Ran) -> None:
    """The second rank dies between the two files of its pieces, the first when all is written but not in place."""
    resumed = ran.of(f"sharded-{killed}-resumed")[0]
    assert resumed["there"] == ["checkpoint-2"]
    assert compared(resumed["metrics"]) == compared(ran.of("sharded")[0]["metrics"])
    once, twice = (checkpoint.verify(ran.folder / run / "checkpoint-6") for run in ("sharded", f"sharded-{killed}"))
    assert once.names == twice.names
    shards = [name for name in once.names if name.startswith("resume-") and name.endswith(".safetensors")]
    assert len(shards) == 2
    for name in (*shards, "model.safetensors", "random.safetensors"):
        mine, theirs = once.tensors(name), twice.tensors(name)
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            torch.testing.assert_close(value, theirs[key], rtol=0, atol=0, equal_nan=True)
    assert not [path for path in (ran.folder / f"sharded-{killed}").iterdir() if path.name.startswith(".")]


def test_a_sharded_checkpoint_goes_on_in_one_process(ran: Ran) -> None:
    gathered = ran.of("gathered")[0]
    assert [event["step"] for event in gathered["events"] if event["event"] == "resumed with changes"] == [2]
    check_same_metrics(gathered["metrics"], ran.of("uneven-1")[0]["metrics"])


def test_a_part_that_is_in_no_file_is_an_error_and_so_is_another_shape(tmp_path: Path) -> None:
    write_shards(tmp_path, "part", {"w": torch.arange(6.0).view(3, 2), "scalar": torch.tensor(2.0)}, 0, 1)
    found = checkpoint.Checkpoint(tmp_path, 1, frozenset(path.name for path in tmp_path.iterdir()))
    pieces = SavedShards(found, "part")
    assert torch.equal(pieces.read("w"), torch.arange(6.0).view(3, 2))
    assert float(pieces.read("scalar")) == 2.0
    with pytest.raises(DamagedCheckpoint, match=r"w has shape \[3, 2\], not \[2, 2\]"):
        pieces.read("w", torch.zeros(2, 2))
    layout = tmp_path / "part-00000-of-00001.json"
    places = json.loads(layout.read_text())
    places["w"]["shape"] = [4, 2]
    layout.write_text(json.dumps(places))
    with pytest.raises(DamagedCheckpoint, match="a part of w is in no file"):
        SavedShards(found, "part").read("w")
