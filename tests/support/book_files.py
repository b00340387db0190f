"""Books for the reader's tests: made of chapters that are known, read from strings."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from setup_data.reading.decode import Decoded
from setup_data.reading.markup import read_html
from setup_data.reading.plain import read_markdown, read_plain
from setup_data.reading.read import ReadResult, split_source
from setup_data.reading.source import Source

PROSE = "The lamp had burned all night, and nobody in the house would own to having lit it.\n\nNobody asked twice."

XHTML = (
    '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
    "<head><title>x</title></head><body>{}</body></html>"
)
NCX = '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>{}</navMap></ncx>'
OPF = (
    '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
    '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata>'
    '<manifest>{items}</manifest><spine toc="ncx">{spine}</spine></package>'
)


def split(source: Source, chapter_regex: str | None = None) -> ReadResult:
    """The chapters of a source."""
    return split_source(
        source, path=Path("x"), story_id="x", title=source.title or "Untitled", chapter_regex=chapter_regex
    )


def split_text(text: str, chapter_regex: str | None = None) -> ReadResult:
    """A plain text file's chapters."""
    return split(read_plain(Decoded(text=text)), chapter_regex)


def split_markdown(text: str, chapter_regex: str | None = None) -> ReadResult:
    """A Markdown file's chapters."""
    return split(read_markdown(Decoded(text=text)), chapter_regex)


def split_html(page: str, chapter_regex: str | None = None) -> ReadResult:
    """An HTML file's chapters."""
    return split(read_html(page.encode()), chapter_regex)


def headers(result: ReadResult) -> list[str]:
    """The chapters' headings."""
    return [chapter.header for chapter in result.book.chapters]


def book_of(*heads: str, front: str = "A TITLE PAGE", prose: str = PROSE) -> str:
    """A plain text book with these headings, each over the same two paragraphs."""
    return "\n\n\n".join([front, *(f"{head}\n\n{prose}" for head in heads)])


def make_epub(
    pages: Sequence[tuple[str, str]],
    *,
    nav: str | None = None,
    ncx: str | None = None,
    title: str = "Lamps",
    not_linear: Sequence[str] = (),
    extra: dict[str, bytes] | None = None,
) -> bytes:
    """An EPUB of (file name, body) pages in this order, with a navigation document or an ncx."""
    items = [f'<item id="p{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, (name, _) in enumerate(pages)]
    linear = ['linear="no"' if name in not_linear else "" for name, _ in pages]
    spine = [f'<itemref idref="p{i}" {each}/>' for i, each in enumerate(linear)]
    if nav is not None:
        items.append('<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>')
    if ncx is not None:
        items.append('<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>')
    package = OPF.format(title=title, items="".join(items), spine="".join(spine))
    container = '<container><rootfiles><rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/content.opf", package)
        for name, body in pages:
            archive.writestr(f"OEBPS/{name}", XHTML.format(body))
        if nav is not None:
            archive.writestr("OEBPS/nav.xhtml", XHTML.format(f'<nav epub:type="toc"><h1>Contents</h1>{nav}</nav>'))
        if ncx is not None:
            archive.writestr("OEBPS/toc.ncx", NCX.format(ncx))
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return data.getvalue()
