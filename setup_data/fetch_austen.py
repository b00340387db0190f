"""Fetches Jane Austen's six novels, in Project Gutenberg's wording, from Debian's `r-cran-janeaustenr` package.

    python -m setup_data.fetch_austen OUTPUT_DIR            # apt-get download, unpack, six .txt files
    python -m setup_data.fetch_austen OUTPUT_DIR --deb r-cran-janeaustenr_1.0.0-1_all.deb

The novels are in the public domain; the text stays out of this repository. R itself is not needed: the package's
`Rdata.rdb` is a sequence of blocks, each a 4-byte big-endian size of the unpacked data and a zlib stream of one
character vector in R's XDR serialisation (R Internals, "Serialization Formats").
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.logging import init_logger

logger = init_logger("setup_data.fetch_austen")

PACKAGE = "r-cran-janeaustenr"
RDB_PATH = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
INT = Struct(">i")

# R's type codes, and the length that stands for NA_character_.
CHARSXP, STRSXP, NA_LENGTH = 9, 16, -1


def iter_blocks(rdb: bytes) -> Iterator[bytes]:
    """The unpacked blocks of an `.rdb`. Raises UserError where one is cut short."""
    position = 0
    while position < len(rdb):
        (size,) = INT.unpack_from(rdb, position)
        unpacker = zlib.decompressobj()
        block = unpacker.decompress(rdb[position + INT.size :])
        if not unpacker.eof or len(block) != size:
            raise UserError(f"Rdata.rdb: the block at byte {position} is damaged; download the package again")
        yield block
        position = len(rdb) - len(unpacker.unused_data)


def parse_character_vector(block: bytes) -> list[str]:
    """The strings of one serialised character vector (format 2 or 3); NA becomes an empty string."""
    if block[:2] != b"X\n":
        raise UserError(f"Rdata.rdb: expected XDR serialisation, found {block[:2]!r}")
    position = 2

    def next_int() -> int:
        nonlocal position
        (value,) = INT.unpack_from(block, position)
        position += INT.size
        return value

    def next_bytes(length: int) -> bytes:
        nonlocal position
        position += length
        return block[position - length : position]

    version, _writer, _oldest_reader = next_int(), next_int(), next_int()
    if version == 3:
        next_bytes(next_int())  # name of the native encoding
    if (kind := next_int() & 0xFF) != STRSXP:
        raise UserError(f"Rdata.rdb: expected a character vector, found R type {kind}")
    lines = []
    for _ in range(next_int()):
        if (kind := next_int() & 0xFF) != CHARSXP:
            raise UserError(f"Rdata.rdb: expected a string, found R type {kind}")
        length = next_int()
        lines.append("" if length == NA_LENGTH else next_bytes(length).decode("utf-8"))
    return lines


def unpack_deb(deb: Path, folder: Path) -> bytes:
    """The `.rdb` file inside the Debian package."""
    subprocess.run(["dpkg-deb", "--extract", str(deb), str(folder)], check=True)
    return (folder / RDB_PATH).read_bytes()


def download_deb(folder: Path) -> Path:
    """Downloads the package into `folder` with apt-get; nothing is installed."""
    command = ["apt-get", "download", "-q", PACKAGE]
    if subprocess.run(command, cwd=folder, check=False).returncode != 0:
        raise UserError(
            f"`{' '.join(command)}` failed: run `apt-get update` first, or download the package elsewhere and pass it "
            "with --deb"
        )
    return next(folder.glob(f"{PACKAGE}_*.deb"))


def write_novels(rdb: bytes, output_dir: Path) -> list[Path]:
    """One text file a novel, named after its first line."""
    paths = []
    for block in iter_blocks(rdb):
        lines = parse_character_vector(block)
        path = output_dir / f"{'_'.join(lines[0].lower().split())}.txt"
        with atomic_write(path) as file:
            file.write("\n".join(lines) + "\n")
        logger.info("%s: %d lines", path, len(lines))
        paths.append(path)
    return paths


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--deb", type=Path, help="the package, if it is already here")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            deb = args.deb or download_deb(Path(scratch))
            write_novels(unpack_deb(deb, Path(scratch) / "unpacked"), args.output_dir)
    except UserError as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
