"""The benchmark: its pairs, its ideal by hand, contenders that take the same steps, and what it writes."""

import json
import math
import resource
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gpo_full.bench import contenders as bench_contenders
from gpo_full.bench import run as bench
from gpo_full.bench.contenders import CONTENDERS, missing
from gpo_full.bench.device import Place
from gpo_full.bench.run import Alone, Shape, Size, Turns, ideal_flops
from gpo_full.data.pairs import Pair

CPU = Place()
TINY = Size(layers=2, width=16, heads=4, kv_heads=2, intermediate=24, vocabulary=64, pairs=5)
SHORT = Shape(9, 6)
ALONE = {"ours": Alone(2.0, Turns([0.7, 0.5], [1.0, 3.0], [0.0, 0.5], [4e9])),
         "lean": Alone(5.0, Turns([0.7, 0.5], [6.0, 10.0], [1.0, 2.0], [2e9]))}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.SIZES, "tiny", TINY)
    monkeypatch.setitem(bench.SHAPES, "short", SHORT)
    monkeypatch.setattr(bench, "_alone", lambda name, *cell: ALONE.get(name, Alone(9.0, Turns([0.5], [3.0], [0.0], [1e9]))))


def test_lengths_are_quantiles_around_the_median() -> None:
    # Quantiles 1/6, 1/2 and 5/6 of a normal distribution are -0.96742, 0 and 0.96742; exp(0.96742 / 2) = 1.6221.
    pairs = Shape(100, 1000).pairs(3, 50)
    assert sorted(len(pair.prefix) for pair in pairs) == [62, 100, 162]
    for side in range(2):
        assert sorted(len(pair.responses[side]) for pair in pairs) == [616, 1000, 1622]
    many = Shape(40, 12).pairs(51, 50)
    assert statistics.median(len(pair.prefix) for pair in many) == 40
    for side in range(2):
        assert statistics.median(len(pair.responses[side]) for pair in many) == 12


def test_pairs_are_always_the_same_and_share_no_more_than_the_prompt() -> None:
    pairs = Shape(40, 12).pairs(8, 50)
    assert pairs == Shape(40, 12).pairs(8, 50)
    assert len({pair.prefix for pair in pairs}) == 8
    for pair in pairs:
        assert pair.prompt_length == len(pair.prefix)
        assert (pair.chosen[0], pair.rejected[0]) == (2, 3)
        assert all(4 <= token < 50 for token in (*pair.prefix, *pair.chosen[1:], *pair.rejected[1:]))
    assert [len(pair.prefix) for pair in pairs] != sorted(len(pair.prefix) for pair in pairs)


def test_the_ideal_by_hand() -> None:
    # Two layers: queries and output 4 x 4 each, keys and values 4 x 2 each, three matrices 4 x 3: 84 parameters.
    size = Size(layers=2, width=4, heads=2, kv_heads=1, intermediate=3, vocabulary=5, pairs=1)
    assert size.backbone == 168
    pair = Pair((5, 6, 7), (8, 2), (9,), 2)
    # 6 tokens. Predicted: the shared 7, then 8 and 2, then 9. Seen: 1 + 2 + 3, then 4 + 5, then 4: 19 pairs of tokens.
    assert ideal_flops(size, [pair]) == 6 * 6 * 168 + 6 * 4 * 5 * 4 + 12 * 19 * 4 * 2 == 8352
    assert ideal_flops(size, [pair, replace(pair, prefix=(4, 6, 7))]) == 2 * 8352
    assert ideal_flops(size, [pair, pair]) == 8352  # what is shared is computed once


