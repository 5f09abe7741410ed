"""RDTF: train your own animated-sticker generator from scratch, on modest hardware, and use it.

Importing this package does no work; its public names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "DFGN": "rdtf.model.dfgn",
    "StickerPipeline": "rdtf.pipeline",
    "load_pipeline": "rdtf.loading",
    "StickerAutoencoder": "rdtf.codec",
    "PixelCodec": "rdtf.codec",
    "DiffusersCodec": "rdtf.codec",
    "BuiltinTextEncoder": "rdtf.text",
    "PretrainedTextEncoder": "rdtf.text",
    "read_sticker": "rdtf.io.wall",
    "save_sticker": "rdtf.io.write",
    "Sticker": "rdtf.sticker",
    "StickerError": "rdtf.sticker",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
