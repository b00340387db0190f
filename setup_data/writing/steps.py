"""The writing steps of one book: what is asked, and how answers are read and joined.

    synopses -> story_so_far
             -> plan
             -> characters -> statements -> sheets

Each function is a pure function of the book and the answers, so a step that is run again asks for nothing that is
already there, and a later step finds what an earlier one wrote by asking the same questions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openrlhf.errors import UserError
from setup_data.book import Book, chapter_key
from setup_data.writing import prompts
from setup_data.writing.chunking import pack, split_text
from setup_data.writing.client import Prompt, UnusableAnswer, Writer, gather

STEPS = ("synopses", "story_so_far", "plan", "characters", "statements", "sheets")

MIN_ANSWER_WORDS = 5
MIN_LOOP_WORDS = 4
# Below this share of distinct words a longer answer is one sentence over and over.
MIN_DISTINCT_SHARE = 0.15
LONG_ANSWER_WORDS = 150

MAX_HEAD_WORDS = 6
MIN_STATEMENT_WORDS = 3
LIST_MARK = re.compile(r"^[\s\-*\u2022\d.)]+")
TITLES = frozenset(
    ["mr", "mrs", "ms", "miss", "dr", "sir", "lady", "lord", "captain", "colonel", "aunt", "uncle", "the"]
)

# A capitalised word or two after a lower-case one, with a title before them or not.
NAME_IN_SENTENCE = re.compile(
    r"(?<=[a-z,;] )((?:(?:Mr|Mrs|Ms|Dr)\. |(?:Miss|Lady|Sir) )?[A-Z][a-z]{2,}(?: [A-Z][a-z]+)?)\b"
)

PromptMaker = Callable[[str, str], Prompt]  # (about, text) -> prompt
Statements = dict[str, list[str]]  # character's name -> statements


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What fits the model, and how much is kept."""

    context_tokens: int
    max_characters: int = 8

    def __post_init__(self) -> None:
        # Two answers, estimated in characters (chunking.CHARS_PER_TOKEN), must fit where they are merged.
        if self.text_tokens(prompts.STORY_SO_FAR_TOKENS) < 3 * prompts.STORY_SO_FAR_TOKENS:
            needed = 4 * prompts.STORY_SO_FAR_TOKENS + prompts.INSTRUCTION_TOKENS
            raise UserError(f"a context of {self.context_tokens} tokens is too short: the prompts need {needed}")

    def text_tokens(self, answer_tokens: int) -> int:
        """What is left for the text, beside the instructions and the answer."""
        return self.context_tokens - prompts.INSTRUCTION_TOKENS - answer_tokens


def cut_loop(text: str) -> str:
    """`text` up to where a sentence comes a second time: weak models end by saying one thing over and over."""
    seen = set()
    for sentence in re.finditer(r"\S[^.!?\n]*[.!?\n]*", text):
        words = " ".join(re.findall(r"\w+", sentence[0].lower()))
        if words in seen and len(words.split()) >= MIN_LOOP_WORDS:
            return text[: sentence.start()].rstrip()
        seen.add(words)
    return text


def parse_prose(text: str) -> str:
    """Any answer but a blank, a stub or an endless repetition."""
    text = re.sub(r"\A(?:#+ *)?\**(?:synopsis|summary|plan|character sheet)[^\n:]{0,40}:\**\s+", "", text, flags=re.I)
    text = cut_loop(text)
    words = text.lower().split()
    if len(words) < MIN_ANSWER_WORDS:
        raise UnusableAnswer("it has next to no words")
    if len(words) >= LONG_ANSWER_WORDS and len(set(words)) < MIN_DISTINCT_SHARE * len(words):
        raise UnusableAnswer("it repeats itself")
    return text


async def condense(
    writer: Writer,
    about: str,
    texts: Sequence[str],
    max_tokens: int,
    *,
    whole: PromptMaker,
    part: PromptMaker,
    merge: PromptMaker,
) -> str:
    """One answer about all texts: at once where they fit, else part by part, and the answers merged."""
    packs = pack(texts, max_tokens)
    if len(packs) == 1:
        return await writer.ask(whole(about, packs[0]), parse_prose)
    while len(packs) > 1:
        parts = [part(f"{about}, part {i} of {len(packs)}", text) for i, text in enumerate(packs, start=1)]
        merged = pack(await gather([writer.ask(prompt, parse_prose) for prompt in parts]), max_tokens)
        if len(merged) >= len(packs):
            raise UnusableAnswer(f"{about}: the answers about its parts are no shorter than the parts")
        packs = merged
    return await writer.ask(merge(about, packs[0]), parse_prose)


