"""DeepSpeed behind one strategy object."""

from openrlhf.utils.lazy_import import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "DeepspeedStrategy": "openrlhf.utils.deepspeed.strategy",
    },
)
