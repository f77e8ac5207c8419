"""Conversion of a GGUF file, planted with known blocks, into an ordinary model folder."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpo_full.experiment.inputs.policy import convert

WIDTH, HIDDEN, HEADS, WORDS = 64, 96, 4, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdĠ", "ab"]


def q4_1(rows: int, columns: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return random Q4_1 bytes and the numbers they stand for: blocks of 32, each x = scale * nibble + minimum.

    The layout is ggml's: two float16, then 16 bytes whose low nibbles are the first 16 numbers and high ones the rest.
    """
    blocks = rows * columns // 32
    scale, low = (rng.uniform(0.01, 0.1, (blocks, 1)).astype(np.float16) for _ in range(2))
    nibbles = rng.integers(0, 16, (blocks, 32))
    packed = (nibbles[:, :16] | (nibbles[:, 16:] << 4)).astype(np.uint8)
    raw = np.concatenate([scale.view(np.uint8), low.view(np.uint8), packed], axis=1)
    values = scale.astype(np.float32) * nibbles.astype(np.float32) + low.astype(np.float32)
    return raw.reshape(rows, -1), values.reshape(rows, columns)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    folder, rng = tmp_path_factory.mktemp("gguf"), np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(folder / "tiny.gguf"), "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3] + [1] * (len(WORDS) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    values = {}
    for name, shape in {"token_embd": (len(WORDS), WIDTH), "blk.0.attn_v": (WIDTH, WIDTH),
                        "blk.0.attn_q": (WIDTH, WIDTH), "blk.0.attn_k": (WIDTH, WIDTH),
                        "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_gate": (HIDDEN, WIDTH),
                        "blk.0.ffn_up": (HIDDEN, WIDTH), "blk.0.ffn_down": (WIDTH, HIDDEN)}.items():  # fmt: skip
        raw, values[name] = q4_1(*shape, rng)
        writer.add_tensor(f"{name}.weight", raw, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        values[name] = rng.uniform(0.5, 1.5, WIDTH).astype(np.float32)
        writer.add_tensor(f"{name}.weight", values[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    output = folder / "out"
    output.mkdir()
    convert(folder / "tiny.gguf", output)
    return output, values


PLACES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm",
          "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
          "blk.0.attn_output": "model.layers.0.self_attn.o_proj", "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj",
          "blk.0.ffn_up": "model.layers.0.mlp.up_proj", "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
          "blk.0.attn_norm": "model.layers.0.input_layernorm",
          "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm"}  # fmt: skip


def test_weights_are_the_dequantised_blocks_in_float32(planted: tuple[Path, dict[str, np.ndarray]]) -> None:
    model = AutoModelForCausalLM.from_pretrained(planted[0])
    state = model.state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    for name, place in PLACES.items():
        np.testing.assert_allclose(state[f"{place}.weight"].numpy(), planted[1][name], rtol=1e-6)


@pytest.mark.parametrize("name", ["q", "k"])
def test_rotary_rows_are_put_back_in_the_order_of_the_library(planted: tuple[Path, dict[str, np.ndarray]], name: str) -> None:
    """GGUF interleaves the two halves of each head's rows: its row 2j + h is row h * size/2 + j here."""
    state = AutoModelForCausalLM.from_pretrained(planted[0]).state_dict()
    found = state[f"model.layers.0.self_attn.{name}_proj.weight"]
    size = WIDTH // HEADS
    order = [head * size + 2 * j + half for head in range(HEADS) for half in range(2) for j in range(size // 2)]
    np.testing.assert_allclose(found.numpy(), planted[1][f"blk.0.attn_{name}"][order], rtol=1e-6)


def test_the_folder_is_an_ordinary_one(planted: tuple[Path, dict[str, np.ndarray]]) -> None:
    model = AutoModelForCausalLM.from_pretrained(planted[0])
    tokenizer = AutoTokenizer.from_pretrained(planted[0])
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not hasattr(model.config, "quantization_config")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (model.config.eos_token_id, tokenizer.eos_token_id) == (2, 2)
    assert tokenizer("ab c")["input_ids"] == [WORDS.index("ab"), WORDS.index("Ġ"), WORDS.index("c")]
    assert not list(planted[0].glob("*.bin"))
