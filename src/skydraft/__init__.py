"""skydraft: a small model on a device drafts, a large model in a cloud judges.

`AsyncClient`, `Client`, `Cloud` and `pipeline` are imported when they are asked for; __init__.pyi has their types.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "Cloud", "__version__", "pipeline"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("skydraft.client"), name)
