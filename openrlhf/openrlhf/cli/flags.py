"""From a command line to the typed configuration, both derived from `cli/flag_table.py`.

`parse_args` reads the arguments and `--config`, `flag_problems` checks each flag by itself, `to_config` makes the
`TrainConfig` that `cli/validate.py` checks as a whole.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from openrlhf.cli.config_file import read_config_file, with_secrets
from openrlhf.cli.flag_rows import Flag, is_off, number_problem
from openrlhf.cli.flag_table import COMMAND_FLAGS, FLAGS
from openrlhf.cli.help_text import render_help
from openrlhf.config import AlgorithmConfig, BatchConfig, TrainConfig
from openrlhf.errors import UserError
from openrlhf.vr_cli.rewards import advantage_eps

ConfigT = TypeVar("ConfigT")

MICRO_BATCH_SIZES = ("micro_rollout_batch_size", "micro_train_batch_size")


class _Parser(argparse.ArgumentParser):
    """Reports in one line what it cannot read."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the flags)")


class _Help(argparse.Action):
    """Prints the flags that people use, or, where `const` is true, all of them."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        sys.stdout.write(render_help(parser.prog, everything=bool(self.const)))
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The argument parser. A switch may be followed by true or false: so one that `--config` turns on can be off."""
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("-h", "--help", action=_Help, nargs=0, const=False)
    parser.add_argument("--help_all", action=_Help, nargs=0, const=True)
    for flag in (*COMMAND_FLAGS, *FLAGS):
        options: dict[str, Any] = {"nargs": flag.count, "type": flag.kind}
        if flag.kind is bool:
            options = {"nargs": "?", "const": True, "type": _switch, "metavar": "true|false"}
        parser.add_argument(f"--{flag.name}", default=flag.default_value(), **options)
    return parser


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false; a switch may also stand alone")
    return text == "true"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses `argv` (None: the process's own arguments), and the file of `--config` for flags that are not given.

    Raises:
        UserError: an unknown flag, a value of another type, or a `--config` that cannot be used.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    saved: Mapping[str, Any] = {}
    if args.config is not None:
        saved = read_config_file(args.config)
        parser.set_defaults(**saved)
        args = argparse.Namespace(**with_secrets(vars(parser.parse_args(argv)), args.config))
    args.pack_tokens = _pack_tokens(args.pack_tokens, sys.argv[1:] if argv is None else argv, saved)
    return args


def _pack_tokens(value: str, argv: Sequence[str], saved: Collection[str]) -> str:
    """`--pack_tokens`, or `micro` where a micro-batch size is given after it, or in its place.

    Args:
        saved: names of the flags that the file of `--config` sets.
    """
    names = [word.partition("=")[0] for word in argv]
    given = [name for name in names if name in ("--pack_tokens", *(f"--{size}" for size in MICRO_BATCH_SIZES))]
    if given:
        return value if given[-1] == "--pack_tokens" else "micro"
    by_file = "pack_tokens" not in saved and any(size in saved for size in MICRO_BATCH_SIZES)
    return "micro" if by_file else value


def run_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What makes the run, flag by flag: the content of its `config.json`."""
    return {flag.name: getattr(args, flag.name) for flag in FLAGS}


def flag_problems(args: argparse.Namespace, *, num_gpus: int | None) -> list[str]:
    """What is wrong with each flag by itself, a line a flag, on a machine with `num_gpus` GPUs (None: unknown)."""
    values = vars(args)
    found = ((flag, next(_problems(flag, values, num_gpus), None)) for flag in FLAGS)
    return [f"{flag.given(values[flag.name])}: {problem}" for flag, problem in found if problem is not None]


def _problems(flag: Flag, values: Mapping[str, Any], num_gpus: int | None) -> Iterator[str]:
    value = values[flag.name]
    if flag.required is not None and value is None:
        yield flag.required
    if flag.refused is not None and flag.refused.applies(value, flag.default_value()):
        yield f"{flag.refused.why}; {flag.refused.instead}"
    if value is None:
        return
    if flag.choices and value not in flag.choices:
        yield "must be " + ", ".join(map(str, flag.choices[:-1])) + f" or {flag.choices[-1]}"
    for number in value if isinstance(value, (list, tuple)) else (value,):
        if problem := number_problem(number):
            yield problem
    if flag.check is not None and (problem := flag.check.problem(value)):
        yield problem
    if is_off(value):
        return
    if flag.needs is not None and is_off(values[flag.needs]):
        yield f"does nothing without --{flag.needs}; add that, or drop it"
    if flag.needs_gpu is not None and num_gpus == 0:
        yield f"this machine has no GPU, and {flag.needs_gpu.why}; {flag.needs_gpu.instead}"
    if flag.package is not None and importlib.util.find_spec(flag.package.replace("-", "_")) is None:
        yield f"the package {flag.package} is not installed; run pip install {flag.package}, or drop the flag"


def to_config(args: argparse.Namespace) -> TrainConfig:
    """The typed configuration: every value at the fields that its row names.

    Values may still be wrong: what `flag_problems` and `cli/validate.py` say of them comes in one report.
    """
    values = {path: _plain(getattr(args, flag.name)) for flag in FLAGS for path in flag.paths}
    config = _build(TrainConfig, values, prefix="")
    dtype = config.reference_dtype
    return dataclasses.replace(
        config,
        engine=dataclasses.replace(config.engine, max_model_len=config.batch.max_total_tokens),
        algorithm=_with_advantage_eps(config),
        batch=_with_pack_tokens(config.batch),
        reference=dataclasses.replace(config.reference, bf16=dtype == "bf16", tf32=dtype == "tf32"),
        ref_deepspeed=dataclasses.replace(config.ref_deepspeed, bf16=dtype == "bf16"),
    )


def _with_pack_tokens(batch: BatchConfig) -> BatchConfig:
    """A number of tokens as a number."""
    value = str(batch.pack_tokens)
    return dataclasses.replace(batch, pack_tokens=int(value)) if value.isascii() and value.isdigit() else batch


def _with_advantage_eps(config: TrainConfig) -> AlgorithmConfig:
    """Above the scorer's noise, which is measured in the reward's unit, where `--advantage_eps` is not given."""
    default = advantage_eps(None if config.reward.remote_rm_url else config.reward.reward_shape)
    eps = config.algorithm.advantage_eps
    return dataclasses.replace(config.algorithm, advantage_eps=default if eps is None else eps)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _build(config_class: type[ConfigT], values: Mapping[str, Any], prefix: str) -> ConfigT:
    """A configuration dataclass from dotted paths; a field that no flag sets keeps its default."""
    types = typing.get_type_hints(config_class)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        path = prefix + field.name
        if dataclasses.is_dataclass(types[field.name]):
            arguments[field.name] = _build(types[field.name], values, prefix=f"{path}.")
        elif path in values:
            arguments[field.name] = values[path]
    return config_class(**arguments)
