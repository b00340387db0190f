"""EPUB files: pages in the order of the spine, places named by the navigation document (or the older ncx).

Read with zipfile and lxml alone. Notes and the like that the spine calls not linear are read after the rest, as notes.
"""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from lxml import etree

from openrlhf.errors import UserError
from setup_data.reading.decode import decode
from setup_data.reading.headings import one_line
from setup_data.reading.markup import Walker, check_extraction, declared_encoding, parse_body, text_chars
from setup_data.reading.source import Block, Fate, Source
from setup_data.reading.view import same_words
from setup_data.reading.wording import plain_kind

PAGE_TYPES = ("application/xhtml+xml", "text/html", "application/xml", "text/xml")
MAX_FILE_BYTES = 200_000_000
FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
BAD_ZIP = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, kw_only=True)
class NavPoint:
    """One line of the navigation."""

    name: str
    target: str
    """`file` or `file#id`, inside the archive."""
    depth: int


@dataclass(frozen=True, kw_only=True)
class Package:
    """What an EPUB's package document says."""

    title: str | None
    pages: tuple[tuple[str, bool], ...]
    """(file, linear) in the order of the spine."""
    nav: tuple[NavPoint, ...]


def _local(element: etree._Element) -> str:
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def _all(root: etree._Element, name: str) -> list[etree._Element]:
    return [element for element in root.iter() if _local(element) == name]


def _parse_xml(data: bytes) -> etree._Element:
    parser = etree.XMLParser(recover=True, resolve_entities=False, huge_tree=True, no_network=True)
    root = etree.fromstring(data, parser=parser)
    if root is None:
        raise UserError("not a readable EPUB (a part of it is no XML); open and save it with an e-book editor")
    return root


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.flag_bits & 1:
        raise UserError("it is encrypted; only books without copy protection can be read")
    if info.file_size > MAX_FILE_BYTES:
        raise UserError(f"{name} in it is larger than {MAX_FILE_BYTES:,} bytes")
    return archive.read(info)


