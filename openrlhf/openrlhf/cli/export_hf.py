"""A checkpoint as a model that `transformers` and vLLM load, and on to the Hugging Face hub.

    python -m openrlhf.cli.export_hf CKPT OUT
    python -m openrlhf.cli.export_hf CKPT OUT --push_to_hub NAME

CKPT is one checkpoint (`.../_actor/global_stepN`, of any ZeRO stage), a folder of checkpoints, or the run's folder: the
newest whole one is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openrlhf.cli.command import files_are_the_users, run_command
from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_directory, remove_leftovers
from openrlhf.utils.checkpoints import Checkpoint
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

STAMP = "export.json"
"""In OUT: which checkpoint it was made of, so that a repeated command goes on with the upload."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exports, and uploads where asked to; returns the exit code (see `cli/command.py`)."""

    def command() -> None:
        args = parse_args(argv)
        from openrlhf.cli.hub_upload import check_access, upload

        if args.push_to_hub is not None:
            check_access(args.push_to_hub)
        with files_are_the_users():
            export(args)
        if args.push_to_hub is not None:
            upload(args.out, args.push_to_hub, public=args.public)

    return run_command(command)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m openrlhf.cli.export_hf",
        description="Exports a checkpoint as a Hugging Face folder that transformers and vLLM load.",
        epilog="Repeat an interrupted command: an export that is there is not made again, an upload goes on.",
    )
    parser.add_argument("checkpoint", metavar="CKPT", type=Path, help="a checkpoint, or the run's folder (the newest)")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make; must be empty or not there")
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16", help="of the weights [bf16]")
    parser.add_argument(
        "--pretrain", metavar="MODEL", help="configuration and tokenizer, where the checkpoint has none of its own"
    )
    parser.add_argument("--run", type=Path, help="the run's --save_path, where it is not above the checkpoint")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument("--push_to_hub", metavar="NAME", help="upload to YOU/NAME on the hub: private, and resumable")
    parser.add_argument("--public", action="store_true", help="let everybody see the new repository on the hub")
    args = parser.parse_args(argv)
    if args.public and args.push_to_hub is None:
        parser.error("--public needs --push_to_hub NAME")
    return args


def export(args: argparse.Namespace) -> None:
    """Makes OUT, whole or not at all.

    Raises:
        UserError: no whole checkpoint, an OUT that holds something else, or no model files.
    """
    from openrlhf.cli.run_folder import find_checkpoint, find_run

    out = args.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give another OUT")
    checkpoint = find_checkpoint(args.checkpoint)
    stamp = make_stamp(checkpoint, args.dtype)
    if out.is_dir() and any(out.iterdir()):
        there = _read_stamp(out)
        if args.push_to_hub is None or there != stamp:
            what = "is not empty" if there is None else f"is the export of {there['checkpoint']} in {there['dtype']}"
            raise UserError(f"{out} {what}: give another OUT, or remove it")
        logger.info("%s is there already, of %s", out, checkpoint.path)
        return
    remove_leftovers(Path(os.path.realpath(out)).parent)
    from openrlhf.cli.model_card import render_card
    from openrlhf.models.export import export_checkpoint, model_source
    from openrlhf.utils.logging import quiet_libraries

    quiet_libraries()
    pretrain = args.pretrain or model_source(checkpoint)
    if pretrain is None:
        raise UserError(
            f"{checkpoint.path} has no configuration and tokenizer: pass --pretrain, the model that the run began with"
        )
    card = render_card(checkpoint, find_run(checkpoint, args.run), name=out.name, dtype=args.dtype)
    logger.info("exporting %s", checkpoint.path)
    with atomic_directory(out) as folder, _room_is_the_users():
        export_checkpoint(
            checkpoint, folder, dtype=args.dtype, pretrain=pretrain, trust_remote_code=args.trust_remote_code
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    logger.info("saved model %s (%s)", out, args.dtype)


def zero_to_fp32(argv: Sequence[str] | None = None) -> int:
    """The command line of DeepSpeed's script of that name, as far as people use it."""
    parser = argparse.ArgumentParser(description="fp32 weights of a checkpoint, as a Hugging Face folder.")
    parser.add_argument("checkpoint_dir", type=Path, help="the folder that holds global_stepN")
    parser.add_argument("output_dir", help="the folder to make")
    parser.add_argument("-t", "--tag", help="global_stepN [the newest]")
    args = parser.parse_args(argv)
    checkpoint = args.checkpoint_dir / args.tag if args.tag else args.checkpoint_dir
    return main([str(checkpoint), args.output_dir, "--dtype", "fp32"])


def make_stamp(checkpoint: Checkpoint, dtype: str) -> dict[str, Any]:
    """What an export was made of, as it reads back from JSON."""
    files = {name: digest for name, (_, digest) in checkpoint.files.items()}
    return {"checkpoint": checkpoint.tag, "files_xxh3_128": files, "dtype": dtype}


def _read_stamp(out: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((out / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"checkpoint", "dtype"} <= content.keys() else None


@contextmanager
def _room_is_the_users() -> Iterator[None]:
    """Raises UserError for a folder that cannot be written."""
    from openrlhf.utils.disk import WriteError

    try:
        yield
    except WriteError as error:
        raise UserError(f"{error}; free some room, or give another OUT") from error


if __name__ == "__main__":
    sys.exit(main())
