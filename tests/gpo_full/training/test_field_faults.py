"""Faults of the systems in use today, each by its system's name, and that none of them is ours.

Covered elsewhere: Liger under DDP, whose gradients were never synchronised, in test_distributed.py; TRL's metrics, in
which the last batch weighs too much, and HALOs' resume, which loses Adam's moments, in test_trainer.py; TRL's unknown
losses, negative betas and label smoothing that is ignored in test_config.py.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from gpo_full.data.pairs import read_pairs
from gpo_theory import InputError
from tests.support.oracle import TRUTHS
from tests.support.session import payload
from tests.support.tiny_models import tiny_model, tiny_tokenizer
from tests.support.trainings import PAIRS, Passes, apart, objects, step0, trained, trainer, weights
from tests.support.two_sequences import response_sums

F64 = {"dtype": torch.float64}
TOKENIZER = tiny_tokenizer()
ROWS = [{"prompt": "the cat sat", "chosen": " on the mat", "rejected": " on a dog and ran after the values in the list"},
        {"prompt": "return the", "chosen": " sum of the values", "rejected": " list"}]  # fmt: skip


# TRL 1.16: the reference.


def test_trl_the_reference_is_not_computed_again_when_only_beta_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpo_full.reference.compute.BATCH_TOKENS", 1)  # a forward pass for each pair
    counts = []
    for run, (loss, beta, rate) in enumerate([("logistic", 0.1, 1e-3), ("logistic", 1.0, 1e-3), ("x**2 - x", 5.0, 1.0)]):
        model = tiny_model()
        passes = Passes(model)
        trainer(tmp_path, model, run=str(run), loss=loss, beta=beta, learning_rate=rate)
        counts.append(passes.count)
    assert counts[1] == counts[2] == counts[0] - len(PAIRS) + 3  # three rows are computed again
    assert len(list((tmp_path / "references").iterdir())) == 1


def test_trl_the_reference_is_not_stale_when_the_truncation_changes(tmp_path: Path) -> None:
    for number, cut in enumerate(({}, {"max_length": 5}, {"max_prompt_length": 2}), 1):
        rows = [{**ROWS[0], "prompt": "the dog and the cat sat", "rejected": " after the cat"}]
        made = trainer(tmp_path, tiny_model(**F64), rows, processing_class=TOKENIZER, **{"max_length": 64, **cut})
        assert step0(made) == pytest.approx(math.log(2), abs=1e-9)
        assert len(list((tmp_path / "references").iterdir())) == number


def test_trl_a_model_changed_in_memory_is_its_own_reference_not_the_disk_s(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    tiny_model(**F64).save_pretrained(folder)

    def loaded() -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)

    trainer(tmp_path, loaded(), run="before")  # so that the store holds the disk's values
    model = loaded()
    assert model.config._name_or_path == str(folder)
    with torch.no_grad():
        model.lm_head.weight[10:20] *= 1.5
    assert abs(step0(trainer(tmp_path, model, run="disk", beta=1.0, reference=loaded())) - math.log(2)) > 1e-3
    assert step0(trainer(tmp_path, model, run="memory", beta=1.0)) == pytest.approx(math.log(2), abs=1e-9)


# TRL 1.16: the loss.


@pytest.mark.parametrize("name", ["hinge", "squared", "exponential"])
def test_trl_label_smoothing_is_ignored_by_no_loss(name: str, tmp_path: Path) -> None:
    """0.8 f(x) + 0.2 f(-x) for losses whose smoothing TRL drops without a word, away from the reference."""
    reference, policy, ratios = apart()
    x = 0.05 * (ratios[:, 0] - ratios[:, 1])
    of = {"hinge": lambda x: (1 - x).clamp(min=0), "squared": lambda x: (1 - x) ** 2, "exponential": lambda x: (-x).exp()}
    expected = float((0.8 * of[name](x) + 0.2 * of[name](-x)).mean())
    assert abs(expected - float(of[name](x).mean())) > 1e-3
    made = trainer(tmp_path, policy, loss=name, beta=0.05, label_noise=0.2, reference=reference)
    assert step0(made) == pytest.approx(expected, rel=1e-9)


def test_trl_discopop_is_a_number_below_minus_88_7(tmp_path: Path) -> None:
    """In float32, where exp(-x) overflows: f(x) = -x there, as exp(20 x) log(1 + exp(x)) is 0."""
    policy, reference = tiny_model(seed=2), tiny_model(seed=1)
    ratios = (response_sums(policy, PAIRS) - response_sums(reference, PAIRS)).detach()
    x = 50 * (ratios[:, 0] - ratios[:, 1])
    assert float(x.min()) < -88.8
    made = trainer(tmp_path, policy, loss="discopop", beta=50.0, reference=reference, max_grad_norm=0.0, per_device_train_batch_size=len(PAIRS))
    assert step0(made) == pytest.approx(float((-x).clamp(min=0).mean()), rel=1e-4)
    before = weights(made.model)
    made.train()
    assert not (tmp_path / "run" / "events.jsonl").exists()
    assert not torch.equal(weights(made.model), before)
    assert math.isfinite(objects(tmp_path)[0]["grad_norm"])


def test_trl_robust_is_said_to_be_unbounded_below(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert payload("robust_dpo")["claims"]["bounded_below"]["verdict"] == "refuted"
    trainer(tmp_path, tiny_model(), loss="logistic")
    assert "bounded" not in caplog.text
    trainer(tmp_path, tiny_model(), loss="robust_dpo", run="robust")
    assert "loss robust_dpo is not bounded below, f tends to -infinity on the right" in caplog.text


# HALOs.


def test_halos_ipo_is_a_number_at_step_0(tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny_model(**F64), loss="ipo", margin="mean", beta=0.1, max_steps=2)
    assert step0(made) == pytest.approx(float(TRUTHS["squared"].f(0)), abs=1e-9)
    made.train()
    assert [math.isfinite(each["grad_norm"]) and each["grad_norm"] > 0 for each in objects(tmp_path)] == [True, True]


# open-instruct.


def test_open_instruct_the_last_token_before_the_padding_counts_and_the_padding_does_not(tmp_path: Path) -> None:
    """Padding and end of text share an id; each response ends in it, and the shorter ones are padded."""
    assert TOKENIZER.pad_token_id == TOKENIZER.eos_token_id
    reference, policy = tiny_model(seed=1, **F64), tiny_model(seed=2, **F64)

    def alone(model: Any, row: dict[str, str], response: str) -> float:
        ids = [*TOKENIZER(row["prompt"] + row[response])["input_ids"], TOKENIZER.eos_token_id]
        start = len(TOKENIZER(row["prompt"])["input_ids"])
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        return float(logits.detach()[range(len(ids) - 1), ids[1:]][start - 1 :].sum())

    rho = [sum(sign * (alone(policy, row, side) - alone(reference, row, side))
               for sign, side in ((1, "chosen"), (-1, "rejected"))) for row in ROWS]  # fmt: skip
    expected = sum((0.02 * each - 1) ** 2 for each in rho) / len(rho)
    for layout in ("line", "apart"):
        kind = "sdpa" if layout == "line" else "eager"
        policy, other = (tiny_model(seed=seed, attention=kind, **F64) for seed in (2, 1))
        made = trainer(tmp_path, policy, ROWS, loss="squared", beta=0.02, processing_class=TOKENIZER, reference=other)
        assert step0(made) == pytest.approx(expected, rel=1e-6)


def test_open_instruct_a_resume_without_its_cache_has_the_same_reference(tmp_path: Path) -> None:
    saving = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    straight = trained(tmp_path, tiny_model(), **saving)
    for path in (tmp_path / "references").iterdir():
        path.unlink()
    part = str(tmp_path / "run" / "checkpoint-2")
    resumed = trained(tmp_path, tiny_model(), resume=part, **saving)
    assert torch.equal(weights(resumed.model), weights(straight.model))
    # Whoever hands in the trained weights would make them their own reference: that is refused.
    with pytest.raises(InputError, match="is of another run: reference_weights"):
        trained(tmp_path, AutoModelForCausalLM.from_pretrained(part), resume=part, **saving)


# OpenRLHF.


def test_openrlhf_a_conversation_is_cut_in_tokens_never_by_the_length_of_its_text() -> None:
    """The template says less about turns gone by, and a token straddles the end of the prompt."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = ("{% if messages[-1].role == 'user' %}values in the list {% endif %}"
                               "{% for m in messages %}{{ m.content }}{% endfor %}")  # fmt: skip
    rows = [{"prompt": [{"role": "user", "content": "the c"}], "chosen": [{"role": "assistant", "content": "at sat"}],
             "rejected": [{"role": "assistant", "content": "ow ran"}]}]  # fmt: skip
    with pytest.raises(InputError, match="share no token"):  # the prompt alone begins with what no response has
        read_pairs(rows, tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    ((pair,), _) = read_pairs(rows, tokenizer)
    whole = [tokenizer(text)["input_ids"] for text in ("the cat sat", "the cow ran")]
    assert [list(pair.prefix[: pair.prompt_length] + response) for response in pair.responses] == whole
    assert tokenizer.decode(pair.prefix) == "the"
    assert len("the c") == len(tokenizer.decode(whole[0])) - len("at sat")  # where a cut of the text would have been
