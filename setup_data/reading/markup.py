"""HTML as blocks: the text-bearing leaves of a page, in reading order, with what the markup says about them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from html import unescape

from lxml import etree, html

from openrlhf.errors import UserError
from setup_data.reading.decode import Decoded, decode
from setup_data.reading.headings import is_heading
from setup_data.reading.plain import plain_blocks
from setup_data.reading.source import (
    LINE_BREAK,
    MARK_END,
    NOTE_MARK,
    PAGE_MARK,
    WITHOUT_MARKS,
    AccountError,
    Block,
    Fate,
    Source,
)

BLOCK_TAGS = frozenset(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main nav ol p pre section summary table tbody tfoot "
    "thead tr ul".split()
)
CELL_TAGS = frozenset(("td", "th"))
# What holds no text of the book.
SKIPPED_TAGS = tuple("script style template svg head title audio video object iframe math noscript".split())
TOC_WORDS = frozenset("doc-toc toc landmarks page-list contents tableofcontents table-of-contents".split())
NOTE_WORDS = frozenset(
    "footnote footnotes endnote endnotes rearnote rearnotes doc-footnote doc-endnotes doc-endnote".split()
)
MARKER_WORDS = frozenset("noteref doc-noteref fnanchor footnote-ref footnoteref noteanchor".split())
PAGE_WORDS = frozenset("pagebreak doc-pagebreak pagenum pageno page-number pgnum".split())
PICTURE_WORDS = frozenset("figcenter figleft figright caption illustration illus".split())
LICENCE_WORDS = frozenset("pg-header pg-footer pg-boilerplate pgheader pgfooter".split())
MARKER_TEXT = re.compile(r"[\[({]?(?:\d{1,4}|[a-z]|[*†‡§]+|[ivx]{1,5})[\])}]?", re.IGNORECASE)
HEADING_TAG = re.compile(r"h([1-6])")
HEADING_TAGS = tuple(f"h{level}" for level in range(1, 7))
EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"
DECLARED = re.compile(rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,100}encoding)=[\"']?([\w-]{2,20})", re.IGNORECASE)
# Soft hyphens and what nobody sees, as entities; decode.py takes out the characters.
UNSEEN_ENTITIES = re.compile(
    r"&(?:shy|ZeroWidthSpace|NoBreak|zwnj|#0*(?:173|8203|8204|8288|65279)|#x0*(?:ad|200b|200c|2060|feff));",
    re.IGNORECASE,
)
XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
# A run of this many blocks that are links and nothing else is a contents table.
MIN_LINKED = 3
TAGS = re.compile(rf"<!--.*?-->|<(head|{'|'.join(SKIPPED_TAGS)})\b[^>]*>.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
MIN_PARSED_SHARE = 0.9
MAX_ROW_CHARS = 200
BREAK = "\n"
PARAGRAPH_BREAK = re.compile(rf"{LINE_BREAK}\s*{LINE_BREAK}[\s{LINE_BREAK}]*")


def _words_of(element: etree._Element) -> frozenset[str]:
    """What an element says that it is: its types, role, classes and id."""
    names = (
        element.get(EPUB_TYPE),
        element.get("epub:type"),
        element.get("role"),
        element.get("class"),
        element.get("id"),
    )
    return frozenset(" ".join(name for name in names if name).lower().split())


def _fate_of(element: etree._Element, words: frozenset[str]) -> Fate | None:
    if element.tag == "nav" or words & TOC_WORDS:
        return Fate.CONTENTS
    if words & LICENCE_WORDS:
        return Fate.LICENCE
    if words & NOTE_WORDS:
        return Fate.NOTE
    if element.tag in ("figure", "figcaption", "caption") or words & PICTURE_WORDS:
        return Fate.ILLUSTRATION
    return None


def _is_internal(href: str) -> bool:
    """A link to another place of the book."""
    return "#" in href or (":" not in href and href.lower().endswith(("html", "htm")))


def _is_data_table(table: etree._Element) -> bool:
    """Whether a table has rows of short cells; others only arrange a page's text."""
    rows = list(table.iter("tr"))
    if not rows or next(table.iter(*HEADING_TAGS), None) is not None:
        return False
    lengths = sorted(len("".join(row.itertext())) for row in rows)
    return lengths[len(lengths) // 2] <= MAX_ROW_CHARS


def _is_toc_table(table: etree._Element) -> bool:
    """A table whose rows lead to other places of the book."""
    rows = sum(1 for _ in table.iter("tr"))
    links = sum(_is_internal(link.get("href", "")) for link in table.iter("a"))
    return links >= 2 and 2 * links >= rows and _is_data_table(table)


@dataclass(frozen=True, kw_only=True)
class _Context:
    """What holds for everything inside an element."""

    level: int | None = None
    fate: Fate | None = None
    in_table: bool = False
    is_pre: bool = False
    in_link: bool = False
    in_marker: bool = False
    opens_marker: bool = False


@dataclass(kw_only=True)
class Walker:
    """Collects the blocks of one page, or of several one after the other."""

    parts: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    """`file#id` -> the block that begins there, or after it."""
    linked: set[int] = field(default_factory=set)
    num_alt_chars: int = 0
    """Characters of images' texts, which are no text of the page."""
    num_pre_chars: int = 0
    """Characters of preformatted text, whose lines are wrapped as in a plain text file."""
    length: int = 0
    line: int = 0
    _inline: list[str] = field(default_factory=list)
    _alts: list[str] = field(default_factory=list)
    _pictures_may_head: bool = False
    _chars: Counter[bool] = field(default_factory=Counter)

    def page(self, body: etree._Element, name: str = "") -> None:
        """Walks a page; without recursion, since pages nest as deep as they like."""
        self._pictures_may_head = sum(1 for _ in body.iter(*HEADING_TAGS)) <= 1
        contexts = [_Context()]
        if name:
            self.ids.setdefault(name, len(self.blocks))
        for event, element in etree.iterwalk(body, events=("start", "end", "comment", "pi")):
            if event in ("comment", "pi"):
                self._add(element.tail, contexts[-1])
                continue
            if event == "start":
                contexts.append(self._enter(element, contexts[-1], name))
            else:
                self._leave(element, contexts.pop())
                if element is not body:
                    self._add(element.tail, contexts[-1])
        self._flush(_Context())

    def _enter(self, element: etree._Element, outer: _Context, name: str) -> _Context:
        tag = element.tag if isinstance(element.tag, str) else ""
        words = _words_of(element)
        if tag in BLOCK_TAGS or (outer.fate is None and _fate_of(element, words) is not None):
            self._flush(outer)
        if not self._inline:
            self.line = element.sourceline or self.line
        for key in (element.get("id"), element.get("name") if tag == "a" else None):
            if key:
                self.ids.setdefault(f"{name}#{key}", len(self.blocks))
        heading = HEADING_TAG.fullmatch(tag)
        context = replace(
            outer,
            level=int(heading[1]) if heading else outer.level,
            fate=outer.fate
            or _fate_of(element, words)
            or (Fate.CONTENTS if tag == "table" and _is_toc_table(element) else None),
            in_table=outer.in_table or (tag == "table" and _is_data_table(element)),
            is_pre=outer.is_pre or tag == "pre",
            in_link=outer.in_link or (tag == "a" and _is_internal(element.get("href", ""))),
            opens_marker=False,
        )
        context = self._open_marker(element, tag, words, context)
        if tag == "br":
            self._inline.append(BREAK if context.is_pre else LINE_BREAK)
        elif tag in CELL_TAGS:
            self._add(" ", context)
        elif tag == "img" and (alt := element.get("alt") or element.get("title")):
            if context.level is not None:
                self.num_alt_chars += num_visible(alt)
                self._add(f" {alt} ", context)
            elif self._pictures_may_head:
                self._alts.append(alt)
        self._add(element.text, context)
        return context

    def _open_marker(self, element: etree._Element, tag: str, words: frozenset[str], context: _Context) -> _Context:
        """Marks a note's reference or a page number inside a paragraph."""
        if context.in_marker or tag in BLOCK_TAGS:
            return context
        mark = ""
        if words & PAGE_WORDS:
            mark = PAGE_MARK
        elif words & MARKER_WORDS or tag in ("sup", "a"):
            text = "".join(element.itertext()).strip()
            is_link = tag == "a" and context.in_link
            inner_link = tag == "sup" and any("#" in link.get("href", "") for link in element.iter("a"))
            if MARKER_TEXT.fullmatch(text) and (
                words & MARKER_WORDS or inner_link or (is_link and text[0] in "[({*†‡")
            ):
                mark = NOTE_MARK
        if not mark:
            return context
        self._inline.append(mark)
        return replace(context, in_marker=True, opens_marker=True)

    def _leave(self, element: etree._Element, context: _Context) -> None:
        if context.opens_marker:
            self._inline.append(MARK_END)
        if element.tag in CELL_TAGS:
            self._add(" ", context)
        if element.tag in BLOCK_TAGS:
            self._flush(context)

    def _add(self, text: str | None, context: _Context) -> None:
        if text:
            text = text.translate(WITHOUT_MARKS) if not text.isascii() else text
            self._inline.append(text if context.is_pre else re.sub(r"\s+", " ", text))
            self._chars[context.in_link] += sum(char.isalpha() for char in text)

    def _flush(self, context: _Context) -> None:
        text = "".join(self._inline)
        if context.is_pre:
            self._flush_pre(text.replace(LINE_BREAK, BREAK), context)
            return
        is_link = self._chars[True] > 0 and self._chars[False] == 0 and context.level is None
        alt = " ".join(" ".join(self._alts).split())
        self._clear()
        if not text.strip() and alt and is_heading(alt):
            self.num_alt_chars += num_visible(alt)
            text = alt
        for part in PARAGRAPH_BREAK.split(text) if context.level is None else [text]:
            self._add_block(part.replace(LINE_BREAK, BREAK), context, is_link=is_link)

    def _clear(self) -> None:
        for collected in (self._inline, self._alts, self._chars):
            collected.clear()

    def _add_block(self, text: str, context: _Context, *, is_link: bool) -> None:
        lines = (" ".join(line.split(" ")).strip() for line in text.split(BREAK))
        text = BREAK.join(re.sub(r"[^\S\n]+", " ", line) for line in lines if line)
        if not text.strip():
            return
        if is_link:
            self.linked.add(len(self.blocks))
        self.blocks.append(
            Block(
                start=self.length, end=self.length + len(text), level=context.level, fate=context.fate,
                in_table=context.in_table and context.level is None, line=self.line,
            )
        )  # fmt: skip
        self.parts.append(text)
        self.length += len(text) + 2

    def _flush_pre(self, text: str, context: _Context) -> None:
        """Preformatted text: its paragraphs, as in a plain text file."""
        self._clear()
        if not text.strip():
            return
        self.blocks += [
            replace(
                block, start=block.start + self.length, end=block.end + self.length, fate=block.fate or context.fate,
                level=context.level, line=self.line + text.count("\n", 0, block.start),
            )
            for block in plain_blocks(text)
        ]  # fmt: skip
        self.num_pre_chars += len(text)
        self.parts.append(text)
        self.length += len(text) + 2

    def finished(self) -> list[Block]:
        """The blocks; runs of links are contents tables."""
        run: list[int] = []
        tables: set[int] = set()
        for index in range(len(self.blocks) + 1):
            if index in self.linked:
                run.append(index)
                continue
            if len(run) >= MIN_LINKED:
                tables |= set(run)
            run = []
        return [
            replace(block, fate=Fate.CONTENTS) if i in tables and block.fate is None else block
            for i, block in enumerate(self.blocks)
        ]


def parse_body(text: str) -> tuple[etree._Element, str | None]:
    """A page's body without scripts and the like, and its title. Raises UserError where there is none."""
    parser = html.HTMLParser(huge_tree=True)
    text = UNSEEN_ENTITIES.sub("", text) if "&" in text else text
    try:
        root = html.document_fromstring(XML_DECLARATION.sub("", text), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise UserError(f"no HTML page that can be read ({error})") from error
    title = root.findtext(".//title")
    body = root.find("body")
    body = root if body is None else body
    etree.strip_elements(body, *SKIPPED_TAGS, with_tail=False)
    _check_parsed(text, body)
    return body, " ".join(title.split()) if title else None


def _check_parsed(text: str, body: etree._Element) -> None:
    """Raises UserError where the parser gave up on a part of a page (nested too deep, for one)."""
    expected = num_visible(unescape(TAGS.sub("", text)))
    if text_chars(body) < MIN_PARSED_SHARE * expected:
        raise UserError(
            f"only {text_chars(body):,} of some {expected:,} characters of the page can be parsed; open and save it "
            "with an HTML editor, or convert it to text"
        )


def check_extraction(bodies_text_chars: int, walker: Walker) -> None:
    """Every visible character of the pages is in the blocks. Raises AccountError otherwise."""
    text = "".join(walker.parts)
    marks = sum(text.count(mark) for mark in (NOTE_MARK, PAGE_MARK, MARK_END))
    in_blocks = num_visible(text) - marks - walker.num_alt_chars
    if in_blocks != bodies_text_chars:
        raise AccountError(f"the blocks have {in_blocks:,} characters, the pages {bodies_text_chars:,}")


def num_visible(text: str) -> int:
    """How many characters are no white space."""
    return sum(map(len, text.split()))


def text_chars(body: etree._Element) -> int:
    """The visible characters of a page."""
    return num_visible(body.xpath("string()"))


def declared_encoding(data: bytes) -> str | None:
    """The encoding that a page names."""
    match = DECLARED.search(data[:2000])
    return match[1].decode("ascii") if match else None


def read_html(data: bytes) -> Source:
    """An HTML file."""
    decoded: Decoded = decode(data, declared=declared_encoding(data))
    if not decoded.text.strip():
        raise UserError("there is no text in it")
    body, title = parse_body(decoded.text)
    walker = Walker()
    chars = text_chars(body)
    walker.page(body)
    check_extraction(chars, walker)
    # Project Gutenberg: "The Project Gutenberg eBook of Emma, by Jane Austen."
    title = (
        re.sub(r"^The Project Gutenberg e-?book of |,? by [^,]+$", "", title, flags=re.IGNORECASE) if title else None
    )
    return Source(
        text="\n\n".join(walker.parts),
        blocks=walker.finished(),
        title=title,
        assumed=decoded.assumed,
        wrapped=2 * walker.num_pre_chars > walker.length,
    )
