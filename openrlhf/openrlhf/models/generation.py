"""The generation config that travels with a model: transformers refuses to save one that contradicts itself."""

from __future__ import annotations

from transformers import GenerationConfig

from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

# What transformers wants unset without `do_sample`, and without beams.
SAMPLING_FIELDS = (
    *("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("early_stopping", "length_penalty"),
)


def mend_generation_config(config: GenerationConfig, source: str) -> None:
    """Resets sampling fields that keep the config from being saved (a temperature without `do_sample`), with a line.

    The run itself samples through vLLM, with the settings of the command line. `source`: the model, for the log.
    """
    if _can_be_saved(config):
        return
    reset = {}
    for name in SAMPLING_FIELDS:
        value = getattr(config, name, None)
        if value is not None:
            reset[name] = value
            setattr(config, name, None)
    if reset:
        fields = ", ".join(f"{name} {value}" for name, value in reset.items())
        logger.warning(
            "the generation_config.json of %s contradicts itself (do_sample %s with %s): the saved model will have "
            "none of these",
            source,
            config.do_sample,
            fields,
        )


def _can_be_saved(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True
