"""Captions to text states: one contract, a built-in encoder that trains along, and frozen pretrained ones.

The frozen half, :meth:`TextEncoder.prepare`, runs once a caption and its result is kept in a cache; the
trainable half, :meth:`TextEncoder.forward`, runs inside the training step.

Shapes: ``b`` captions, ``l`` tokens of the longest of them, ``w`` the encoder's output width.
"""

from __future__ import annotations

import abc
import hashlib
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

from rdtf import hub

# ----------------------------------------------------------------------------------------- words of a caption

_CJK = re.compile("[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_REGIONAL = range(0x1F1E6, 0x1F200)
# One unit of a caption, found in the string of its characters' kinds (see _kind): a CJK character, a word
# that may hold apostrophes and hyphens, or an emoji with its modifiers, joined parts or second flag letter.
_UNIT = re.compile("cm*|w[wmz]*(?:jw[wmz]*)*|(?:rr|r|s)m*(?:zsm*)*")
_BRACKETS = ("()", "[]", "{}", "（）", "【】", "「」", "『』", "“”", "‘’", "«»", "《》")
_LONGEST_WORD = 32


def _kind(char: str) -> str:
    """``w``ord, ``c``: CJK, ``s``ymbol, ``r``: flag letter, ``m``ark, ``z``: joiner, ``j``: hyphen, space."""
    code, category = ord(char), unicodedata.category(char)
    if char in "'’-":
        return "j"
    if code == 0x200D:
        return "z"
    if code in _SKIN_TONES or category[0] == "M" or category == "Cf":
        return "m"
    if code in _REGIONAL:
        return "r"
    if _CJK.match(char):
        return "c"
    if category[0] in "LN":
        return "w"
    # Arrows and squares beyond ASCII are emoji too, though Unicode counts them as mathematics.
    return "s" if category == "So" or (category == "Sm" and code >= 0x2000) else " "


def _spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every unit of ``text``; what lies between two units is space and punctuation."""
    return [match.span() for match in _UNIT.finditer("".join(map(_kind, text)))]


def caption_words(caption: str) -> list[str]:
    """Tokens of a caption: lower-cased words and numbers, single CJK characters, single emoji code points.

    NFKC-normalised; hyphens part words, apostrophes vanish, punctuation and emoji style marks are left out.
    """
    text = unicodedata.normalize("NFKC", caption).lower()
    words: list[str] = []
    for start, end in _spans(text):
        unit = text[start:end]
        if _kind(unit[0]) in "sr":
            # The parts of a joined emoji are tokens of their own: a shared part is then a shared meaning.
            words.extend(char for char in unit if _kind(char) in "sr" or ord(char) in _SKIN_TONES)
        else:
            parts = re.sub("['’\u200d\u20e3\ufe00-\ufe0f]", "", unit).split("-")
            words.extend(part[:_LONGEST_WORD] for part in parts if part)
    return words


def drop_words(caption: str, rng: np.random.Generator, probability: float = 0.2) -> str:
    """Leave out each word with ``probability`` (paper, 0.2), and the punctuation that belonged to it.

    Words are whole words, single CJK characters and whole emoji. The text between two kept neighbours stays
    as it is; a bracket that lost its partner goes too. Returns "" when every word was dropped.

    Raises:
        ValueError: when ``probability`` is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"word drop probability must lie in [0, 1], not {probability}")
    spans = _spans(caption)
    kept = np.flatnonzero(rng.random(len(spans)) >= probability).tolist()
    if len(kept) == len(spans):
        return caption
    if not kept:
        return ""
    pieces = [caption[: spans[0][0]] if kept[0] == 0 else ""]
    for previous, index in zip([-1, *kept[:-1]], kept, strict=True):
        start, end = spans[index]
        if previous >= 0:
            between = caption[spans[previous][1] : start]
            if previous + 1 != index:
                between = " " if any(char.isspace() for char in between) else ""
            pieces.append(between)
        pieces.append(caption[start:end])
    pieces.append(caption[spans[-1][1] :] if kept[-1] == len(spans) - 1 else "")
    text = "".join(pieces)
    for opening, closing in map(tuple, _BRACKETS):
        if text.count(opening) != text.count(closing):
            # ’ is far more often an apostrophe than a closing quotation mark.
            text = text.replace(opening, "").replace("" if closing == "’" else closing, "")
    if text.count('"') % 2:
        text = text.replace('"', "")
    return text.strip()


