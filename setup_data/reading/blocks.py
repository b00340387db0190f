"""Book files as blocks: paragraphs and headings in reading order, whatever the file's format."""

# ruff: noqa: SIM905  (lists of tag names read best as text)

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ebooklib
from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import PreformattedString
from ebooklib import epub

BLOCK_TAGS = frozenset(
    "address article aside blockquote body dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 header hr html li main "
    "ol p pre section table tbody td th thead tr ul".split()
)
SKIPPED_TAGS = frozenset("audio figure head img nav script style svg template title video".split())
TOC_TYPES = frozenset("doc-toc toc landmarks page-list".split())
# Shorter lines than this are verse, addresses or lists, whose line breaks belong to the text.
WRAPPED_LINE_CHARS = 50
# Stands for <br>, so that it survives when the source's own line breaks become spaces (a private-use character).
LINE_BREAK = "\ue000"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A paragraph, or a heading where the file's format marks one."""

    text: str
    level: int | None = None
    """1 (`<h1>`, `#`) to 6 for a marked heading; None for a paragraph, and for anything in plain text."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A book file's blocks and the title it gives itself, if any."""

    blocks: list[Block]
    title: str | None


def read_document(path: Path) -> Document:
    """The blocks of a .txt, .md, .html or .epub file. Raises ValueError for other files and damaged ones."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: not a book format that can be read; convert it to one of {', '.join(READERS)}")
    return reader(path)


def decode_text(data: bytes) -> str:
    """UTF-8, UTF-16 with its mark, or else Windows-1252 (old Gutenberg files)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def text_blocks(text: str) -> list[Block]:
    """Paragraphs of plain text: separated by blank lines, wrapped lines joined."""
    paragraphs = re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.replace("\r\n", "\n").replace("\r", "\n"))
    return [Block(text=_join_lines(paragraph)) for paragraph in paragraphs if paragraph.strip()]


def markdown_blocks(text: str) -> list[Block]:
    """As plain text, with `#` and underlined headings as headings."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), flags=re.DOTALL)  # front matter
    text = re.sub(r"^(?=\S)(.+)\n=+[ \t]*$", r"# \1", text, flags=re.MULTILINE)
    text = re.sub(r"^(?=\S)(.+)\n-{3,}[ \t]*$", r"## \1", text, flags=re.MULTILINE)
    text = re.sub(r"^(#{1,6}[ \t].*)$", r"\n\1\n", text, flags=re.MULTILINE)
    blocks = []
    for block in text_blocks(text):
        if heading := re.fullmatch(r"(#{1,6})[ \t]+(.*?)[ \t#]*", block.text):
            blocks.append(Block(text=heading[2].strip("*_ "), level=len(heading[1])))
        else:
            blocks.append(Block(text=re.sub(r"^\\#", "#", block.text, flags=re.MULTILINE)))
    return [block for block in blocks if block.text]


def html_blocks(html: str | bytes) -> list[Block]:
    """The text-bearing leaves of an HTML page; navigation, scripts and tables of contents left out."""
    soup = BeautifulSoup(html, "lxml")
    for line_break in soup.find_all("br"):
        line_break.replace_with(LINE_BREAK)
    return list(_walk_html(soup.body or soup, level=None))


def _walk_html(node: Tag, level: int | None) -> Iterator[Block]:
    inline: list[str] = []

    def flush() -> Iterator[Block]:
        text = "\n".join(re.sub(r"\s+", " ", line).strip() for line in "".join(inline).split(LINE_BREAK))
        inline.clear()
        if text.strip():
            yield Block(text=re.sub(r"\n{2,}", "\n", text.strip()), level=level)

    for child in node.children:
        if isinstance(child, Tag) and (child.name in SKIPPED_TAGS or _is_toc(child)):
            continue
        if isinstance(child, Tag) and (child.name in BLOCK_TAGS or child.find(BLOCK_TAGS) is not None):
            yield from flush()
            heading = re.fullmatch(r"h([1-6])", child.name)
            yield from _walk_html(child, level=int(heading[1]) if heading else level)
        elif isinstance(child, Tag):
            inline.append(child.get_text())
        elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
            inline.append(str(child))
    yield from flush()


def _is_toc(tag: Tag) -> bool:
    kinds = f"{tag.get('epub:type', '')} {tag.get('role', '')} {tag.get('id', '')}".split()
    return any(kind in TOC_TYPES for kind in kinds)


def _join_lines(paragraph: str) -> str:
    """Joins the lines of a wrapped paragraph; keeps the lines of verse, addresses and lists."""
    lines = [line.strip() for line in paragraph.strip().splitlines()]
    wrapped = all(len(line) >= WRAPPED_LINE_CHARS for line in lines[:-1])
    return (" " if wrapped else "\n").join(lines)


def _read_text(path: Path) -> Document:
    text = decode_text(path.read_bytes())
    title = re.search(r"^Title:[ \t]*(.+)$", text[:5000], flags=re.MULTILINE)  # Project Gutenberg's header
    return Document(blocks=text_blocks(text), title=title[1].strip() if title else None)


def _read_markdown(path: Path) -> Document:
    blocks = markdown_blocks(decode_text(path.read_bytes()))
    titles = [block for block in blocks if block.level == 1]
    return Document(blocks=blocks, title=titles[0].text if len(titles) == 1 else None)


def _read_html(path: Path) -> Document:
    data = path.read_bytes()
    title = BeautifulSoup(data, "lxml").title
    text = " ".join(title.get_text().split()) if title else ""
    # Project Gutenberg: "The Project Gutenberg eBook of Emma, by Jane Austen."
    text = re.sub(r"^The Project Gutenberg e-?book of |,? by [^,]+$", "", text, flags=re.IGNORECASE)
    return Document(blocks=html_blocks(data), title=text or None)


def _read_epub(path: Path) -> Document:
    try:
        book = epub.read_epub(str(path), options={"ignore_ncx": True})
    except (epub.EpubException, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path}: not a readable EPUB ({error}); open and save it with an e-book editor") from error
    blocks: list[Block] = []
    for item_id, linear in book.spine:
        item = book.get_item_with_id(item_id)
        is_text = item is not None and item.get_type() == ebooklib.ITEM_DOCUMENT and not isinstance(item, epub.EpubNav)
        if is_text and linear != "no":  # "no": notes, answers and the like, beside the reading order
            blocks += html_blocks(item.get_content())
    titles = book.get_metadata("DC", "title")
    return Document(blocks=blocks, title=titles[0][0] if titles else None)


READERS = {
    ".txt": _read_text,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
    ".epub": _read_epub,
}
