"""Random tiny models of several families and a tiny tokenizer, all built offline."""

import atexit
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# More threads cost more than they bring at this size, and wait for each other on a busy machine.
torch.set_num_threads(1)

VOCABULARY = 320
_SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
          "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SIZES,
    "qwen2": _SIZES,
    "qwen3": _SIZES | {"head_dim": 8},
    "mistral": _SIZES | {"sliding_window": None},
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "opt": {"vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 256, "word_embed_proj_dim": 32},
    "gemma2": _SIZES | {"head_dim": 8, "sliding_window": 8},
}  # fmt: skip


def tiny_model(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, attention: str = "sdpa",
               spread: float = 0.2, **changes: Any) -> Any:  # fmt: skip
    """A random model, its weights spread widely enough that every part of it matters."""
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = CONFIG_MAPPING[family](**FAMILIES.get(family, _SIZES) | ends | changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=spread)
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences; padding and end share an id, as in SmolLM2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    text = ["the cat sat on the mat and the dog ran after the cat", "return the sum of the values in the list"] * 20
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        chat_template="{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
                      "{% if add_generation_prompt %}<s>assistant\n{% endif %}")  # fmt: skip


def saved_policy(folder: Path, **options: Any) -> Path:
    """The folder of a tiny model and its tokenizer."""
    tiny_model(**options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def on_disk(model: Any) -> Any:
    """The model, which bears the name of a folder that it is saved in, as a base model of adapters must."""
    folder = tempfile.mkdtemp(dir=_folder())
    model.save_pretrained(folder)
    model.name_or_path = model.config._name_or_path = folder
    return model


@lru_cache
def _folder() -> str:
    """A folder that is removed when this process ends, and not when one that it forked does."""
    folder, mine = tempfile.mkdtemp(prefix="gpo-tests-"), os.getpid()
    atexit.register(lambda: shutil.rmtree(folder) if os.getpid() == mine else None)
    return folder


def adapted(base: Any = None, **options: Any) -> Any:
    """A model, if none is given the tiny one in float64, with a LoRA adapter as after supervised training."""
    from peft import LoraConfig, get_peft_model

    from gpo_full.training.start.adapters import without_peft_warning

    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options}
    with torch.random.fork_rng(), without_peft_warning():
        torch.manual_seed(0)
        return moved(get_peft_model(on_disk(tiny_model(dtype=torch.float64)) if base is None else base, LoraConfig(**settings)))


def moved(model: Any, seed: int = 3) -> Any:
    """The model, whose adapter is no longer 0."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "lora_B" in name:
                each.copy_(torch.randn(each.shape, generator=draw, dtype=each.dtype) * 0.3)
    return model