# ----------------------------------------------------------------------------------------------- the contract


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """What :meth:`TextEncoder.prepare` keeps of one caption: CPU arrays, to be cached by the thousand.

    ``arrays``: for the built-in encoder ``(feature ids (n,), features per word (words,))``, both int32; for
    the pretrained one the frozen states ``(tokens, width)`` float16 of each encoder, in sequence order.
    """

    arrays: tuple[np.ndarray, ...]


class TextEncoder(ModelMixin, ConfigMixin, abc.ABC):
    """Captions to states ``(b, l, width)`` for the network's cross-attention.

    Saves and loads alone and as a part of a diffusers pipeline.

    An empty caption is a caption like others: it has at least one real token, so that no attention is ever
    empty, and it is what "no text" means for guidance.
    """

    config_name = "config.json"
    width: int  #: output width, which the network's cross-attention is built for

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Equal fingerprints mean equal :meth:`prepare`; part of the key of every cache."""

    @abc.abstractmethod
    def prepare(self, captions: Sequence[str]) -> list[TextFeatures]:
        """The frozen part, without gradient: one cacheable :class:`TextFeatures` a caption, padding-free."""

    @abc.abstractmethod
    def forward(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        """The trainable part: states ``(b, l, width)``, 0 in padding; mask ``(b, l)``, True = real."""


def _pad(states: Tensor, index: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows ``index[i]`` of flat ``states`` (n, w), padded to (b, l, w), and their mask (b, l)."""
    longest = max(map(len, index))
    table = torch.tensor([[*row, *[0] * (longest - len(row))] for row in index], device=states.device)
    lengths = torch.tensor([len(row) for row in index], device=states.device)
    mask = torch.arange(longest, device=states.device) < lengths[:, None]
    return F.embedding(table, states), mask


def _starts(lengths: Sequence[int]) -> list[int]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()


# ------------------------------------------------------------------------------------------- built-in encoder


def _bucket(feature: str, buckets: int) -> int:
    # Python's own hash() differs from process to process.
    return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little") % buckets


@lru_cache(maxsize=65536)
def _word_features(word: str, buckets: int) -> tuple[int, ...]:
    """Buckets of the whole word and of its character n-grams, 3 to 5, with marks at its ends (fastText)."""
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    return tuple(_bucket(feature, buckets) for feature in dict.fromkeys([marked, *grams]))


class _Layer(nn.Module):
    """Pre-norm transformer layer whose exits are zero at first, so that it starts as the identity."""

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


