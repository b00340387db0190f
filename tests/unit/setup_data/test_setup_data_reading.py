"""Books into chapters: formats, heading styles, what is left out, and what is reported."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from ebooklib import epub

from setup_data.book import Book, Chapter, chapter_key, parse_markdown, read_book, to_markdown
from setup_data.fetch_austen import iter_blocks, parse_character_vector
from setup_data.read_books import find_book_files, find_suspicions, main, read_book_file
from setup_data.reading.blocks import html_blocks, markdown_blocks, read_document, text_blocks
from setup_data.reading.chapters import SplitResult, split_chapters
from setup_data.reading.headings import classify, is_title, parse_number

PROSE = "The lamp had burned all night, and nobody in the house would own to having lit it.\n\nNobody asked twice."
AUSTEN_CHAPTERS = {
    "pride_and_prejudice": 61,
    "sense_and_sensibility": 50,
    "emma": 55,
    "mansfield_park": 48,
    "northanger_abbey": 31,
    "persuasion": 24,
}


def split_text(text: str, chapter_regex: str | None = None) -> SplitResult:
    return split_chapters(text_blocks(text), title="Untitled", chapter_regex=chapter_regex)


def headers(result: SplitResult) -> list[str]:
    return [chapter.header for chapter in result.chapters]


def book_of(*heads: str, front: str = "A TITLE PAGE") -> str:
    return "\n\n\n".join([front, *(f"{head}\n\n{PROSE}" for head in heads)])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), ("XLVIII", 48), ("xiv", 14), ("IX", 9), ("IIII", 4), ("CHAPTER", None), ("twelve", 12),
        ("Twenty-First", 21), ("the Second", 2), ("forty two", 42), ("", None), ("IVX", None),
    ],
)  # fmt: skip
def test_numbers_in_digits_romans_and_words(text: str, value: int | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("CHAPTER IV", "CHAPTER IV"),
        ("Chapter 12.", "Chapter 12"),
        ("CHAPTER I. THE PARTY", "CHAPTER I: THE PARTY"),
        ("Chapter the Last", "Chapter the Last"),
        ("CHAPTER TWENTY-ONE\nIn which nothing happens", "CHAPTER TWENTY-ONE: In which nothing happens"),
        ("Chap. 3 - Rain", "Chap. 3: Rain"),
        ("_Chapter 5_", "Chapter 5"),
        ("VOLUME THE SECOND", "VOLUME THE SECOND"),
        ("Letter IX", "Letter IX"),
    ],
)
def test_headings_by_their_wording(text: str, label: str) -> None:
    heading = classify(text)
    assert heading is not None
    assert heading.label == label


@pytest.mark.parametrize(
    "text",
    ["Chapter 3 was the one he liked best.", "Part of it was true.", "Book learning", "Part two of the plan failed.",
     "Letter in hand, she went", "chapter and verse", "PART OF THE PLAN"],
)  # fmt: skip
def test_sentences_are_no_headings(text: str) -> None:
    assert classify(text) is None


def test_titles_and_sentences() -> None:
    assert is_title("The Boy on the Roof")
    assert is_title("A HOUSE OF RAIN")
    assert not is_title("He went home")
    assert not is_title('"Come In"')
    assert not is_title("It was late.")


def test_numbering_that_restarts_gets_unique_ordered_keys() -> None:
    result = split_text(book_of("VOLUME I\n\n\nCHAPTER I", "CHAPTER II", "VOLUME II\n\n\nCHAPTER I", "CHAPTER II"))
    expected = ["VOLUME I, CHAPTER I", "VOLUME I, CHAPTER II", "VOLUME II, CHAPTER I", "VOLUME II, CHAPTER II"]
    assert headers(result) == expected
    keys = [chapter_key(i, header) for i, header in enumerate(headers(result))]
    assert keys[2] == "002-volume-ii-chapter-i"
    assert keys == sorted(set(keys))


@pytest.mark.parametrize(
    "heads",
    [
        ("I", "II", "III"),
        ("1.", "2.", "3."),
        ("One", "Two", "Three"),
        ("I. The Lamp", "II. The Stair", "III. The Well"),
        ("THE LAMP", "THE STAIR", "THE WELL"),
        ("PART ONE", "PART TWO", "PART THREE"),
    ],
)
def test_other_heading_styles(heads: tuple[str, ...]) -> None:
    result = split_text(book_of(*heads, front="A quiet sort of book, for the long evenings of the year."))
    assert [header.rstrip(".") for header in headers(result)] == [head.rstrip(".") for head in heads]
    assert all(chapter.text == PROSE for chapter in result.chapters)


def test_numbers_inside_chapters_are_text() -> None:
    result = split_text(book_of("CHAPTER I", "1", "2", "CHAPTER II"))
    assert headers(result) == ["CHAPTER I", "CHAPTER II"]


def test_prologue_epilogue_and_what_is_no_story() -> None:
    text = book_of("PREFACE", "PROLOGUE", "CHAPTER I", "CHAPTER II", "EPILOGUE") + "\n\nTHE END\n\nNOTES\n\n1. A note."
    result = split_text(text)
    assert headers(result) == ["PROLOGUE", "CHAPTER I", "CHAPTER II", "EPILOGUE"]
    assert result.chapters[-1].text == PROSE
    assert result.num_words_outside == len(PROSE.split()) + 3 + 3  # the preface, "A TITLE PAGE", "1. A note."


def test_title_in_the_next_paragraph() -> None:
    result = split_text(book_of("CHAPTER I\n\nThe Lamp", "CHAPTER II\n\nTHE STAIR"))
    assert headers(result) == ["CHAPTER I: The Lamp", "CHAPTER II: THE STAIR"]


@pytest.mark.parametrize("heading", ["CONTENTS\n\n", ""])
@pytest.mark.parametrize(
    "before_text", ["", "A WORD FIRST\n\nThese pages were found in a drawer, and are printed here.\n\n"]
)
def test_table_of_contents_is_left_out(heading: str, before_text: str) -> None:
    heads = ("CHAPTER I", "CHAPTER II", "CHAPTER III")
    result = split_text(
        heading + "\n\n".join(heads) + "\n\n" + before_text + "\n\n".join(f"{h}\n\n{PROSE * 9}" for h in heads)
    )
    assert headers(result) == list(heads)
    assert all(chapter.text == result.chapters[0].text for chapter in result.chapters)


def test_contents_with_a_preface_after_them() -> None:
    listed = "CONTENTS\n\nCHAPTER I\n\nThe Lamp\n\nCHAPTER II\n\nThe Stair"
    preface = "\n\n".join([PROSE] * 20)
    result = split_text(f"{listed}\n\n{preface}\n\n{book_of('CHAPTER I', 'CHAPTER II', front='')}")
    assert headers(result) == ["CHAPTER I", "CHAPTER II"]
    assert all(chapter.text == PROSE for chapter in result.chapters)


def test_contents_of_a_book_whose_numbers_start_over() -> None:
    text = "CONTENTS\n\nThe Lamp, the Stair\n\n" + book_of("CHAPTER I", "CHAPTER II", "CHAPTER I", "CHAPTER II")
    text = text.replace(PROSE, "\n\n".join([PROSE] * 5))
    assert headers(split_text(text)) == ["CHAPTER I", "CHAPTER II", "CHAPTER I", "CHAPTER II"]


def test_numbers_that_do_not_count_on_are_text() -> None:
    result = split_text(book_of("1", "2\n\n40\n\n7", "3", "1", "2", front="A quiet sort of book."))
    assert headers(result) == ["1", "2", "3", "1", "2"]


def test_contents_as_one_paragraph_does_not_cost_the_first_chapter() -> None:
    result = split_text("CONTENTS\n\nThe Lamp 1\nThe Stair 9\n\n" + book_of("CHAPTER I", "CHAPTER II"))
    assert headers(result) == ["CHAPTER I", "CHAPTER II"]


def test_chapter_regex() -> None:
    result = split_text(book_of("* Lamp *", "* Stair *"), chapter_regex=r"\* \w+ \*")
    assert headers(result) == ["* Lamp *", "* Stair *"]
    with pytest.raises(ValueError, match="no paragraph matches --chapter_regex"):
        split_text(book_of("* Lamp *"), chapter_regex=r"=+")


def test_gutenberg_boilerplate_is_removed() -> None:
    text = (
        "The Project Gutenberg eBook of Lamps\n\nTitle: Lamps\n\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK LAMPS ***\n\nProduced by someone\n\n"
        + book_of("CHAPTER I", "[Illustration: a lamp]\n\nCHAPTER II")
        + "\n\n*** END OF THE PROJECT GUTENBERG EBOOK LAMPS ***\n\nSection 1. General Terms of Use"
    )
    result = split_text(text)
    assert headers(result) == ["CHAPTER I", "CHAPTER II"]
    assert all(chapter.text == PROSE for chapter in result.chapters)


def test_wrapped_lines_are_joined_and_verse_is_not() -> None:
    wrapped = "The lamp had burned all night, and nobody in the house\nwould own to it."
    verse = "Lamp, lamp,\nburn away"
    blocks = text_blocks(f"{wrapped}\n \n{verse}\r\n")
    assert [block.text for block in blocks] == [wrapped.replace("\n", " "), verse]


def test_markdown_headings() -> None:
    blocks = markdown_blocks(f"# Lamps\n\n## The *Lamp*\n{PROSE}\n\nThe Stair\n---------\n\n{PROSE}\n\n\\# not one")
    assert [block.text for block in blocks if block.level == 2] == ["The *Lamp", "The Stair"]
    result = split_chapters(blocks, title="Lamps")
    assert headers(result) == ["The *Lamp", "The Stair"]
    assert result.chapters[1].text.endswith("# not one")


def test_html_headings_breaks_and_navigation() -> None:
    page = """<html><head><title>Lamps</title></head><body><nav><p>CHAPTER I</p></nav>
      <h2>CHAPTER I<br/>The  Lamp</h2><div>Loose <i>words</i><p>First
      line.</p> and more</div><!-- no --><h2>CHAPTER II</h2><p>Second&nbsp;<b>one</b>.</p></body></html>"""
    page = page.replace("<h2>CHAPTER II</h2>", "<h2>CHAPTER II</h2><h3>He rang twice.</h3>")
    result = split_chapters(html_blocks(page), title="Lamps")
    assert headers(result) == ["CHAPTER I: The Lamp", "CHAPTER II: He rang twice."]
    assert [chapter.text for chapter in result.chapters] == ["Loose words\n\nFirst line.\n\nand more", "Second one."]


def test_epub_in_reading_order(tmp_path: Path) -> None:
    book = epub.EpubBook()
    book.set_identifier("lamps")
    book.set_title("Lamps")
    pages: list[epub.EpubHtml] = []
    for number in (2, 1):
        page = epub.EpubHtml(title=f"{number}", file_name=f"c{number}.xhtml")
        page.content = f"<html><body><h1>Chapter {number}</h1><p>{PROSE}</p></body></html>"
        book.add_item(page)
        pages.insert(0, page)
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    book.toc = pages
    notes = epub.EpubHtml(title="Notes", file_name="notes.xhtml")
    notes.content = "<html><body><h1>Chapter 9</h1><p>A note.</p></body></html>"
    book.add_item(notes)
    book.spine = ["nav", *pages, (notes, "no")]
    epub.write_epub(str(tmp_path / "Lamps & Wells.epub"), book)
    result = read_book_file(tmp_path / "Lamps & Wells.epub")
    assert (result.book.title, result.book.story_id) == ("Lamps", "lamps_wells")
    assert headers(result.split) == ["Chapter 1", "Chapter 2"]


def test_damaged_and_unknown_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.epub").write_text("no zip")
    with pytest.raises(ValueError, match=r"a\.epub: not a readable EPUB"):
        read_document(tmp_path / "a.epub")
    (tmp_path / "b.pdf").write_text("%PDF")
    with pytest.raises(ValueError, match=r"b\.pdf: not a book format"):
        read_document(tmp_path / "b.pdf")
    (tmp_path / "c.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"c\.txt: there is no text in it"):
        read_book_file(tmp_path / "c.txt")


def test_old_encodings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Caf\xe9 noir".encode("cp1252"))
    assert read_document(tmp_path / "a.txt").blocks[0].text == "Caf\xe9 noir"


def test_two_files_with_one_id_are_named(tmp_path: Path) -> None:
    for name in ("Emma.txt", "emma.md"):
        (tmp_path / name).write_text(PROSE)
    with pytest.raises(ValueError, match=r"Emma\.txt and .*emma\.md would share the story id 'emma'"):
        find_book_files([tmp_path])
    with pytest.raises(ValueError, match="no such file"):
        find_book_files([tmp_path / "none"])


def test_suspicious_results_are_pointed_out(tmp_path: Path) -> None:
    long = "word " * 20_001
    (tmp_path / "a.txt").write_text(f"CHAPTER I\n\n{long}\n\nCHAPTER II\n\nshort\n\nCHAPTER IV\n\n{long}")
    found = "\n".join(find_suspicions(read_book_file(tmp_path / "a.txt")))
    assert "000-chapter-i has 20,001 words" in found
    assert "001-chapter-ii has only 1 words" in found
    assert "002-chapter-iv: its number follows 2" in found
    (tmp_path / "b.txt").write_text(PROSE)
    assert "only one chapter" in find_suspicions(read_book_file(tmp_path / "b.txt"))[0]
    (tmp_path / "c.txt").write_text(book_of("CHAPTER I", "CHAPTER II", "CHAPTER I", "CHAPTER II"))
    assert sum("is repeated" in each for each in find_suspicions(read_book_file(tmp_path / "c.txt"))) == 2


def test_command_writes_books_and_reports_and_keeps_corrections(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Lamps.txt").write_text(book_of("CHAPTER I", "CHAPTER II"))
    argv = [str(tmp_path / "in"), "--output_dir", str(tmp_path / "out")]
    assert main(argv) == 0
    path = tmp_path / "out" / "books" / "lamps.md"
    assert [chapter.text for chapter in read_book(path).chapters] == [PROSE, PROSE]
    assert "| `001-chapter-ii` | CHAPTER II | 20 |" in (tmp_path / "out" / "reports" / "lamps.md").read_text()
    path.write_text(path.read_text().replace("CHAPTER II", "CHAPTER TWO"))
    assert main(argv) == 0
    assert "CHAPTER TWO" in path.read_text()
    assert main([*argv, "--overwrite"]) == 0
    assert "CHAPTER TWO" not in path.read_text()
    assert main([*argv, "--chapter_regex", "("]) == 1


def test_book_markdown_round_trip() -> None:
    chapters = (Chapter(header="Chapter 1: A", text="One\n\n# two\n\n## three"), Chapter(header="2", text="x"))
    book = Book(story_id="s", title="T", genre="Mystery", chapters=chapters)
    assert parse_markdown(to_markdown(book), story_id="s", source="s.md") == book


def test_book_markdown_errors_name_the_line() -> None:
    with pytest.raises(ValueError, match=r"s\.md:2: expected"):
        parse_markdown("# T\nstray\n## C\ntext", story_id="s", source="s.md")
    with pytest.raises(ValueError, match="chapter 'C' is empty"):
        parse_markdown("# T\n## C\n## D\ntext", story_id="s", source="s.md")


def test_r_character_vector() -> None:
    def string(text: bytes | None) -> bytes:
        return struct.pack(">ii", 9 | 0x40000, -1 if text is None else len(text)) + (text or b"")

    head = b"X\n" + struct.pack(">iii", 3, 0x30500, 0x30500) + struct.pack(">i", 5) + b"UTF-8"
    block = head + struct.pack(">ii", 16, 3) + string(b"EMMA") + string(None) + string("caf\xe9".encode())
    rdb = b"".join(struct.pack(">i", len(block)) + zlib.compress(block) for _ in range(2))
    assert [parse_character_vector(each) for each in iter_blocks(rdb)] == [["EMMA", "", "caf\xe9"]] * 2
    with pytest.raises(ValueError, match="is damaged"):
        list(iter_blocks(rdb[:-9]))


@pytest.mark.parametrize(("story_id", "num_chapters"), AUSTEN_CHAPTERS.items())
def test_austen_chapters(story_id: str, num_chapters: int) -> None:
    folder = os.environ.get("AUSTEN_DIR")
    if not folder:
        pytest.skip("set AUSTEN_DIR to the folder that `python -m setup_data.fetch_austen` wrote")
    result = read_book_file(Path(folder) / f"{story_id}.txt")
    keys = [chapter_key(i, chapter.header) for i, chapter in enumerate(result.book.chapters)]
    assert len(result.book.chapters) == num_chapters
    assert keys == sorted(set(keys))
    assert len({chapter.header for chapter in result.book.chapters}) == num_chapters
    assert find_suspicions(result) == []
