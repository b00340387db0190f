"""Loading a tokenizer that is not there, and what tells two tokenizers apart."""

from __future__ import annotations

import pytest
from transformers import ByT5Tokenizer, GPT2Config, LlamaConfig, Qwen2Config

import support.chat_tokenizers as chat
from openrlhf.errors import UserError
from openrlhf.utils.model_config import get_model_config
from openrlhf.utils.tokenizer import get_tokenizer, tokenizer_sha256


@pytest.mark.parametrize("config", [LlamaConfig, Qwen2Config, GPT2Config])
def test_a_model_folder_without_tokenizer_is_called_that(tmp_path, config):
    config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^no tokenizer ") as error:
        get_tokenizer(str(tmp_path))
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_a_wrong_name_have_no_tokenizer(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (str(tmp_path), "./nowhere"):
        with pytest.raises(UserError, match=r"^no tokenizer "):
            get_tokenizer(name)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"model_type": 1}'])
def test_damaged_files_are_said_to_be_damaged(tmp_path, name, content):
    chat.make_tokenizer(chat.CHATML).save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    load = get_model_config if name == "config.json" else get_tokenizer
    with pytest.raises(UserError) as error:
        load(str(tmp_path))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_hash_sees_vocabulary_and_template_and_not_the_last_call(tmp_path):
    tokenizer = chat.make_tokenizer(chat.CHATML)
    same = tokenizer_sha256(tokenizer)
    tokenizer("x", max_length=8, truncation=True)
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_sha256(tokenizer) == same
    assert tokenizer_sha256(get_tokenizer(str(tmp_path))) == same
    assert tokenizer_sha256(chat.make_tokenizer(chat.LLAMA3)) != same
    assert tokenizer_sha256(chat.make_tokenizer(chat.CHATML, merge_anything=True)) != same
    tokenizer.add_tokens(["<|new|>"])
    assert tokenizer_sha256(tokenizer) != same


def test_hash_of_a_tokenizer_in_python():
    tokenizer = ByT5Tokenizer()
    same = tokenizer_sha256(tokenizer)
    assert same == tokenizer_sha256(ByT5Tokenizer())
    tokenizer.chat_template = chat.CHATML
    assert tokenizer_sha256(tokenizer) != same
