"""Books into chapters: formats, heading styles, what is left out, and what is reported."""

from __future__ import annotations

import io
import os
import random
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from openrlhf.errors import UserError
from setup_data.book import Book, Chapter, chapter_key, parse_markdown, read_book, to_markdown
from setup_data.fetch_austen import iter_blocks, parse_character_vector
from setup_data.read_books import Outcome, find_book_files, main
from setup_data.reading.clean import Cleaner
from setup_data.reading.headings import is_title, number_head, worded_head
from setup_data.reading.numbers import parse_number
from setup_data.reading.read import read_book_file, read_source, story_id_of
from setup_data.reading.source import AccountError, Fate
from support.book_files import PROSE, book_of, headers, make_epub, split_html, split_markdown, split_text

AUSTEN_CHAPTERS = {
    "pride_and_prejudice": 61,
    "sense_and_sensibility": 50,
    "emma": 55,
    "mansfield_park": 48,
    "northanger_abbey": 31,
    "persuasion": 24,
}
# Real books, which are not part of this repository: files and their true counts.
SHARED_CHAPTERS = {
    "treasure_island": 34,
    "peter_pan": 17,
    "the_enchanted_april": 22,
    "sherlock_holmes": 12,
    "black_beauty": 49,
    "samantha_at_saratoga": 20,
    "jack_sheppard_latin1": 58,
    "war_and_peace": 365,
    "crime_and_punishment_cp1251": 41,
}
SHARED_BOOKS = Path(os.environ.get("REAL_BOOKS_DIR", Path(__file__).resolve().parents[4] / "shared" / "books"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), ("XLVIII", 48), ("xiv", 14), ("IX", 9), ("IIII", 4), ("CHAPTER", None), ("twelve", 12),
        ("Twenty-First", 21), ("the Second", 2), ("forty two", 42), ("", None), ("IVX", None),
        ("One Hundred and One", 101), ("one thousand two hundred", 1200), ("vingt-deuxième", 22),
        ("quatre-vingt-dix-sept", 97), ("soixante et onze", 71), ("einundzwanzigstes", 21), ("Erstes", 1),
        ("vigésimo primero", 21), ("treinta y uno", 31), ("Двадцать первая", 21), ("третья", 3), ("ventunesimo", 21),
        ("Vinte e um", 21), ("tweeëntwintigste", 22), ("DIX-HUITIÈME", 18), ("1st", 1), ("I'm", None),
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
    heading = worded_head(0, text)
    assert heading is not None
    assert heading.header == label


@pytest.mark.parametrize(
    "text",
    ["Chapter 3 was the one he liked best.", "Part of it was true.", "Book learning", "Part two of the plan failed.",
     "Letter in hand, she went", "chapter and verse", "PART OF THE PLAN"],
)  # fmt: skip
def test_sentences_are_no_headings(text: str) -> None:
    assert worded_head(0, text) is None
    assert number_head(0, text) is None


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
    assert all(chapter.text == PROSE for chapter in result.book.chapters)


def test_numbers_inside_chapters_are_text() -> None:
    result = split_text(book_of("CHAPTER I", "1", "2", "CHAPTER II"))
    assert headers(result) == ["CHAPTER I", "CHAPTER II"]


def test_prologue_epilogue_and_what_is_no_story() -> None:
    text = book_of("PREFACE", "PROLOGUE", "CHAPTER I", "CHAPTER II", "EPILOGUE") + "\n\nTHE END\n\nNOTES\n\n1. A note."
    result = split_text(text)
    assert headers(result) == ["PROLOGUE", "CHAPTER I", "CHAPTER II", "EPILOGUE"]
    assert result.book.chapters[-1].text == PROSE
    words = result.account.words
    assert words[Fate.FRONT] == len(PROSE.split()) + 3 + 1  # the preface's text, "A TITLE PAGE", "PREFACE"
    assert words[Fate.BACK] == 2 + 1 + 3  # "THE END", "NOTES", "1. A note."
    assert words[Fate.HEADING] == 6
    assert sum(words.values()) == result.account.num_source_words


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
    assert all(chapter.text == result.book.chapters[0].text for chapter in result.book.chapters)


def test_contents_with_a_preface_after_them() -> None:
    listed = "CONTENTS\n\nCHAPTER I\n\nThe Lamp\n\nCHAPTER II\n\nThe Stair"
    preface = "\n\n".join([PROSE] * 20)
    result = split_text(f"{listed}\n\n{preface}\n\n{book_of('CHAPTER I', 'CHAPTER II', front='')}")
    assert headers(result) == ["CHAPTER I", "CHAPTER II"]
    assert all(chapter.text == PROSE for chapter in result.book.chapters)


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
    with pytest.raises(UserError, match="no paragraph matches --chapter_regex"):
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
    assert all(chapter.text == PROSE for chapter in result.book.chapters)


def test_wrapped_lines_are_joined_and_verse_is_not() -> None:
    wrapped = "The lamp had burned all night, and nobody in the house\nwould own to it."
    verse = "Lamp, lamp,\nburn away"
    result = split_text(f"CHAPTER I\n\n{wrapped}\n \n{verse}\r\n\nCHAPTER II\n\n{PROSE}".replace("\r", ""))
    assert result.book.chapters[0].text == wrapped.replace("\n", " ") + "\n\n" + verse


def test_markdown_headings() -> None:
    result = split_markdown(
        f"# Lamps\n\n## The *Lamp*\n{PROSE}\n\nThe Stair\n---------\n\n{PROSE}\n\n\\# not one, *really*"
    )
    assert headers(result) == ["The *Lamp", "The Stair"]
    assert result.book.title == "Lamps"
    assert [chapter.text for chapter in result.book.chapters] == [PROSE, f"{PROSE}\n\n# not one, really"]


def test_html_headings_breaks_and_navigation() -> None:
    page = """<html><head><title>Lamps</title></head><body><nav><p>CHAPTER I</p></nav>
      <h2>CHAPTER I<br/>The  Lamp</h2><div>Loose <i>words</i><p>First
      line.</p> and more</div><!-- no --><h2>CHAPTER II</h2><p>Second&nbsp;<b>one</b>.</p></body></html>"""
    page = page.replace("<h2>CHAPTER II</h2>", "<h2>CHAPTER II</h2><h3>He rang twice.</h3>")
    result = split_html(page)
    assert headers(result) == ["CHAPTER I: The Lamp", "CHAPTER II: He rang twice"]
    texts = [chapter.text for chapter in result.book.chapters]
    assert texts == ["Loose words\n\nFirst line.\n\nand more", "Second one."]
    assert result.account.words[Fate.CONTENTS] == 2


def test_epub_in_reading_order(tmp_path: Path) -> None:
    page = f"<h1>Chapter {{}}</h1><p>{PROSE}</p>"
    note = ("notes.xhtml", "<h1>Chapter 9</h1><p>A note.</p>")
    pages = [("c2.xhtml", page.format(1)), note, ("c1.xhtml", page.format(2))]
    nav = '<ol><li><a href="c2.xhtml">Chapter 1</a></li><li><a href="c1.xhtml">Chapter 2</a></li></ol>'
    path = tmp_path / "Lamps & Wells.epub"
    path.write_bytes(make_epub(pages, nav=nav, not_linear=["notes.xhtml"]))
    result = read_book_file(path)
    assert (result.book.title, result.book.story_id) == ("Lamps", "lamps_wells")
    assert headers(result) == ["Chapter 1", "Chapter 2"]
    assert result.account.words[Fate.NOTE] == 4


def zip_of(files: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


def test_one_bad_file_never_stops_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "in"
    (folder / ".hidden").mkdir(parents=True)
    text = book_of("CHAPTER I", "CHAPTER II")
    method = "<encryption><EncryptedData><EncryptionMethod Algorithm='{}'/></EncryptedData></encryption>"
    fonts_only = method.format("http://www.idpf.org/2008/embedding")
    epub = [("c.xhtml", f"<h1>Chapter 1</h1><p>{PROSE}</p><h1>Chapter 2</h1><p>{PROSE}</p>")]
    files: dict[str, bytes] = {
        "good.txt": text.encode(),
        "fonts.epub": make_epub(epub, extra={"META-INF/encryption.xml": fonts_only.encode()}),
        "no_zip.epub": b"no zip",
        "empty.epub": b"",
        "encrypted.epub": make_epub(epub, extra={"META-INF/encryption.xml": method.format("x").encode()}),
        "blank.txt": b" \n",
        "noise.txt": bytes(range(1, 32)) * 40,
        "cover.txt": b"\xff\xd8\xff\xe0\0\x10JFIF" + random.Random(0).randbytes(5_000),
        "page.epub": zip_of({"page.html": "x"}),
        "\u0418\u0434\u0438\u043e\u0442.txt": text.encode(),
        "\u7d05\u697c\u5922.txt": text.encode(),
        "Good.md": text.encode(),
        ".dot.txt": text.encode(),
        ".hidden/in.txt": text.encode(),
        "cover.jpg": b"x",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "moved.txt").symlink_to(tmp_path / "away")
    assert main([str(folder), "--output_dir", str(tmp_path / "out")]) == 2
    assert sorted(path.name for path in (tmp_path / "out" / "books").iterdir()) == ["fonts.md", "good.md"]
    problems = [line.split("not read: ", 1)[1] for line in caplog.text.splitlines() if "not read: " in line]
    assert len(problems) == 11
    for name, reason in {
        "no_zip.epub": "not a readable EPUB", "empty.epub": "the file is empty", "encrypted.epub": "it is encrypted",
        "blank.txt": "there is no text in it", "noise.txt": "no text in any known encoding",
        "cover.txt": "no text in any known encoding", "page.epub": "no package document", "moved.txt": "No such file",
        "\u0418\u0434\u0438\u043e\u0442.txt": "rename it", "\u7d05\u697c\u5922.txt": "rename it",
        "good.txt": "its story id would be that of",
    }.items():  # fmt: skip
        assert any(name in problem and reason in problem for problem in problems), (name, problems)


def test_a_page_of_which_a_part_is_lost_in_parsing_is_refused() -> None:
    deep = "<div>" * 4000 + f"<h2>Chapter 1</h2><p>{PROSE}</p>" + "</div>" * 4000
    with pytest.raises(UserError, match="characters of the page can be parsed"):
        split_html(f"<p>Lamps</p>{deep}")


def test_headings_without_any_text_are_one_chapter() -> None:
    result = split_text("CHAPTER I\n\nThe Lamp\n\nCHAPTER II\n\nThe Stair")
    assert sum(result.account.words.values()) == 8


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.pdf").write_text("%PDF")
    with pytest.raises(UserError, match=r"b\.pdf: not a book format"):
        read_book_file(tmp_path / "b.pdf")
    with pytest.raises(UserError, match="no id can be made"):
        story_id_of(Path("\u0418\u0434\u0438\u043e\u0442.txt"))
    outcome = Outcome()
    with pytest.raises(UserError, match="no book found"):
        find_book_files([tmp_path / "none"], outcome)
    assert outcome.problems == [f"{tmp_path / 'none'}: no such file or folder"]


def test_an_account_that_does_not_sum_up_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text(book_of("CHAPTER I", "CHAPTER II"))
    paragraph = Cleaner.paragraph
    monkeypatch.setattr(Cleaner, "paragraph", lambda self, raw: paragraph(self, raw).replace("Nobody ", ""))
    with pytest.raises(AccountError, match="their paragraphs have 40"):
        read_book_file(tmp_path / "a.txt")
    assert main([str(tmp_path / "a.txt"), "--output_dir", str(tmp_path / "out")]) == 1


def test_suspicious_results_are_pointed_out() -> None:
    long = "word " * 20_001
    result = split_text(f"CHAPTER I\n\n{long}\n\nCHAPTER II\n\nshort\n\nCHAPTER IV\n\n{long}")
    found = "\n".join(result.suspicions)
    assert "000-chapter-i has 20,001 words" in found
    assert "001-chapter-ii has only 1 words" in found
    assert "002-chapter-iv: its number follows 2; 3 missing, or not marked" in found
    assert "only one chapter" in split_text(PROSE).suspicions[0]
    again = split_text(book_of("CHAPTER I", "CHAPTER II", "CHAPTER I", "CHAPTER II")).suspicions
    assert sum("is repeated 2 times" in each for each in again) == 2
    assert sum("the numbers start over after 2" in each for each in again) == 1


def test_look_alikes_are_listed_ten_of_a_kind() -> None:
    inner = "\n\n".join(f"{number}\n\n{PROSE}" for number in range(1, 15))
    found = split_text(f"CHAPTER I\n\n{PROSE}\n\n{inner}\n\nCHAPTER II\n\n{PROSE}").suspicions
    assert sum("looks like a heading" in each for each in found) == 10
    assert "... and 4 more lines that look like headings (14 in all)" in found


def test_left_out_stretches_are_listed_with_their_line() -> None:
    preface = "\n\n".join([PROSE] * 6)
    result = split_text(f"LAMPS\n\nPREFACE\n\n{preface}\n\n{book_of('CHAPTER I', 'CHAPTER II', front='')}")
    (stretch,) = result.account.stretches
    assert (stretch.fate, stretch.num_words, stretch.place) == (Fate.FRONT, 122, "line 1")
    assert stretch.first_words.startswith("LAMPS PREFACE The lamp had burned")


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
    with pytest.raises(SystemExit, match="2"):
        main([*argv, "--chapter_regex", "("])


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


def test_austen_chapters() -> None:
    """Used where they are found: AUSTEN_DIR, as `python -m setup_data.fetch_austen` fills it."""
    folder = Path(os.environ.get("AUSTEN_DIR", "austen"))
    for story_id, num_chapters in AUSTEN_CHAPTERS.items():
        if not (path := folder / f"{story_id}.txt").exists():
            continue
        result = read_book_file(path)
        keys = [chapter_key(i, chapter.header) for i, chapter in enumerate(result.book.chapters)]
        assert keys == sorted(set(keys))
        assert len(set(headers(result))) == len(keys) == num_chapters
        assert result.suspicions == ()


def test_real_books() -> None:
    """Used where they are found: REAL_BOOKS_DIR, or shared/books beside the repository."""
    for name, num_chapters in SHARED_CHAPTERS.items():
        if not (path := SHARED_BOOKS / f"{name}.txt").exists():
            continue
        result = read_book_file(path)
        assert len(set(headers(result))) == len(result.book.chapters) == num_chapters, name
        assert sum(result.account.words.values()) == result.account.num_source_words
        assert result.account.num_source_words == len(read_source(path).text.split())


def test_an_end_without_a_start_and_a_start_without_an_end() -> None:
    """Found by the generated heaps of lines: the reader never came back from these."""
    start, end = (f"*** {word} OF THE PROJECT GUTENBERG EBOOK X ***" for word in ("START", "END"))
    for lines in ((end, PROSE, start), (PROSE, end, end), (end, end, start, PROSE), (start, start, PROSE, end)):
        text = "\n".join(lines)
        if lines[0] == end and lines[-1] == start:
            with pytest.raises(UserError, match="no text"):
                split_text(text)
        else:
            assert sum(split_text(text).account.words.values()) == len(text.split())
