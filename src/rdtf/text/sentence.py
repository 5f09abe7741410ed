"""Sentence vectors: how near two captions are in meaning."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

PACKAGE = "wordllama"
_INSTALL = "pip install 'rdtf[words]'"


class SentenceEncoder:
    """The mean of static word vectors (256 numbers a word piece), from the files of the package wordllama.

    Only the package's files are used. Its own loader asks the Hugging Face Hub for files that it already has.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: the installed version has no such files.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(f"nearest captions need the package {PACKAGE}: {_INSTALL}")
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = Path(found.submodule_search_locations[0])
        tokenizers, weights = (
            sorted((folder / name).glob(ending))
            for name, ending in (("tokenizers", "*_tokenizer_config.json"), ("weights", "*_256.safetensors"))
        )
        if not tokenizers or not weights:
            raise ValueError(f"the installed {PACKAGE} holds no word vectors; {_INSTALL} --force-reinstall")
        self._tokenizer = Tokenizer.from_file(str(tokenizers[0]))
        [self._vectors] = load_file(weights[0]).values()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors ``(n, 256)`` float32 of length 1. A text without words has a vector of zeros."""
        sums = np.zeros((len(texts), self._vectors.shape[1]), np.float32)
        for row, text in zip(sums, texts, strict=True):
            ids = self._tokenizer.encode(text.lower(), add_special_tokens=False).ids
            row += self._vectors[ids].astype(np.float32).sum(0)
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)


@lru_cache(maxsize=1)
def sentence_encoder() -> SentenceEncoder:
    """The encoder. It is loaded once, which takes half a second."""
    return SentenceEncoder()