async def write_synopses(writer: Writer, book: Book, limits: Limits) -> list[str]:
    """One synopsis a chapter."""

    def one(index: int) -> str:
        return f"{book.story_id} {chapter_key(index, book.chapters[index].header)}"

    budget = limits.text_tokens(prompts.SYNOPSIS_TOKENS)
    return await gather(
        [
            condense(
                writer,
                one(index),
                split_text(chapter.render(), budget),
                budget,
                whole=prompts.synopsis,
                part=prompts.part_synopsis,
                merge=prompts.merged_synopsis,
            )
            for index, chapter in enumerate(book.chapters)
        ]
    )


def with_headers(book: Book, synopses: Sequence[str]) -> list[str]:
    """`heading: synopsis`, the form in which later steps read the synopses."""
    return [f"{chapter.header}: {text}" for chapter, text in zip(book.chapters, synopses, strict=True)]


async def write_story_so_far(writer: Writer, book: Book, limits: Limits) -> list[str]:
    """The story before each chapter; blank before the first, its synopsis before the second."""
    synopses = await write_synopses(writer, book, limits)
    read = with_headers(book, synopses)
    budget = limits.text_tokens(prompts.STORY_SO_FAR_TOKENS)
    later = await gather(
        [
            condense(
                writer,
                f"{book.story_id} before {chapter_key(index, book.chapters[index].header)}",
                read[:index],
                budget,
                whole=prompts.story_so_far,
                part=prompts.part_of_story,
                merge=prompts.merged_story_so_far,
            )
            for index in range(2, len(book.chapters))
        ]
    )
    return ["", *synopses[:1], *later][: len(book.chapters)]


async def write_plan(writer: Writer, book: Book, limits: Limits) -> str:
    """The high-level plan of the whole story."""
    read = with_headers(book, await write_synopses(writer, book, limits))
    budget = limits.text_tokens(prompts.PLAN_TOKENS)
    return await condense(
        writer, book.story_id, read, budget, whole=prompts.plan, part=prompts.part_plan, merge=prompts.plan
    )


@dataclass(frozen=True, kw_only=True)
class Character:
    """A main character and what else the text calls them."""

    name: str
    aliases: tuple[str, ...] = ()

    def longest_match(self, text: str) -> int:
        """Characters of the longest of the names that `text` has; 0 where it has none."""
        names = (self.name, *self.aliases)
        return max((len(name) for name in names if _occurs(name, text)), default=0)


