"""Has a model behind an OpenAI-compatible server write a book's annotations, step by step.

    python -m setup_data.write_annotations --work_dir WORK_DIR --server_url http://127.0.0.1:8000/v1

Reads `WORK_DIR/books/*.md` and writes `WORK_DIR/annotations/<story_id>.json` (see annotations.py). The steps, in order:

    synopses      a synopsis of each chapter
    story_so_far  the story before each chapter                  (needs synopses)
    plan          the high-level plan of the whole               (needs synopses)
    characters    who the main characters are                    (needs synopses)
    statements    what each chapter tells of them, checked       (needs characters)
    sheets        their sheets before each chapter, shortened    (needs statements)

`--steps` runs only some; steps that do not need each other may run at the same time, as processes of their own against
one server. Every answer is kept in `WORK_DIR/answers/<step>.jsonl` as soon as it is there, so a run that was
interrupted, or that ended because the server did, is continued by the same command and asks for nothing twice. The
annotations are written once all steps' answers are there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai

from openrlhf.errors import UserError
from openrlhf.utils.logging import init_logger, quiet_libraries
from setup_data.annotations import BookAnnotations, ChapterAnnotation, write_annotations
from setup_data.book import Book, read_books
from setup_data.writing.answer_store import AnswerStore
from setup_data.writing.client import ServerSettings, UnusableAnswer, Writer, discover_model, gather
from setup_data.writing.steps import (
    STEPS,
    Limits,
    write_characters,
    write_plan,
    write_sheets,
    write_statements,
    write_story_so_far,
    write_synopses,
)

logger = init_logger("setup_data.write_annotations")

DEFAULT_CONTEXT_TOKENS = 8192
STEP_FUNCTIONS: dict[str, Callable[[Writer, Book, Limits], Awaitable[Any]]] = {
    "synopses": write_synopses,
    "story_so_far": write_story_so_far,
    "plan": write_plan,
    "characters": write_characters,
    "statements": write_statements,
    "sheets": write_sheets,
}


async def run_step(step: str, writer: Writer, books: Sequence[Book], limits: Limits) -> list[UnusableAnswer]:
    """Runs one step for all books. A book whose answers cannot be used does not stop the others."""

    async def one(book: Book) -> UnusableAnswer | None:
        try:
            await STEP_FUNCTIONS[step](writer, book, limits)
        except UnusableAnswer as error:
            return error
        return None

    with writer.show_progress(step):
        errors = await gather([one(book) for book in books])
    return [error for error in errors if error is not None]


async def assemble(writer: Writer, book: Book, limits: Limits) -> BookAnnotations:
    """The book's annotations from the answers of all steps."""
    synopses = await write_synopses(writer, book, limits)
    so_far = await write_story_so_far(writer, book, limits)
    sheets = await write_sheets(writer, book, limits)
    return BookAnnotations(
        story_id=book.story_id,
        title=book.title,
        genre=book.genre,
        high_level_plot_summary=await write_plan(writer, book, limits),
        chapters=tuple(
            ChapterAnnotation(
                chapter_index=index,
                header=chapter.header,
                synopsis=synopses[index],
                prior_plot_summary=so_far[index],
                character_sheets=sheets[index],
            )
            for index, chapter in enumerate(book.chapters)
        ),
    )


async def write_all(args: argparse.Namespace, books: Sequence[Book], stores: dict[str, AnswerStore]) -> None:
    """Runs the steps that are asked for, then writes the annotations if all of them are done."""
    settings = ServerSettings(
        url=args.server_url,
        model=args.model or "",
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        concurrency=args.concurrency,
        timeout_s=args.timeout_s,
        max_attempts=args.max_attempts,
        temperature=args.temperature,
    )
    settings, server_context = await discover_model(settings)
    context = args.context_tokens or server_context or DEFAULT_CONTEXT_TOKENS
    limits = Limits(context_tokens=context, max_characters=args.max_characters)
    logger.info("%s at %s, %d tokens of context, %d books", settings.model, settings.url, context, len(books))
    writer = Writer(settings, stores, may_ask=frozenset(args.steps))
    try:
        for step in (step for step in STEPS if step in args.steps):
            if errors := await run_step(step, writer, books, limits):
                raise UnusableAnswer(
                    "\n".join(map(str, errors)) + f"\nstep {step!r}: the answers above could not be used; run the same "
                    "command to try these again, or use a stronger model"
                )
        if set(args.steps) != set(STEPS):
            logger.info("done: %s; a run without --steps finishes the rest", ", ".join(args.steps))
            return
        for book in books:
            path = write_annotations(await assemble(writer, book, limits), args.work_dir / "annotations")
            logger.info("%s: %d chapters", path, len(book.chapters))
    finally:
        await writer.close()
    for step, count in Counter(writer.unusable.values()).items():
        logger.warning("%s: %d answers could not be used; see `usable` in the store", step, count)


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="folder with books/")
    parser.add_argument("--server_url", default="http://127.0.0.1:8000/v1", help="API root; key in OPENAI_API_KEY")
    parser.add_argument("--model", help="the model's name at the server (default: the only one it has)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="default: all")
    parser.add_argument("--stories", nargs="+", help="only these story ids (default: every book)")
    parser.add_argument("--concurrency", type=int, default=ServerSettings.concurrency, help="requests at once")
    parser.add_argument("--timeout_s", type=float, default=ServerSettings.timeout_s, help="for one request")
    parser.add_argument(
        "--max_attempts", type=int, default=ServerSettings.max_attempts, help="for one request, at server trouble"
    )
    parser.add_argument("--temperature", type=float, default=ServerSettings.temperature)
    parser.add_argument(
        "--context_tokens", type=int, help="the model's context (default: what the server says, or 8192)"
    )
    parser.add_argument("--max_characters", type=int, default=Limits.max_characters)
    args = parser.parse_args(argv)
    for name in ("concurrency", "timeout_s", "max_attempts", "max_characters"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name} must be above 0, got {getattr(args, name)}")
    return args


def select_books(books: Sequence[Book], stories: Sequence[str] | None) -> list[Book]:
    """The named books, or all. Raises UserError for an unknown name."""
    known = {book.story_id for book in books}
    if stories and (unknown := sorted(set(stories) - known)):
        raise UserError(f"--stories {' '.join(unknown)}: no such book; there are {', '.join(sorted(known))}")
    return [book for book in books if not stories or book.story_id in stories]


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    quiet_libraries()
    try:
        books = select_books(read_books(args.work_dir / "books"), args.stories)
        with ExitStack() as stack:
            stores = {
                step: stack.enter_context(
                    AnswerStore(args.work_dir / "answers" / f"{step}.jsonl", writable=step in args.steps)
                )
                for step in STEPS
            }
            asyncio.run(write_all(args, books, stores))
    except (UserError, openai.OpenAIError) as error:
        logger.error("%s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("interrupted; the same command continues")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
