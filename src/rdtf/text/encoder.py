"""What every text encoder does, and helpers to pad captions of several lengths.

Shapes: ``b`` captions, ``l`` tokens of the longest caption, ``w`` the encoder's output width.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rdtf.saved_module import SavedModule


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """What :meth:`TextEncoder.prepare` returns for one caption: small arrays on the CPU, which callers cache.

    Attributes:
        arrays: built-in encoder: ``(feature ids (n,), features per word (words,))``, both int32. Pretrained encoders:
            the frozen states ``(tokens, width)`` float16 of each encoder, in the order of the sequence.
    """

    arrays: tuple[np.ndarray, ...]


class TextEncoder(SavedModule, abc.ABC):
    """Captions to states ``(b, l, width)`` for the network's cross-attention.

    :meth:`prepare` is frozen: it runs once for each caption, and its result is cached. :meth:`forward` is trainable:
    it runs inside the training step.

    An empty caption has at least one real token, so no attention is ever empty. Guidance uses it as "no text".
    """

    width: int  #: output width, which the network's cross-attention is built for

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Equal fingerprints mean equal results of :meth:`prepare`. Part of the key of every cache."""

    @abc.abstractmethod
    def prepare(self, captions: Sequence[str]) -> list[TextFeatures]:
        """The frozen part, without gradient: one :class:`TextFeatures` for each caption, without padding."""

    @abc.abstractmethod
    def unread(self, caption: str) -> str:
        """The end of a caption that lies beyond the encoder's window; empty if the encoder reads everything."""

    @abc.abstractmethod
    def forward(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        """The trainable part: states ``(b, l, width)``, 0 in padding, and a mask ``(b, l)``, True = real token."""


def pad(states: Tensor, index: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows ``index[i]`` of ``states`` (n, w) as caption ``i``: padded states (b, l, w), and their mask (b, l)."""
    longest = max(map(len, index))
    table = torch.tensor([[*row, *[0] * (longest - len(row))] for row in index], device=states.device)
    lengths = torch.tensor([len(row) for row in index], device=states.device)
    mask = torch.arange(longest, device=states.device) < lengths[:, None]
    return F.embedding(table, states), mask


def starts_of(lengths: Sequence[int]) -> list[int]:
    """First row of each caption where captions of these lengths follow each other, and the number of all rows."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
