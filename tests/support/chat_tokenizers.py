"""Tokenizers for tests: byte-level BPE trained on a few lines, with chat templates in the style of well-known ones."""

from __future__ import annotations

from typing import TypedDict, Unpack

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|begin|>",
    "<|header|>",
    "<|/header|>",
    "<|eot|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
]
LINES = [
    "Once there was a harbour where no ship had called for a year.\n\n",
    "The keeper of the light wrote down every name that he still knew.\n\n",
    "system user assistant model Write the next chapter.\n\n",
]

CHATML = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# Renders BOS itself, trims each turn.
LLAMA3 = """\
<|begin|>{% for m in messages %}<|header|>{{ m['role'] }}<|/header|>

{{ m['content'] | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|header|>assistant<|/header|>

{% endif %}"""

GEMMA = """\
<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}
{{ m['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

# No generation prompt: the user turn's end is all there is.
MISTRAL = """\
<s>{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}</s>\
{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"""

# The last assistant turn gets an empty thinking block; so does the generation prompt, with thinking disabled.
QWEN3 = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['role'] == 'assistant' and loop.last %}<think>

</think>

{% endif %}{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

# The block is in the generation prompt only, and only with thinking disabled.
THINKING_PROMPT_ONLY = CHATML.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is defined and not enable_thinking %}<think></think>\n{% endif %}{% endif %}",
)


class TemplateSwitches(TypedDict, total=False):
    """Variables of the templates above."""

    add_generation_prompt: bool
    enable_thinking: bool


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], **switches: Unpack[TemplateSwitches]
) -> str:
    """What transformers itself makes of a conversation."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, **switches)
    assert isinstance(text, str)
    return text


def decoded(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> str:
    text = tokenizer.decode(token_ids)
    assert isinstance(text, str)
    return text


def make_tokenizer(chat_template: str | None, *, merge_anything: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer that, asked for special tokens, adds a BOS of its own (`<|begin|>`), as Llama's does.

    `merge_anything` lets tokens span words and line breaks, so that text can merge across any boundary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merge_anything)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES + ["\n\n"] * 100, trainer)  # the line breaks are merged first of all
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|im_end|>", chat_template=chat_template
    )
