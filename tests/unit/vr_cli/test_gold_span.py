"""The gold span of a rendered conversation, for the chat templates that models come with."""

from __future__ import annotations

import pytest

import support.chat_tokenizers as chat
from openrlhf.datasets.chat import tokenize_prompt
from openrlhf.vr_cli.gold_span import tokenize_with_gold

GOLD = "The keeper lit the lamp."
TURNS = [
    {"role": "user", "content": "Once there was a harbour."},
    {"role": "assistant", "content": "And then?"},
    {"role": "user", "content": "Write the next chapter."},
    {"role": "assistant", "content": GOLD},
]
SYSTEM = {"role": "system", "content": "You write."}

# name -> template, what precedes the gold text, what it and the end of its turn look like
TEMPLATES = {
    "chatml": (chat.CHATML, "<|im_start|>assistant\n", f"{GOLD}<|im_end|>\n"),
    "llama3": (chat.LLAMA3, "<|header|>assistant<|/header|>\n\n", f"{GOLD}<|eot|>"),
    "gemma": (chat.GEMMA, "<start_of_turn>model\n", f"{GOLD}<end_of_turn>\n"),
    "mistral": (chat.MISTRAL, "Write the next chapter. [/INST]", f" {GOLD}</s>"),
    "qwen3": (chat.QWEN3, "<|im_start|>assistant\n<think>\n\n</think>\n\n", f"{GOLD}<|im_end|>\n"),
    "thinking_prompt_only": (chat.THINKING_PROMPT_ONLY, "<|im_start|>assistant\n", f"{GOLD}<|im_end|>\n"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_gold_span_is_the_gold_turn_with_its_end(name):
    template, before, gold = TEMPLATES[name]
    tokenizer = chat.make_tokenizer(template)
    text = tokenize_with_gold(tokenizer, TURNS)
    assert tokenizer.decode(text.token_ids[text.gold_start :]) == gold
    assert chat.decoded(tokenizer, text.token_ids[: text.gold_start]).endswith(before)
    assert text.num_gold_tokens == len(text.token_ids) - text.gold_start


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral", "qwen3"])
def test_tokens_before_the_gold_span_are_the_prompt_that_generation_sees(name):
    tokenizer = chat.make_tokenizer(TEMPLATES[name][0])
    text = tokenize_with_gold(tokenizer, TURNS)
    assert text.token_ids[: text.gold_start] == tokenize_prompt(tokenizer, TURNS[:-1])


def test_gold_tokens_do_not_depend_on_the_prompt():
    tokenizer = chat.make_tokenizer(chat.CHATML)
    with_system = tokenize_with_gold(tokenizer, [SYSTEM, *TURNS])
    without = tokenize_with_gold(tokenizer, TURNS)
    assert with_system.token_ids[with_system.gold_start :] == without.token_ids[without.gold_start :]
    assert with_system.gold_start > without.gold_start


def test_bos_is_rendered_by_the_template_and_not_doubled():
    tokenizer = chat.make_tokenizer(chat.LLAMA3)
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id  # it would add one
    for token_ids in (tokenize_prompt(tokenizer, TURNS[:-1]), tokenize_with_gold(tokenizer, TURNS).token_ids):
        assert token_ids[0] == tokenizer.bos_token_id
        assert token_ids.count(tokenizer.bos_token_id) == 1


def test_gold_that_would_merge_with_the_prompt_is_tokenized_apart():
    tokenizer = chat.make_tokenizer(chat.CHATML, merge_anything=True)
    gold = "\nOnce"
    messages = [TURNS[0], {"role": "assistant", "content": gold}]
    prompt = tokenize_prompt(tokenizer, messages[:-1])
    whole = tokenizer.encode(chat_text(tokenizer, messages), add_special_tokens=False)
    assert whole[: len(prompt)] != prompt  # "\n\n" is one token across the boundary
    text = tokenize_with_gold(tokenizer, messages)
    assert text.token_ids[: text.gold_start] == prompt
    assert tokenizer.decode(text.token_ids[text.gold_start :]) == gold + "<|im_end|>\n"


def test_gold_text_that_also_stands_in_the_prompt_is_no_trap():
    tokenizer = chat.make_tokenizer(chat.CHATML)
    messages = [{"role": "user", "content": f"{GOLD}<|im_end|>\n{GOLD}"}, TURNS[-1]]
    text = tokenize_with_gold(tokenizer, messages)
    assert tokenizer.decode(text.token_ids[text.gold_start :]) == f"{GOLD}<|im_end|>\n"


def test_template_without_system_role_says_what_to_do():
    tokenizer = chat.make_tokenizer(chat.GEMMA)
    with pytest.raises(ValueError, match=r"System role not supported.*--no_system_role"):
        tokenize_with_gold(tokenizer, [SYSTEM, *TURNS])
    with pytest.raises(ValueError, match="--no_system_role"):
        tokenize_prompt(tokenizer, [SYSTEM, TURNS[0]])


@pytest.mark.parametrize("generation_prompt", ["assistant\n<think>\n", "ASSISTANT\n"])
def test_template_whose_prompt_is_no_prefix_is_an_error(generation_prompt):
    template = chat.CHATML.replace("assistant\n{% endif %}", generation_prompt + "{% endif %}")
    with pytest.raises(ValueError, match="no gold span"):
        tokenize_with_gold(chat.make_tokenizer(template), TURNS)


def test_template_that_rewrites_the_gold_text_is_an_error():
    shouts = chat.CHATML.replace("{{ m['content'] }}", "{{ m['content'] | upper }}")
    with pytest.raises(ValueError, match="unchanged gold text"):
        tokenize_with_gold(chat.make_tokenizer(shouts), TURNS)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        (TURNS[:3], "last message"),
        (TURNS[-1:], "needs a prompt"),
        ([TURNS[0], {"role": "assistant", "content": " \n"}], "blank"),
    ],
)
def test_conversations_without_gold_are_errors(messages, complaint):
    with pytest.raises(ValueError, match=complaint):
        tokenize_with_gold(chat.make_tokenizer(chat.CHATML), messages)


def test_tokenizer_without_chat_template_is_an_error():
    with pytest.raises(ValueError, match="no chat template"):
        tokenize_prompt(chat.make_tokenizer(None), TURNS[:1])


def test_a_broken_chat_template_is_called_that():
    with pytest.raises(ValueError, match=r"chat template of .* is broken: "):
        tokenize_prompt(chat.make_tokenizer("{% if %}"), TURNS[:1])


def chat_text(tokenizer, messages):
    return tokenizer.apply_chat_template(messages, tokenize=False)