class BuiltinTextEncoder(TextEncoder):
    """A small encoder that trains with the model and needs no download (ours).

    Every word is the mean of learned vectors of its hashed features: the whole word and its character
    n-grams, as in fastText (arXiv 1607.04606). A word never seen before therefore has a meaning, close to
    that of the words that share its letters. A learned start token, a position code, pre-norm transformer
    layers and a norm follow.

    Args:
        width: width of the states, a multiple of ``heads``.
        layers: transformer layers.
        heads: attention heads a layer.
        buckets: rows of the feature table.
        table_width: width of its vectors; narrow, for the optimiser walks the whole table at every step.
        max_tokens: words of a caption that are read; the rest is cut off.
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
        # The mean of many features is quieter than that of few: the norm makes all words equally loud.
        self.norm_word = nn.LayerNorm(table_width)
        self.word_in = nn.Linear(table_width, width)
        nn.init.normal_(self.word_in.weight, std=table_width**-0.5)
        self.start = nn.Parameter(torch.randn(1, width))
        angle = torch.arange(max_tokens + 1)[:, None] * torch.exp(
            torch.arange(0, width, 2) * (-math.log(1000.0) / width)
        )
        self.position = nn.Parameter(0.5 * torch.cat([angle.sin(), angle.cos()], dim=-1))
        self.blocks = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm_out = nn.LayerNorm(width)

    @property
    def fingerprint(self) -> str:
        """See :attr:`TextEncoder.fingerprint`; no weights in it, for :meth:`prepare` uses none."""
        return f"builtin-1-{self.buckets}-{self.max_tokens}"

    def prepare(self, captions: Sequence[str]) -> list[TextFeatures]:
        """Hashed feature ids of every word, and how many each word has; see :class:`TextFeatures`."""
        prepared = []
        for caption in captions:
            words = [_word_features(word, self.buckets) for word in caption_words(caption)[: self.max_tokens]]
            ids = np.array([bucket for word in words for bucket in word], np.int32)
            prepared.append(TextFeatures((ids, np.array([len(word) for word in words], np.int32))))
        return prepared

    def forward(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        """States ``(b, 1 + words, width)``, start token first, and mask; see :meth:`TextEncoder.forward`."""
        # At this size autocast's conversions cost more than its products save (11 ms against 15 on a CPU).
        with torch.autocast(self.start.device.type, enabled=False):
            return self._encode(features)

    def _encode(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        ids, per_word = (np.concatenate(parts) for parts in zip(*(item.arrays for item in features), strict=True))
        device = self.start.device
        offsets = torch.from_numpy(np.cumsum(per_word) - per_word).to(device)
        bags = self.table(torch.from_numpy(ids).to(device, torch.int64), offsets)
        words = self.word_in(self.norm_word(bags))
        # Row 0 is the start token, row 1 + n the n-th word of the batch.
        starts = _starts([len(item.arrays[1]) for item in features])
        index = [[0, *range(1 + first, 1 + last)] for first, last in pairwise(starts)]
        x, mask = _pad(torch.cat([self.start, words]), index)
        x = x + self.position[: x.shape[1]]
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, -1e4)[:, None, None]
        for block in self.blocks:
            x = block(x, bias)
        return self.norm_out(x) * mask[..., None], mask


# ---------------------------------------------------------------------------------------- pretrained encoders

# Classes that hold the text half of models that have more than one; all others load by AutoModel.
_TOWERS = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "chinese_clip_text_model": "ChineseCLIPTextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pretrained text encoders need the package transformers: pip install 'rdtf[pretrained]'"
        ) from error
    return transformers


@dataclass
class _Frozen:
    """Encoders and tokenizers that are neither trained, nor averaged, nor part of the state dict."""

    encoders: list[Any]
    tokenizers: list[Any]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Frozen:
        # A copy for weight averaging has no need for a second T5.
        return self


def _load_frozen(name: str, local_files_only: bool) -> tuple[Any, Any, str]:
    """Encoder in eval mode and float32, tokenizer, and the model type of a folder or hub id."""
    transformers = _transformers()
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        folder = hub.fetch(name, local_files_only)
        hub.check_transformers(folder, _TOWERS)
        config = transformers.AutoConfig.from_pretrained(folder, **safe)
        kind = config.model_type
        if kind == "chinese_clip":
            # Its text half alone would look for weights under other names than the whole model has.
            loader: Any = transformers.ChineseCLIPModel
        else:
            loader = getattr(transformers, _TOWERS.get(kind, "AutoModel"))
        model, report = loader.from_pretrained(folder, output_loading_info=True, use_safetensors=True, **safe)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **safe)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"text encoder {name!r} is not 'builtin', no folder with a transformers model and its tokenizer, "
            f"and no model that could be fetched from the hub: {error}"
        ) from error
    # Pooling heads are not used here, and many files come without.
    missing = [key for key in report["missing_keys"] if "pool" not in key]
    if missing:
        raise ValueError(f"text encoder {name!r} lacks {len(missing)} weights, the first is {missing[0]}")
    if kind == "chinese_clip":
        model = model.text_model
        kind = "chinese_clip_text_model"
    if model.config.is_encoder_decoder and kind not in _TOWERS:
        raise ValueError(f"text encoder {name!r}: model type {kind!r} has a decoder; CLIP, T5 or BERT-like is needed")
    hub.check_finite(model, folder)
    return model.float().eval().requires_grad_(False), tokenizer, kind


class PretrainedTextEncoder(TextEncoder):
    """One or two frozen transformers encoders with trainable projections (paper section 3: CLIP text and T5).

    The tokens of both stand one after the other, T5 first as in the authors' release; padding is left out
    (ours: the release attends to it). The states of the first encoder that is no T5 (or of a lone T5) pass as
    they are where their width fits; all others go through an MLP, width -> 2 out -> out with SiLU. A learned
    offset an encoder, zero at first, tells the network which of the two speaks (ours).

    Make one with :meth:`from_encoders` or :meth:`from_pretrained`. Only projections and offsets are
    parameters: the frozen encoders are not in ``parameters()`` nor in ``state_dict()``, follow
    ``.to(device)``, and stay in float32.

    Args:
        model_types: transformers' ``model_type`` of each encoder, in the order of the sequence.
        encoder_widths: width of each encoder's states.
        width: output width.
        max_tokens: tokens of a caption, special ones included, that each encoder reads; the rest is cut off.
    """

    @register_to_config
    def __init__(
        self, model_types: Sequence[str], encoder_widths: Sequence[int], width: int, max_tokens: int = 77
    ) -> None:
        super().__init__()
        self.width = width
        self.max_tokens = max_tokens
        main = _main_encoder(model_types)
        self.projections = nn.ModuleList(
            nn.Identity()
            if index == main and inner == width
            else nn.Sequential(nn.Linear(inner, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for index, inner in enumerate(encoder_widths)
        )
        self.offsets = nn.Parameter(torch.zeros(len(encoder_widths), width))
        self._frozen = _Frozen([], [])

    @classmethod
    def from_encoders(
        cls,
        names_or_folders: str | PathLike[str] | Sequence[str | PathLike[str]],
        width: int | None = None,
        max_tokens: int = 77,
        local_files_only: bool = False,
    ) -> PretrainedTextEncoder:
        """One or two encoders by folder or hub id; ``width`` defaults to that of the first that is no T5.

        Raises:
            ValueError: more than two names, no such folder or hub id, or a model that is no text encoder.
            ModuleNotFoundError: transformers is not installed.
        """
        names = _as_list(names_or_folders)
        if not 1 <= len(names) <= 2:
            raise ValueError(f"one or two pretrained text encoders can be used at a time, not {len(names)}: {names}")
        loaded = [_load_frozen(name, local_files_only) for name in names]
        loaded.sort(key=lambda item: not _is_t5(item[2]))
        kinds = [kind for _, _, kind in loaded]
        widths = [encoder.config.hidden_size for encoder, _, _ in loaded]
        self = cls(kinds, widths, width or widths[_main_encoder(kinds)], max_tokens)
        self._frozen = _Frozen([item[0] for item in loaded], [item[1] for item in loaded])
        return self

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> PretrainedTextEncoder:
        """Load a folder that :meth:`save_pretrained` wrote; nothing is fetched. Options as in diffusers."""
        self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        folder = Path(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        names = [str(folder / f"encoder_{index}") for index in range(len(self.projections))]
        loaded = [_load_frozen(name, local_files_only=True) for name in names]
        encoders = [encoder.to(self.offsets.device) for encoder, _, _ in loaded]
        self._frozen = _Frozen(encoders, [tokenizer for _, tokenizer, _ in loaded])
        return self

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> None:
        """Write projections, and each frozen encoder with its tokenizer into ``encoder_0``, ``encoder_1``."""
        super().save_pretrained(save_directory, **kwargs)
        for index, encoder in enumerate(self._encoders()):
            folder = Path(save_directory) / f"encoder_{index}"
            encoder.save_pretrained(folder)
            self._frozen.tokenizers[index].save_pretrained(folder)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> PretrainedTextEncoder:
        super()._apply(fn, recurse)
        # Devices are followed, precisions are not: T5 overflows in float16, and caches must not depend on it.
        for encoder in self._frozen.encoders:
            encoder.to(self.offsets.device)
        return self

    def _encoders(self) -> list[Any]:
        if not self._frozen.encoders:
            raise ValueError("this text encoder has no frozen encoders: use from_encoders() or from_pretrained()")
        return self._frozen.encoders

    @cached_property
    def fingerprint(self) -> str:
        """See :attr:`TextEncoder.fingerprint`: a hash of vocabularies and of each tensor's values."""
        digest = hashlib.blake2b(f"pretrained-1-{self.max_tokens}".encode(), digest_size=16)
        for encoder, tokenizer in zip(self._encoders(), self._frozen.tokenizers, strict=True):
            digest.update(json.dumps(sorted(tokenizer.get_vocab().items())).encode())
            for name, tensor in sorted(encoder.state_dict().items()):
                if "pool" in name:
                    continue  # not used, and drawn at random where a file has none
                flat = tensor.detach().flatten()
                values = flat[:: max(1, flat.numel() // 1024)].cpu().contiguous().numpy()
                digest.update(f"{name}{tuple(tensor.shape)}".encode() + values.tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def prepare(self, captions: Sequence[str]) -> list[TextFeatures]:
        """Last hidden states of every frozen encoder, special tokens included; see :class:`TextFeatures`."""
        states = [
            self._states(encoder, tokenizer, captions)
            for encoder, tokenizer in zip(self._encoders(), self._frozen.tokenizers, strict=True)
        ]
        return [TextFeatures(arrays) for arrays in zip(*states, strict=True)]

    def _states(self, encoder: Any, tokenizer: Any, captions: Sequence[str], chunk: int = 32) -> list[np.ndarray]:
        limit = min(self.max_tokens, tokenizer.model_max_length)
        ids = [tokenizer(caption, truncation=True, max_length=limit)["input_ids"] for caption in captions]
        # A tokenizer without special tokens has none for an empty caption either.
        filler = next((i for i in (tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None), 0)
        by_length: dict[int, list[int]] = defaultdict(list)
        for position, row in enumerate(ids):
            by_length[len(row)].append(position)
        out: list[np.ndarray] = [np.empty(0)] * len(ids)
        # Captions of one length need no padding, so a caption's states do not depend on its company.
        for positions in by_length.values():
            for first in range(0, len(positions), chunk):
                some = positions[first : first + chunk]
                batch = torch.tensor([ids[position] or [filler] for position in some], device=encoder.device)
                hidden = encoder(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
                for position, rows in zip(some, hidden.to(torch.float16).cpu().numpy(), strict=True):
                    if not np.isfinite(rows).all():
                        raise ValueError(
                            f"text encoder {encoder.config.model_type}: states of {captions[position]!r} are "
                            "not finite in float16; use another encoder"
                        )
                    out[position] = rows.copy()
        return out

    def forward(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        """States ``(b, tokens of all encoders, width)`` and their mask; see :meth:`TextEncoder.forward`."""
        projected = []
        rows: list[list[int]] = [[] for _ in features]
        base = 0
        for source, projection in enumerate(self.projections):
            arrays = [item.arrays[source] for item in features]
            flat = torch.from_numpy(np.concatenate(arrays)).to(self.offsets)
            projected.append(projection(flat) + self.offsets[source])
            starts = _starts([len(array) for array in arrays])
            for row, first, last in zip(rows, starts, starts[1:], strict=False):
                row.extend(range(base + first, base + last))
            base += starts[-1]
        states, mask = _pad(torch.cat(projected), rows)
        return states * mask[..., None], mask


def _as_list(names: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[str]:
    return [str(name) for name in ([names] if isinstance(names, (str, PathLike)) else names)]


def _is_t5(model_type: str) -> bool:
    return model_type in ("t5", "mt5", "umt5")


def _main_encoder(model_types: Sequence[str]) -> int:
    """Index of the encoder whose states may pass as they are: the first that is no T5, else the first."""
    return next((index for index, kind in enumerate(model_types) if not _is_t5(kind)), 0)


def load_text_encoder(
    spec: str | PathLike[str] | Sequence[str | PathLike[str]],
    width: int,
    max_tokens: int | None = None,
    local_files_only: bool = False,
) -> TextEncoder:
    """A fresh text encoder with states of ``width``: "builtin", or one or two folders or hub ids.

    Raises:
        ValueError: an unknown name, a folder without a text encoder, or more than two.
        ModuleNotFoundError: a pretrained encoder is asked for and transformers is not installed.
    """
    names = _as_list(spec)
    options = {} if max_tokens is None else {"max_tokens": max_tokens}
    if names == ["builtin"]:
        return BuiltinTextEncoder(width=width, **options)
    if "builtin" in names:
        raise ValueError(f"the built-in text encoder cannot be joined with others: {names}")
    return PretrainedTextEncoder.from_encoders(names, width=width, local_files_only=local_files_only, **options)