def _occurs(name: str, text: str) -> bool:
    """As whole words: Eliza is not in Elizabeth."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def find_character(text: str, characters: Sequence[Character]) -> Character | None:
    """The character that `text` names, by the longest name; the more important one of two."""
    best = max(characters, key=lambda character: character.longest_match(text))
    return best if best.longest_match(text) else None


def parse_characters(text: str, book_text: str, max_characters: int) -> list[Character]:
    """`Name | alias, alias` lines, in any list style; names that the book does not have are left out."""
    given: dict[str, list[str]] = {}
    for line in text.splitlines():
        head, _, rest = LIST_MARK.sub("", line).replace("*", "").partition("|")
        name = re.split(r"[(:,;]| [-\u2013\u2014] ", head)[0].strip(" .\"'")
        if name and name[0].isupper() and len(name.split()) <= 5:
            given.setdefault(name, [alias.strip(" .\"'") for alias in rest.split(",")])
    own_words = {name: [word for word in name.split() if word[0].isupper()] for name in given}
    uses = Counter(word for words in own_words.values() for word in words)
    characters = []
    for name, aliases in given.items():
        # A part of the name stands for the person if it is no title and nobody else's.
        unique = [word for word in own_words[name] if uses[word] == 1 and word.rstrip(".").lower() not in TITLES]
        known = [each for each in dict.fromkeys([*aliases, *unique]) if len(each) > 2 and _occurs(each, book_text)]
        if known or _occurs(name, book_text):
            characters.append(Character(name=name, aliases=tuple(each for each in known if each != name)))
    if not characters:
        raise UnusableAnswer("it names nobody who is in the book")
    return characters[:max_characters]


def most_named(book_text: str, max_characters: int) -> list[Character]:
    """The names that the text has most often within its sentences: for models that cannot name the characters."""
    counts = Counter(NAME_IN_SENTENCE.findall(book_text))
    names = sorted(counts, key=lambda name: (-counts[name], name))[:max_characters]
    return parse_characters("\n".join(names), book_text, max_characters) if names else []


async def write_characters(writer: Writer, book: Book, limits: Limits) -> list[Character]:
    """The main characters, the most important first."""
    read = with_headers(book, await write_synopses(writer, book, limits))
    book_text = book.text_before(len(book.chapters))
    packs = pack(read, limits.text_tokens(prompts.CHARACTERS_TOKENS))
    lists = await gather(
        [
            writer.ask(
                prompts.characters(f"{book.story_id}, part {i} of {len(packs)}", text, limits.max_characters),
                lambda answer: parse_characters(answer, book_text, limits.max_characters),
                default=most_named(book_text, limits.max_characters),
            )
            for i, text in enumerate(packs, start=1)
        ]
    )
    # By rank: everyone's first name, then everyone's second, so that each stretch of a long book has its say.
    merged: dict[str, Character] = {}
    for rank in range(limits.max_characters):
        for each in lists:
            if rank < len(each):
                merged.setdefault(each[rank].name.lower(), each[rank])
    return list(merged.values())[: limits.max_characters]


def parse_statements(text: str, characters: Sequence[Character]) -> list[tuple[str, str]]:
    """(name, statement) from `Name: statement` lines, or else from lines that name a character."""
    found: dict[tuple[str, str], None] = {}
    for line in text.splitlines():
        line = LIST_MARK.sub("", line).replace("**", "").strip()
        head, colon, rest = (part.strip() for part in line.partition(":"))
        is_head = bool(colon) and len(head.split()) <= MAX_HEAD_WORDS
        statement = rest if is_head else line
        character = find_character(head if is_head else line, characters)
        if character and len(statement.split()) >= MIN_STATEMENT_WORDS:
            found[character.name, statement] = None
    if not found and not re.fullmatch(r"\W*none\W*", text, re.I):
        raise UnusableAnswer("it says nothing about any of the characters, and does not say NONE")
    return list(found)


def parse_numbers(text: str, num_statements: int) -> list[int]:
    """The numbers from 1 to `num_statements` that the text has, once each, in order."""
    numbers = sorted({int(number) for number in re.findall(r"\d+", text) if 1 <= int(number) <= num_statements})
    if not numbers and not re.search(r"\bnone\b", text, re.I):
        raise UnusableAnswer("it has none of the statements' numbers, and does not say NONE")
    return numbers


async def _passage_statements(
    writer: Writer, about: str, passage: str, characters: Sequence[Character]
) -> list[tuple[str, str]]:
    """What a passage tells of the characters in it, as far as the model finds it supported on a second look."""
    present = [character for character in characters if character.longest_match(passage)]
    if not present:
        return []
    prompt = prompts.statements(about, passage, [character.name for character in present])
    nothing: list[tuple[str, str]] = []
    candidates = await writer.ask(prompt, lambda answer: parse_statements(answer, present), default=nothing)
    if not candidates:
        return []
    lines = [f"{name}: {statement}" for name, statement in candidates]
    prompt = prompts.supported(f"{about}, check", passage, lines)
    none: list[int] = []
    numbers = await writer.ask(prompt, lambda answer: parse_numbers(answer, len(lines)), default=none)
    return [candidates[number - 1] for number in numbers]


async def write_statements(writer: Writer, book: Book, limits: Limits) -> list[Statements]:
    """For each chapter, the supported statements about each main character."""
    characters = await write_characters(writer, book, limits)
    budget = limits.text_tokens(prompts.STATEMENTS_TOKENS + prompts.STATEMENTS_TOKENS)  # the check repeats them

    async def of_chapter(index: int) -> Statements:
        chapter = book.chapters[index]
        parts = split_text(chapter.render(), budget)
        about = f"{book.story_id} {chapter_key(index, chapter.header)}"
        found = await gather(
            [
                _passage_statements(writer, f"{about}, part {i} of {len(parts)}", part, characters)
                for i, part in enumerate(parts, start=1)
            ]
        )
        statements: Statements = {}
        for name, statement in (each for part in found for each in part):
            statements.setdefault(name, []).append(statement)
        return statements

    return await gather([of_chapter(index) for index in range(len(book.chapters))])


async def write_sheets(writer: Writer, book: Book, limits: Limits) -> list[dict[str, str]]:
    """For each chapter, the sheets of the characters that the chapters before it have told of."""
    characters = await write_characters(writer, book, limits)
    statements = await write_statements(writer, book, limits)
    budget = limits.text_tokens(prompts.SHEET_TOKENS)

    async def one(index: int, name: str) -> tuple[str, str] | None:
        known = [statement for chapter in statements[:index] for statement in chapter.get(name, [])]
        if not known:
            return None
        about = f"{book.story_id} {name} before {chapter_key(index, book.chapters[index].header)}"

        def make(about: str, text: str) -> Prompt:
            return prompts.sheet(about, name, text)

        lines = list(dict.fromkeys(f"- {statement}" for statement in known))
        return name, await condense(writer, about, lines, budget, whole=make, part=make, merge=make)

    async def before(index: int) -> dict[str, str]:
        sheets = await gather([one(index, character.name) for character in characters])
        return dict(sheet for sheet in sheets if sheet is not None)

    return await gather([before(index) for index in range(len(book.chapters))])