def _check_not_encrypted(archive: zipfile.ZipFile) -> None:
    """Raises UserError where more than fonts is encrypted."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return
    for entry in _all(_parse_xml(_read(archive, "META-INF/encryption.xml")), "EncryptedData"):
        methods = [method.get("Algorithm", "") for method in _all(entry, "EncryptionMethod")]
        if not any(method in FONT_ALGORITHMS for method in methods):
            raise UserError("it is encrypted; only books without copy protection can be read")


def _package_path(archive: zipfile.ZipFile) -> str:
    try:
        container = _parse_xml(_read(archive, "META-INF/container.xml"))
        return next(root.get("full-path", "") for root in _all(container, "rootfile"))
    except (KeyError, StopIteration):
        name = next((name for name in archive.namelist() if name.lower().endswith(".opf")), None)
    if name is None:
        raise UserError("not a readable EPUB (it has no package document); open and save it with an e-book editor")
    return name


def read_package(archive: zipfile.ZipFile) -> Package:
    """The title, spine and navigation."""
    path = _package_path(archive)
    root = _parse_xml(_read(archive, path))
    folder = posixpath.dirname(path)
    items = {item.get("id"): item for item in _all(root, "item")}

    def file_of(item: etree._Element) -> str:
        return posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))

    spine = _all(root, "itemref")
    pages = [
        (file_of(items[ref.get("idref")]), ref.get("linear", "yes") != "no")
        for ref in spine
        if ref.get("idref") in items and items[ref.get("idref")].get("media-type", "") in PAGE_TYPES
    ]
    nav_item = next((item for item in items.values() if "nav" in (item.get("properties") or "").split()), None)
    toc_id = next((each.get("toc") for each in _all(root, "spine")), None)
    ncx_item = items.get(toc_id) if toc_id else None
    if ncx_item is None:
        ncx_item = next((i for i in items.values() if i.get("media-type") == "application/x-dtbncx+xml"), None)
    nav: list[NavPoint] = []
    if nav_item is not None and file_of(nav_item) in archive.namelist():
        nav = _nav_points(_parse_xml(_read(archive, file_of(nav_item))), file_of(nav_item))
    if not nav and ncx_item is not None and file_of(ncx_item) in archive.namelist():
        nav = _ncx_points(_parse_xml(_read(archive, file_of(ncx_item))), file_of(ncx_item))
    titles = [one_line("".join(title.itertext())) for title in _all(root, "title")]
    return Package(title=next(filter(None, titles), None), pages=tuple(pages), nav=tuple(nav))


def _target(base: str, href: str) -> str:
    file, _, fragment = unquote(href).partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(base), file)) if file else base
    return f"{path}#{fragment}" if fragment else path


def _nav_points(root: etree._Element, base: str) -> list[NavPoint]:
    """The list of the `toc` navigation, with the depth of each line."""
    navs = _all(root, "nav")
    typed = [nav for nav in navs if any(key.endswith("type") and "toc" in value for key, value in nav.attrib.items())]
    points = []
    for nav in (typed or navs)[:1]:
        for element in nav.iter():
            if _local(element) == "a" and element.get("href"):
                depth = sum(_local(each) == "ol" for each in element.iterancestors())
                points.append(
                    NavPoint(
                        name=one_line("".join(element.itertext())),
                        target=_target(base, element.get("href", "")),
                        depth=depth,
                    )
                )
    return points


def _ncx_points(root: etree._Element, base: str) -> list[NavPoint]:
    points = []
    for element in _all(root, "navPoint"):
        label = next((one_line("".join(text.itertext())) for text in element if _local(text) == "navLabel"), "")
        src = next((content.get("src", "") for content in element if _local(content) == "content"), "")
        depth = 1 + sum(_local(each) == "navPoint" for each in element.iterancestors())
        points.append(NavPoint(name=label, target=_target(base, src), depth=depth))
    return points


def read_epub(path: Path) -> Source:
    """An EPUB. Raises UserError where it is damaged, encrypted or empty."""
    if path.stat().st_size == 0:
        raise UserError("the file is empty")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_not_encrypted(archive)
            return _read_archive(archive)
    except (*BAD_ZIP, etree.XMLSyntaxError) as error:
        raise UserError(f"not a readable EPUB ({error}); open and save it with an e-book editor") from error


def _read_archive(archive: zipfile.ZipFile) -> Source:
    package = read_package(archive)
    walker = Walker()
    files: list[tuple[int, str]] = []
    assumed: list[str] = []
    missing, num_chars = [], 0
    beside: set[int] = set()
    for name, is_linear in sorted(package.pages, key=lambda page: not page[1]):
        if name not in archive.namelist():
            missing.append(name)
            continue
        data = _read(archive, name)
        decoded = decode(data, declared=declared_encoding(data))
        assumed += [f"{name}: {note}" for note in decoded.assumed]
        if not decoded.text.strip():
            continue
        body, _ = parse_body(decoded.text)
        files.append((walker.length, name))
        first = len(walker.blocks)
        num_chars += text_chars(body)
        walker.page(body, name)
        beside |= set() if is_linear else set(range(first, len(walker.blocks)))
    check_extraction(num_chars, walker)
    if missing:
        assumed.append(f"{len(missing)} pages of the spine are not in the file, the first is {missing[0]}")
    blocks = [
        replace(block, fate=Fate.NOTE) if i in beside and block.fate is None else block
        for i, block in enumerate(walker.finished())
    ]
    if not blocks:
        raise UserError("there is no text in it")
    text = "\n\n".join(walker.parts)
    starts = {name: walker.ids.get(name) for _, name in files}
    places = _named_places(blocks, package, walker.ids)
    if places:
        blocks = _with_names(text, blocks, places)
    elif not any(block.level for block in blocks):
        blocks = _named_by_file(blocks, [at for at in starts.values() if at is not None])
    return Source(
        text=text,
        blocks=blocks,
        title=package.title,
        assumed=tuple(assumed),
        files=tuple(files),
        has_navigation=bool(places),
    )


def _named_places(blocks: Sequence[Block], package: Package, ids: dict[str, int]) -> dict[int, NavPoint]:
    """Block -> what the navigation calls it; nothing where the navigation names too little to go by."""
    places: dict[int, NavPoint] = {}
    for point in package.nav:
        at = ids.get(point.target, ids.get(point.target.partition("#")[0]))
        if at is not None and at < len(blocks) and point.name:
            places.setdefault(at, point)
    story = [point for point in places.values() if plain_kind(point.name) is None]
    return {} if len(story) < 2 or _names_too_few(blocks, places) else places


def _with_names(text: str, blocks: Sequence[Block], places: dict[int, NavPoint]) -> list[Block]:
    """The blocks with the levels that the navigation gives them, and a name before what has no heading of its own."""
    deepest = max(point.depth for point in places.values())
    result: list[Block] = []
    for index, block in enumerate(blocks):
        point = places.get(index)
        if point is None:
            is_subtitle = block.level is not None and result and result[-1].level is not None
            result.append(replace(block, level=block.level + deepest) if block.level and not is_subtitle else block)
        elif block.level is not None or _is_name(text[block.start : block.end], point.name):
            result.append(replace(block, level=point.depth))
        else:
            name = Block(start=block.start, end=block.start, level=point.depth, name=point.name, line=block.line)
            result += [name, block]
    return result


def _is_name(text: str, name: str) -> bool:
    """Whether a block is the heading that the navigation names, though no heading by its markup."""
    ours, theirs = same_words(text), same_words(name)
    part = ours in theirs or theirs in ours
    return bool(ours) and (ours == theirs or (part and len(ours) < 3 * len(theirs) and len(theirs) < 3 * len(ours)))


def _names_too_few(blocks: Sequence[Block], places: dict[int, NavPoint]) -> bool:
    """Whether the pages mark far more headings of one level than the navigation names: it lists parts or pages only."""
    levels = [block.level for block in blocks if block.level is not None and block.fate is None]
    most = max((levels.count(level) for level in set(levels)), default=0)
    return most > 3 * len(places)


def _named_by_file(blocks: list[Block], file_starts: Sequence[int]) -> list[Block]:
    """Without headings and navigation, each page is a chapter, if there are several."""
    starts = sorted(set(file_starts))
    if len(starts) < 2:
        return blocks
    result: list[Block] = []
    for count, (start, end) in enumerate(zip(starts, [*starts[1:], len(blocks)], strict=True), start=1):
        its = blocks[start:end]
        if its and all(block.fate is None for block in its[:1]):
            result.append(Block(start=its[0].start, end=its[0].start, level=1, name=str(count), line=1))
        result += its
    return [*blocks[: starts[0]], *result]
