"""The built-in text encoder: hashed words, trained together with the network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from rdtf.saved_module import register_to_config
from rdtf.text.encoder import TextEncoder, TextFeatures, pad, starts_of
from rdtf.words import LONGEST_WORD, caption_words, whole_words


def _bucket(feature: str, buckets: int) -> int:
    # Python's hash() of a string differs between processes.
    return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little") % buckets


@lru_cache(maxsize=65536)
def _word_features(word: str, buckets: int) -> tuple[int, ...]:
    """Buckets of the word and of its character n-grams (n = 3, 4, 5), with ``<`` and ``>`` at its ends (fastText)."""
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    return tuple(_bucket(feature, buckets) for feature in dict.fromkeys([marked, *grams]))


class _Layer(nn.Module):
    """Pre-norm transformer layer. Its output projections start at zero, so it starts as the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 2 * width)
        self.mlp_out = nn.Linear(2 * width, width)
        for exit_ in (self.attention_out, self.mlp_out):
            nn.init.zeros_(exit_.weight)
            nn.init.zeros_(exit_.bias)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """States ``x`` (b, l, w), additive ``bias`` (b, 1, 1, l) of the keys."""
        qkv = self.qkv(self.norm_attention(x))
        q, k, v = rearrange(qkv, "b l (three h d) -> three b h l d", three=3, h=self.heads).unbind()
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(dim=-1)
        x = x + self.attention_out(rearrange(weights.to(v.dtype) @ v, "b h l d -> b l (h d)"))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x)), approximate="tanh"))


def _positions(count: int, width: int) -> Tensor:
    """Sines and cosines ``(count, width)`` of positions."""
    table = torch.empty(count, width)
    if table.is_meta:  # there are no numbers, and computing none imports torch's compiler
        return table
    angle = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(1000.0) / width))
    return 0.5 * torch.cat([angle.sin(), angle.cos()], dim=-1)


class BuiltinTextEncoder(TextEncoder):
    """A small encoder that trains with the model and needs no download (ours).

    The vector of a word is the mean of learned vectors of its hashed features, as in fastText (arXiv 1607.04606). The
    features are the whole word and its character n-grams. An unseen word thus gets a vector close to words with the
    same letters. Then follow a learned start token, a position code, pre-norm transformer layers and a LayerNorm.

    Args:
        width: width of the states, a multiple of ``heads``.
        layers: transformer layers.
        heads: attention heads a layer.
        buckets: rows of the feature table.
        table_width: width of its vectors. It is small because the optimiser updates the whole table in every step.
        max_tokens: words of a caption that are read. Later words are cut off.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 192,
        layers: int = 2,
        heads: int = 4,
        buckets: int = 8192,
        table_width: int = 64,
        max_tokens: int = 32,
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"text encoder width {width} must be even and a multiple of its {heads} heads")
        self.width = width
        self.buckets = buckets
        self.max_tokens = max_tokens
        self.table = nn.EmbeddingBag(buckets, table_width, mode="mean")
        nn.init.normal_(self.table.weight, std=table_width**-0.5)
        # The mean of n random vectors has norm ~ 1 / sqrt(n). LayerNorm makes long and short words equal in norm.
        self.norm_word = nn.LayerNorm(table_width)
        self.word_in = nn.Linear(table_width, width)
        nn.init.normal_(self.word_in.weight, std=table_width**-0.5)
        self.start = nn.Parameter(torch.randn(1, width))
        self.position = nn.Parameter(_positions(max_tokens + 1, width))
        self.blocks = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)

    @property
    def fingerprint(self) -> str:
        """See :attr:`TextEncoder.fingerprint`. It holds no weights because :meth:`prepare` uses none."""
        return f"builtin-1-{self.buckets}-{self.max_tokens}"

    def prepare(self, captions: Sequence[str]) -> list[TextFeatures]:
        """Hashed feature ids of all words, and the number of ids of each word. See :class:`TextFeatures`."""
        prepared = []
        for caption in captions:
            words = [_word_features(word, self.buckets) for word in caption_words(caption)[: self.max_tokens]]
            ids = np.array([bucket for word in words for bucket in word], np.int32)
            prepared.append(TextFeatures((ids, np.array([len(word) for word in words], np.int32))))
        return prepared

    def unread(self, caption: str) -> str:
        """The words beyond the window and the ends of long words, see :meth:`TextEncoder.unread`."""
        words = whole_words(caption)
        ends = [word[LONGEST_WORD:] for word in words[: self.max_tokens]]
        return " ".join([*filter(None, ends), *words[self.max_tokens :]])

    def forward(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        """States ``(b, 1 + words, width)``, start token first, and mask. See :meth:`TextEncoder.forward`."""
        # The encoder is so small that autocast makes it slower (15 ms instead of 11 on a CPU).
        with torch.autocast(self.start.device.type, enabled=False):
            return self._encode(features)

    def _encode(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        ids, per_word = (np.concatenate(parts) for parts in zip(*(item.arrays for item in features), strict=True))
        device = self.start.device
        offsets = torch.from_numpy(np.cumsum(per_word) - per_word).to(device)
        bags = self.table(torch.from_numpy(ids).to(device, torch.int64), offsets)
        words = self.word_in(self.norm_word(bags))
        # Row 0 is the start token. Row 1 + n is the n-th word of the batch.
        starts = starts_of([len(item.arrays[1]) for item in features])
        index = [[0, *range(1 + first, 1 + last)] for first, last in pairwise(starts)]
        x, mask = pad(torch.cat([self.start, words]), index)
        x = x + self.position[: x.shape[1]]
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -1e4)[:, None, None]
        for block in self.blocks:
            x = block(x, bias)
        return self.norm_out(x) * mask[..., None], mask
