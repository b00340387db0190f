"""The policy and reference model, shared-prefix packs, log-probs and the loss."""

from openrlhf.utils.lazy_import import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "Actor": "openrlhf.models.actor",
    },
)
