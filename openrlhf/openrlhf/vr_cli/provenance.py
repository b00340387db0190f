"""What a baseline was computed with. Training refuses a baseline that it would not itself have computed."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from openrlhf.config import Precision
from openrlhf.errors import UserError
from openrlhf.utils.file_hashes import file_sha256
from openrlhf.utils.tokenizer import tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""In the order in which `transformers` looks for them; either may be split, with an index beside it."""
PASSING_CONFIG_FIELDS = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"})
"""Of config.json: which library wrote it, and from where. The precision of scoring is recorded apart."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Model, precision and prompts behind a set of perplexities."""

    model_name: str
    """Folder or hub id; only for people, the weights decide."""
    weights_sha256: str
    config_sha256: str
    """Of the model's settings: rotary scaling, say, changes what the same weights compute."""
    tokenizer_sha256: str
    """Of vocabulary and chat template: they decide what the gold tokens are."""
    dtype: str
    """`--reference_dtype`: bf16, tf32 or fp32."""
    attention: str
    """`sdpa` or `flex_attention`: in bfloat16 two kernels differ by more than rounding in the last digit, and the first
    reward tier begins at 0.05 %."""
    prompt_template_version: str
    prompt_settings: dict[str, bool]
    """`use_system_role` and the `include_*` switches."""

    @classmethod
    def of_model(
        cls,
        model_name: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: Precision,
        flash_attn: bool,
        prompt_template_version: str,
        prompt_settings: dict[str, bool],
    ) -> Provenance:
        """The provenance of what this model computes from texts that `tokenizer` has made into tokens.

        Reads all its weights where they are new; see `weights_sha256`.
        """
        return cls(
            model_name=model_name,
            weights_sha256=weights_sha256(model_name),
            config_sha256=config_sha256(model_name),
            tokenizer_sha256=tokenizer_sha256(tokenizer),
            dtype=dtype,
            attention="flex_attention" if flash_attn else "sdpa",
            prompt_template_version=prompt_template_version,
            prompt_settings=prompt_settings,
        )

    @classmethod
    def from_dict(cls, value: Any) -> Provenance:
        """Raises UserError where `value` is not what `to_dict` gave."""
        try:
            provenance = cls(**value)
        except TypeError as error:
            raise UserError(f"incomplete provenance ({error})") from None
        texts = {name: text for name, text in vars(provenance).items() if name != "prompt_settings"}
        for name, text in texts.items():
            if not isinstance(text, str):
                raise UserError(f"a provenance whose {name} is {text!r:.60}, no string")
        switches = provenance.prompt_settings
        if not isinstance(switches, dict) or not all(type(switch) is bool for switch in switches.values()):
            raise UserError(f"a provenance whose prompt_settings are {switches!r:.60}, no switches that are on or off")
        return provenance

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def mismatches(self, other: Provenance) -> list[str]:
        """What differs, one line each, in words; empty where results can be compared. Names of models may differ."""
        lines = []
        if self.weights_sha256 != other.weights_sha256:
            lines.append(f"model weights: {_model(self)}, here {_model(other)}")
        for name in [field.name for field in fields(self) if field.name not in COMPARED_APART]:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                lines.append(f"{LABELS.get(name, name)}: {mine:.16}, here {theirs:.16}")  # hashes are long
        for name in sorted(self.prompt_settings.keys() | other.prompt_settings.keys()):
            mine, theirs = self.prompt_settings.get(name), other.prompt_settings.get(name)
            if mine != theirs:
                lines.append(f"{name}: {mine}, here {theirs}")
        return lines


COMPARED_APART = ("model_name", "weights_sha256", "prompt_settings")
LABELS = {
    "config_sha256": "model settings (sha256 of config.json)",
    "tokenizer_sha256": "tokenizer or chat template (sha256)",
    "dtype": "precision (--reference_dtype)",
    "attention": "attention (--flash_attn)",
    "prompt_template_version": "prompt templates, version",
}
"""What messages call a field, where that is not its name."""


def _model(provenance: Provenance) -> str:
    return f"{provenance.model_name} (sha256 {provenance.weights_sha256[:12]})"


def weights_sha256(model_name: str) -> str:
    """SHA-256 over the content of all weight files of a folder or hub id.

    The whole content, because fine-tuned models differ from their base in nothing else; files are read in parallel, and
    only those that changed since they were last read (see `file_sha256`). Downloads a hub model that is not cached yet.

    Raises:
        UserError: there is no such model, or it has no weights.
    """
    files = _weight_files(_model_folder(model_name))
    with ThreadPoolExecutor() as pool:  # hashlib releases the GIL
        digests = pool.map(file_sha256, files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def config_sha256(model_name: str) -> str:
    """SHA-256 of a model's config.json, without the fields that only say how the file was made.

    Raises:
        UserError: there is no such model, or it has no usable config.json.
    """
    path = _model_folder(model_name) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no usable model configuration ({error}); restore the model's folder") from None
    return hashlib.sha256(json.dumps(_lasting(config), sort_keys=True).encode()).hexdigest()


def _lasting(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _lasting(value) for key, value in config.items() if key not in PASSING_CONFIG_FIELDS}
    return config


def _model_folder(model_name: str) -> Path:
    if Path(model_name).is_dir():
        return Path(model_name)
    try:
        for name in WEIGHT_FILES:
            stem, suffix = name.split(".")
            patterns = [f"{stem}*.{suffix}", f"{stem}*.index.json", "config.json"]
            folder = Path(snapshot_download(model_name, allow_patterns=patterns))
            if any(folder.glob(f"{stem}*.{suffix}")):
                return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"model {model_name!r} is neither a folder nor a hub model that can be reached ({type(error).__name__}); "
            "check the spelling, or give the path of a downloaded model"
        ) from None
    return folder


def _weight_files(folder: Path) -> list[Path]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return [folder / shard for shard in _shards(index)]
    raise UserError(f"{folder} has no weights: expected {' or '.join(WEIGHT_FILES)}, or an index of shards")


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is no index of weight files ({error}); restore the model's folder") from None
