"""Captions to text states: a built-in encoder that trains with the model, and frozen pretrained ones."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from rdtf.text.builtin import BuiltinTextEncoder
from rdtf.text.encoder import TextEncoder, TextFeatures
from rdtf.text.known import Fit, KnownCaptions
from rdtf.text.pretrained import PretrainedTextEncoder, as_list
from rdtf.words import caption_words, drop_words

__all__ = [
    "BuiltinTextEncoder",
    "Fit",
    "KnownCaptions",
    "PretrainedTextEncoder",
    "TextEncoder",
    "TextFeatures",
    "caption_words",
    "drop_words",
    "load_text_encoder",
]

for _class in (BuiltinTextEncoder, PretrainedTextEncoder):
    _class.__module__ = __name__  # saved pipelines name their classes by module, and this name stays the same


def load_text_encoder(
    spec: str | PathLike[str] | Sequence[str | PathLike[str]],
    width: int,
    max_tokens: int | None = None,
) -> TextEncoder:
    """A fresh text encoder with states of ``width``: "builtin", or one or two folders or hub ids.

    Raises:
        ValueError: an unknown name, a folder without a text encoder, or more than two names.
        ModuleNotFoundError: a pretrained encoder is named and transformers is not installed.
    """
    names = as_list(spec)
    options = {} if max_tokens is None else {"max_tokens": max_tokens}
    if names == ["builtin"]:
        return BuiltinTextEncoder(width=width, **options)
    if "builtin" in names:
        raise ValueError(f"the built-in text encoder cannot be joined with others: {names}")
    return PretrainedTextEncoder.from_encoders(names, width=width, **options)