@pytest.mark.parametrize("size", [TINY, Size(3, 12, 3, 1, 20, 30, 1), Size(1, 8, 2, 2, 8, 30, 1)])
def test_the_backbone_is_that_of_the_model(size: Size) -> None:
    model: Any = size.model()
    assert size.backbone == sum(each.numel() for each in model.model.layers.parameters() if each.dim() == 2)
    again = size.model()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def steps(names: Sequence[str], folder: Path, place: Place = CPU) -> tuple[dict[str, list[float]], dict[str, Any]]:
    pairs = SHORT.pairs(TINY.pairs, TINY.vocabulary)
    models = {name: TINY.model() for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_contenders, "LEARNING_RATE", 1e-3)
        made = {name: CONTENDERS[name](models[name], pairs, folder / name, place) for name in names}
        return {name: [step() for _ in range(3)] for name, step in made.items()}, models


def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))


@pytest.mark.parametrize("names", [
    ("ours", "lean"), pytest.param((*CONTENDERS,), marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")]),
])  # fmt: skip
def test_contenders_take_the_same_steps(names: tuple[str, ...], tmp_path: Path) -> None:
    if why := next(filter(None, map(missing, names)), None):
        pytest.skip(why)
    losses, models = steps(names, tmp_path)
    for name, found in losses.items():
        assert found[0] == pytest.approx(math.log(2), abs=1e-6), name  # f(0): the reference is the model
        assert found == pytest.approx(losses["ours"], abs=1e-6), name
        assert found[-1] < found[0] - 1e-5, name
        assert distance(models[name], models["ours"]) < 0.02 * distance(models["ours"], TINY.model()), name


def test_bfloat16_is_what_was_asked_for(tmp_path: Path) -> None:
    half, _ = steps(["ours", "lean"], tmp_path / "half", place=Place(bf16=True))
    full, _ = steps(["ours", "lean"], tmp_path / "full")
    for name, found in half.items():
        assert found == pytest.approx(full[name], abs=bench.SAME[True])
        assert found[-1] != full[name][-1]


@pytest.mark.parametrize(("found", "why"), [
    (None, "trl is not installed (trl==1.16.*)"), ("1.15.2", "trl 1.15.2 is installed, not 1.16"),
    ("1.160.0", "trl 1.160.0 is installed, not 1.16"), ("1.16.3", None),
])  # fmt: skip
def test_another_trl_is_no_opponent(found: str | None, why: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_contenders, "versions_of", lambda _: {"trl": found} if found else {})
    assert missing("trl live") == missing("trl precomputed") == why
    assert missing("ours") is None
    assert missing("lean") is None


def written(folder: Path, *words: str) -> dict[str, Any]:
    """What a run of the benchmark on a tiny cell leaves."""
    bench._main(["--shape", "short", "--size", "tiny", *words, "--output", str(folder)])
    found: dict[str, Any] = json.loads((folder / "bench.json").read_text(), parse_constant=pytest.fail)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_what_it_writes_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "missing", lambda name: "trl is away" if name.startswith("trl") else None)
    report = written(tmp_path / "new", "--repeats", "3", "--contender", "lean", "ours", "trl live")
    out = capsys.readouterr().out
    assert (report["schema"], report["device"], report["bf16"], report["unit"]) == (2, "cpu", False, "CPU-s")
    assert report["missing"] == {"trl live": "trl is away"}
    assert "missing: trl live: trl is away" in out
    (cell,) = report["cells"]
    assert (cell["shape"], cell["size"], cell["pairs"]) == ("short", "tiny", 5)
    pairs = SHORT.pairs(5, 64)
    assert cell["unique_tokens"] == sum(len(pair.prefix + pair.chosen + pair.rejected) for pair in pairs)
    longest = max(len(pair.prefix) + max(len(pair.chosen), len(pair.rejected)) for pair in pairs)
    assert cell["padded_tokens"] == 2 * 5 * longest
    assert cell["ideal_seconds"] * cell["gemm_gflops"] * 1e9 == pytest.approx(ideal_flops(TINY, pairs))
    assert cell["losses_apart"] <= 1e-5
    assert cell["taking_turns"] is True
    assert [*cell["contenders"]] == ["ours", "lean"]  # ours first: the others are shown as multiples of it
    for name, peak in (("ours", 2.0), ("lean", 5.0)):
        made = cell["contenders"][name]
        assert len(made["runs"]) == 3
        assert made["seconds"] == statistics.median(made["runs"]) > 0
        assert made["peak_mib"] == peak
    (line,) = [line.split() for line in out.splitlines() if line.split()[:1] == ["lean"]]
    assert line[-2:] == ["5", "2.50"]
    assert (tmp_path / "new" / "bench.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.usefixtures("tiny")
def test_contenders_that_do_not_do_the_same_are_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(step: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: lambda: step(*given)() + 0.01

    monkeypatch.setitem(bench.CONTENDERS, "lean", other(CONTENDERS["lean"]))
    with pytest.raises(ArithmeticError, match=r"short, tiny: the contenders' losses are 0\.01 nats apart"):
        bench._cell("short", "tiny", 1, ALONE, CPU, 1e6)


@pytest.mark.usefixtures("tiny")
def test_what_memory_does_not_hold_together_is_compared_by_two_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Medians of (1, 3) and (6, 10) CPU-seconds are 2 and 8; the rate is the median of 4 and 2 GFLOP/s."""
    monkeypatch.setattr(Place, "memory", lambda _: 1.0)
    (cell,) = written(tmp_path, "--contender", "lean")["cells"]
    assert "each alone, two steps" in capsys.readouterr().out
    assert {name: each["seconds"] for name, each in cell["contenders"].items()} == {"ours": 2.0, "lean": 8.0}
    assert cell["contenders"]["lean"]["runs"] == [6.0, 10.0]
    assert cell["gemm_gflops"] == 3.0
    assert cell["losses_apart"] == 0.0
    assert cell["taking_turns"] is False


def test_the_memory_that_turns_need() -> None:
    """135 M weights, 12 bytes each: three that wait keep 3 * 12 * 134,479,872 / 2^20 = 4,617 MiB beside 17,923."""
    peaks = {"ours": 5809.0, "lean": 11445.0, "trl live": 17898.0, "trl precomputed": 17923.0}
    size = bench.SIZES["135m"]
    model: Any = TINY.model()
    assert TINY.weights == sum(each.numel() for each in model.parameters() if each.dim() == 2)
    needed = bench._needed(size, {name: Alone(peak, Turns([], [], [], [])) for name, peak in peaks.items()})
    assert needed == pytest.approx(17923 + 4617, abs=1)
    assert 4096 < CPU.memory() * 2**20 < 2**50


@pytest.mark.usefixtures("tiny")
def test_the_peak_is_what_two_steps_add(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that holds 64 MiB more than it returns needs at least these; the measurement is the kernel's."""
    kept: list[Tensor] = []

    def heavy(*_: Any) -> Callable[[], float]:
        def step() -> float:
            kept.append(torch.ones(1 << 23, dtype=torch.float32))  # 32 MiB, and two steps
            return 0.0

        return step

    held = torch.ones(1 << 20)  # what was there before does not count
    bench._warm("heavy")  # nor does what is imported,
    bench._gemm_rate(TINY, CPU)  # nor what a first product asks for, which is made after the steps
    monkeypatch.setitem(bench.CONTENDERS, "heavy", heavy)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured = bench._measure("heavy", "short", "tiny", CPU)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert measured.peak == pytest.approx((after - before) / 1024, abs=1)
    assert measured.turns.losses == [0.0, 0.0]
    assert len(kept) == 2
    assert held.numel() == 1 << 20


def test_a_devices_clock_is_read_when_its_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are asked for, and run on: without waiting they would seem to cost nothing."""
    heard: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: heard.append("waited"))
    monkeypatch.setattr("gpo_full.bench.device.time.perf_counter", lambda: float(len(heard)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    place = Place("cuda")
    turns = Turns([], [], [], [])
    turns.take(lambda: heard.append("asked") or 0.5, place)  # type: ignore[func-returns-value]
    assert heard == ["waited", "asked", "waited"]
    assert turns.seconds == [2.0]
    assert (place.peak(), place.unit, place.start_method) == (3.0, "s", "spawn")
    assert (CPU.unit, CPU.start_method) == ("CPU-s", "fork")


def test_models_move_to_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moved: list[str] = []
    own = nn.Module.to
    monkeypatch.setattr(nn.Module, "to", lambda self, *to, **more: (moved.append(str(to[0])), own(self, *to, **more))[1])
    CONTENDERS["lean"](TINY.model(), SHORT.pairs(2, 64), tmp_path, CPU)
    assert moved == ["cpu"]


@pytest.mark.parametrize("each", [0.2, 0.04, 0.0003])
def test_the_rate_is_that_of_a_clock_by_hand(each: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of 1024 x 16 by 16 x 24 that take `each` second: 2 * 1024 * 16 * 24 FLOP in it, however many are timed."""
    clock, reads = [0.0], []
    monkeypatch.setattr(torch, "mm", lambda *_: clock.__setitem__(0, clock[0] + each))
    monkeypatch.setattr(Place, "seconds", lambda _: reads.append(clock[0]) or clock[0])  # type: ignore[func-returns-value]
    assert bench._gemm_rate(TINY, CPU) == pytest.approx(786_432 / each)
    assert len(reads) <= 2 * 9  # 2, 4, ... 512 products: a device is waited for before and after, not at each


def test_every_cell_may_use_the_memory_that_was_free_at_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a cell has needed is free again, though the peak stays."""
    peaks, found = iter([100.0, 900.0, 950.0]), []
    monkeypatch.setattr(Place, "memory", lambda _: 1000.0)
    monkeypatch.setattr(Place, "peak", lambda _: next(peaks))
    monkeypatch.setattr(bench, "_alone", lambda *_: ALONE["ours"])
    monkeypatch.setattr(bench, "_cell", lambda *given: found.append(given[-1]) or {})  # type: ignore[func-returns-value]
    monkeypatch.setattr(bench, "_table", lambda *_: "")
    monkeypatch.setattr(bench, "_write", lambda *_: None)
    bench._main(["--shape", "dialogue", "long", "--size", "10m", "--contender", "ours", "--output", str(tmp_path)])
    assert found == [900.0, 900.0]


def test_time_of_the_operating_system_is_told_apart() -> None:
    """New pages are its work."""
    turns = Turns([], [], [], [])
    turns.take(lambda: float(torch.zeros(2**27).sum()), CPU)
    assert 0 < turns.kernel[0] <= turns.seconds[0] + 0.011  # it is counted by ticks of 10 ms


@pytest.mark.gpu
def test_a_peak_is_measured_on_a_device() -> None:
    assert bench._alone("lean", "dialogue", "10m", Place("cuda")).peak > 100


@pytest.mark.gpu
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("more", [[], ["--bf16"]])
def test_it_runs_on_a_device(more: list[str], tmp_path: Path) -> None:
    report = written(tmp_path, "--device", "cuda", *more)
    assert (report["device"], report["unit"], report["bf16"]) == ("cuda", "s", bool(more))


@pytest.mark.slow
def test_a_process_of_its_own_may_be_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "start_method", "spawn")
    found = bench._alone("ours", "summarisation", "10m", CPU)
    # Not its peak: of resident memory a new process inherits the most that its parent ever had.
    assert len(found.turns.seconds) == len(found.turns.kernel) == 2
    assert found.turns.losses[0] == pytest.approx(math.log(2), abs=1e-3)
    assert found.turns.losses[1] < found.turns.losses[0]


def test_bad_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in ((["--repeats", "0"], "--repeats must be at least 1"), (["--size", "1b"], "invalid choice"),
                          (["--device", "cuda"], "--device cuda: torch finds no CUDA device here")):
        if words[-1] == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(SystemExit):
            bench._arguments(words)
        assert reason in capsys.readouterr().err
