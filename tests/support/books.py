"""Small books for the writing steps."""

from __future__ import annotations

import random
from pathlib import Path

from setup_data.book import Book, Chapter, write_book


def make_books(work_dir: Path) -> Path:
    """Two stories of four chapters; one chapter is longer than the context of 4,000 tokens."""
    rng = random.Random(0)
    for story_id in ("harbour", "orchard"):
        chapters = []
        for index in range(4):
            num_words = 6000 if (story_id, index) == ("orchard", 1) else 220
            words = [
                rng.choice(("Ann Reed", "Tom Hale", "saw", "took", "the", "boat.", "lamp", "rain,"))
                for _ in range(num_words)
            ]
            chapters.append(Chapter(header=f"Chapter {index + 1}", text=" ".join(words)))
        write_book(Book(story_id=story_id, title=story_id.title(), chapters=tuple(chapters)), work_dir / "books")
    return work_dir
