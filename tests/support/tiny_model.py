"""A tiny random Llama with a real byte-level tokenizer and chat template, made in under a second.

It has every part of a real instruction-tuned model (fast tokenizer, end-of-turn token, generation config), so tests
exercise the code that a real model would.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast

from common.models.config import ModelConfig

TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs.",
    "What is the refund period of the plan? Customers may return an order within thirty days.",
    "system user assistant You help. Topic: Question: Answer:",
]


def make_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    hidden: int = 64,
    architecture: type[PreTrainedConfig] = LlamaConfig,
    **more: Any,
) -> Path:
    """Writes the model and its tokenizer to `folder` as safetensors. The same seed gives the same bytes.

    more: settings that the architecture alone has.
    """
    tokenizer = _tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            architecture(
                vocab_size=len(tokenizer),
                hidden_size=hidden,
                intermediate_size=2 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=hidden // 4,
                max_position_embeddings=512,
                initializer_range=0.1,
                tie_word_embeddings=True,
                bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=None,  # or its row, the end of turn's, would start as zeros and could not be learned
                **more,
            )
        )
        # Logits of a random model are flat; wider ones let it learn an answer by heart.
        torch.nn.init.constant_(model.model.norm.weight, 4.0)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_config(folder: Path, **settings: object) -> ModelConfig:
    """The configuration that loads it on one thread; its digest is remembered inside `folder`."""
    return ModelConfig.model_validate(
        {"model": str(folder), "threads": 1, "cache_dir": folder.parent / "model-cache", **settings}
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
    )
