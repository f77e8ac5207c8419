"""The plan of a run: the layout of its rows on the device where it will run."""

import pytest
import torch

from gpo_full.engine import model_plan
from tests.support.tiny_models import tiny_model


@pytest.mark.parametrize(("agrees", "layout"), [(True, "line"), (False, "rows")])
def test_the_layout_is_that_of_the_device_on_which_the_model_will_run(agrees: bool, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under FSDP the model is on the CPU when its run is planned; a kernel that fails its probe is named."""
    asked = []
    monkeypatch.setattr(model_plan, "one_call", lambda *_: True)
    monkeypatch.setattr(model_plan, "kernel_agrees", lambda *shape: asked.append(shape) or agrees)
    model = tiny_model("llama")
    assert model_plan.plan(model, 64).layout == "line"
    assert not asked
    found = model_plan.plan(model, 64, device=torch.device("cuda"))
    assert found.layout == layout
    assert [shape[0].type for shape in asked] == ["cuda"]
    assert any("dense mask" in reason for reason in found.reasons) is not agrees


def test_too_little_memory_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(model_plan, "response_log_probabilities", full)
    with pytest.raises(torch.OutOfMemoryError):
        model_plan.plan(tiny_model("llama"), 64)
