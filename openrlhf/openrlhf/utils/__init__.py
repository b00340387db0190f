"""What every layer above uses: files, logging, devices, the tokenizer, DeepSpeed."""

from openrlhf.utils.lazy_import import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "get_strategy": "openrlhf.utils.deepspeed.strategy",
        "get_tokenizer": "openrlhf.utils.tokenizer",
    },
)
