"""Pretrained text encoders of the transformers library. They are frozen; only projections are trained."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rdtf import hub
from rdtf.saved_module import register_to_config
from rdtf.text.encoder import TextEncoder, TextFeatures, pad, starts_of

# Classes of the text half of models with several halves. All other models load by AutoModel.
_TOWERS = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "chinese_clip_text_model": "ChineseCLIPTextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
_T5 = ("t5", "mt5", "umt5")
_TOKENIZERS = ("tokenizer.json", "vocab*", "*.model", "*.bpe")
"""Files that a tokenizer is made of; without any, transformers makes one that knows no word."""


@dataclass
class _Frozen:
    """A frozen model with its tokenizer. It is not trained, not averaged, and not in the state dict.

    Attributes:
        kind: transformers' ``model_type``.
    """

    model: Any
    tokenizer: Any
    kind: str

    def __deepcopy__(self, memo: dict[int, Any]) -> _Frozen:
        # A copy for weight averaging shares the model.
        return self

    @property
    def is_t5(self) -> bool:
        return self.kind in _T5

    def tokens(self, caption: str, **options: Any) -> list[int]:
        """The numbers of a caption's tokens."""
        try:
            return self.tokenizer(caption, verbose=False, **options)["input_ids"]
        except BaseException as error:  # a panic of the tokenizer's native code is no Exception
            if isinstance(error, Exception) or type(error).__name__ != "PanicException":
                raise
            folder = self.tokenizer.name_or_path
            raise ValueError(f"the tokenizer in {folder} fails ({error}); take another encoder") from error

    def states(self, captions: Sequence[str], window: int, chunk: int = 32) -> list[np.ndarray]:
        """Last hidden states of each caption, ``(tokens, width)`` float16."""
        ids = [self.tokens(caption, truncation=True, max_length=window) for caption in captions]
        # A tokenizer without special tokens gives no token for an empty caption.
        filler = next((i for i in (self.tokenizer.eos_token_id, self.tokenizer.pad_token_id) if i is not None), 0)
        by_length: dict[int, list[int]] = defaultdict(list)
        for position, row in enumerate(ids):
            by_length[len(row)].append(position)
        out: list[np.ndarray] = [np.empty(0)] * len(ids)
        # A batch holds captions of one length. There is no padding, so states do not depend on the batch.
        for positions in by_length.values():
            for first in range(0, len(positions), chunk):
                some = positions[first : first + chunk]
                batch = torch.tensor([ids[position] or [filler] for position in some], device=self.model.device)
                try:
                    hidden = self.model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
                except IndexError as error:
                    raise ValueError(
                        f"text encoder {self.kind}: it lacks a token or place that its tokenizer gives ({error}); "
                        "take another encoder"
                    ) from error
                for position, rows in zip(some, hidden.to(torch.float16).cpu().numpy(), strict=True):
                    if not np.isfinite(rows).all():
                        raise ValueError(
                            f"text encoder {self.kind}: states of {captions[position]!r} are not finite in float16; "
                            "use another encoder"
                        )
                    out[position] = rows.copy()
        return out


def _load_frozen(name: str) -> _Frozen:
    """The encoder in eval mode and float32."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pretrained text encoders need the package transformers: pip install 'rdtf[pretrained]'"
        ) from error
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        folder = hub.fetch(name)
        hub.check_transformers(folder, _TOWERS)
        config = transformers.AutoConfig.from_pretrained(folder, **safe)
        kind = config.model_type
        if kind == "chinese_clip":
            # The text half alone looks for weights under other names than the saved model has.
            loader: Any = transformers.ChineseCLIPModel
        else:
            loader = getattr(transformers, _TOWERS.get(kind, "AutoModel"))
        transformers.utils.logging.disable_progress_bar()
        model, report = loader.from_pretrained(folder, output_loading_info=True, use_safetensors=True, **safe)
        if not any(path for pattern in _TOKENIZERS for path in folder.glob(pattern)):
            raise ValueError(f"{folder} has no tokenizer")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **safe)
        if not (isinstance(tokenizer.model_max_length, (int, float)) and tokenizer.model_max_length >= 1):
            raise ValueError(f"{folder}: model_max_length of the tokenizer is no length")
    except Exception as error:  # transformers raises anything for files that make no sense
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"text encoder {name!r} is not 'builtin', no folder with a transformers model and its tokenizer, "
            f"and no model that could be fetched from the hub: {reason}"
        ) from error
    # Pooling heads are not used, and many files have none.
    missing = [key for key in report["missing_keys"] if "pool" not in key]
    if missing:
        raise ValueError(f"text encoder {name!r} lacks {len(missing)} weights, the first is {missing[0]}")
    if kind == "chinese_clip":
        model = model.text_model
        kind = "chinese_clip_text_model"
    if model.config.is_encoder_decoder and kind not in _TOWERS:
        raise ValueError(f"text encoder {name!r}: model type {kind!r} has a decoder; CLIP, T5 or BERT-like is needed")
    hub.check_finite(model, folder)
    return _Frozen(model.float().eval().requires_grad_(False), tokenizer, kind)


class PretrainedTextEncoder(TextEncoder):
    """One or two frozen transformers encoders with trainable projections (paper section 3: CLIP text and T5).

    The sequence is the tokens of T5 and then the tokens of the other encoder, as in the authors' release. Padding is
    left out (ours; the release attends to it). The main encoder is the first that is no T5, or a single T5. Its states
    are not projected if their width is the output width. All other states go through an MLP with SiLU:
    width -> 2 * out -> out. Each encoder adds a learned offset to its states, which starts at zero (ours).

    Make one with :meth:`from_encoders` or :meth:`from_pretrained`. Only projections and offsets are parameters. The
    frozen encoders are neither in ``parameters()`` nor in ``state_dict()``. They follow ``.to(device)`` and stay in
    float32.

    Args:
        model_types: transformers' ``model_type`` of each encoder, in the order of the sequence.
        encoder_widths: width of each encoder's states.
        width: output width.
        max_tokens: tokens of a caption that each encoder reads, with special tokens. Later tokens are cut off.
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
        self._frozen: list[_Frozen] = []

    @classmethod
    def from_encoders(
        cls,
        names_or_folders: str | PathLike[str] | Sequence[str | PathLike[str]],
        width: int | None = None,
        max_tokens: int = 77,
    ) -> PretrainedTextEncoder:
        """One or two encoders by folder or hub id. ``width`` defaults to the width of the main encoder.

        Raises:
            ValueError: more than two names, no such folder or hub id, or a model that is no text encoder.
            ModuleNotFoundError: transformers is not installed.
        """
        names = as_list(names_or_folders)
        if not 1 <= len(names) <= 2:
            raise ValueError(f"one or two pretrained text encoders can be used at a time, not {len(names)}: {names}")
        loaded = sorted(map(_load_frozen, names), key=lambda each: not each.is_t5)
        kinds, widths = [each.kind for each in loaded], [each.model.config.hidden_size for each in loaded]
        self = cls(kinds, widths, width or widths[_main_encoder(kinds)], max_tokens)
        self._frozen = loaded
        return self

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str]) -> PretrainedTextEncoder:
        """See :meth:`rdtf.saved_module.SavedModule.from_pretrained`. The frozen encoders are loaded too."""
        self = super().from_pretrained(folder)
        self._frozen = [_load_frozen(str(Path(folder) / f"encoder_{i}")) for i in range(len(self.projections))]
        return self.to(self.offsets.device)

    def save_pretrained(self, save_directory: str | PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Write the projections, and each frozen encoder with its tokenizer into ``encoder_0``, ``encoder_1``."""
        super().save_pretrained(save_directory, dtype)
        for index, each in enumerate(self._encoders()):
            folder = Path(save_directory) / f"encoder_{index}"
            (each.model if dtype is None else copy.deepcopy(each.model).to(dtype)).save_pretrained(folder)
            each.tokenizer.save_pretrained(folder)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> PretrainedTextEncoder:
        super()._apply(fn, recurse)
        # The encoders follow the device and stay in float32: T5 overflows in float16, and caches keep float32 results.
        for each in self._frozen:
            each.model.to(self.offsets.device)
        return self

    def _encoders(self) -> list[_Frozen]:
        if not self._frozen:
            raise ValueError("this text encoder has no frozen encoders: use from_encoders() or from_pretrained()")
        return self._frozen

    @cached_property
    def fingerprint(self) -> str:
        """See :attr:`TextEncoder.fingerprint`. A hash of the vocabularies and of values of each tensor."""
        digest = hashlib.blake2b(f"pretrained-1-{self.max_tokens}".encode(), digest_size=16)
        for each in self._encoders():
            digest.update(json.dumps(sorted(each.tokenizer.get_vocab().items())).encode())
            for name, tensor in sorted(each.model.state_dict().items()):
                if "pool" in name:
                    continue  # not used, and random where a file has none
                flat = tensor.detach().flatten()
                values = flat[:: max(1, flat.numel() // 1024)].cpu().contiguous().numpy()
                digest.update(f"{name}{tuple(tensor.shape)}".encode() + values.tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def prepare(self, captions: Sequence[str]) -> list[TextFeatures]:
        """Last hidden states of each frozen encoder, with special tokens. See :class:`TextFeatures`."""
        states = [each.states(captions, self._window(each)) for each in self._encoders()]
        return [TextFeatures(arrays) for arrays in zip(*states, strict=True)]

    def unread(self, caption: str) -> str:
        """The whole caption if an encoder cuts it, for parts of words are no words; see :meth:`TextEncoder.unread`."""
        cut = any(len(each.tokens(caption)) > self._window(each) for each in self._frozen)
        return caption if cut else ""

    def _window(self, frozen: _Frozen) -> int:
        return min(self.max_tokens, frozen.tokenizer.model_max_length)

    def forward(self, features: Sequence[TextFeatures]) -> tuple[Tensor, Tensor]:
        """States ``(b, tokens of all encoders, width)`` and their mask. See :meth:`TextEncoder.forward`."""
        projected = []
        rows: list[list[int]] = [[] for _ in features]
        base = 0
        for source, projection in enumerate(self.projections):
            arrays = [item.arrays[source] for item in features]
            flat = torch.from_numpy(np.concatenate(arrays)).to(self.offsets)
            projected.append(projection(flat) + self.offsets[source])
            starts = starts_of([len(array) for array in arrays])
            for row, first, last in zip(rows, starts, starts[1:], strict=False):
                row.extend(range(base + first, base + last))
            base += starts[-1]
        states, mask = pad(torch.cat(projected), rows)
        return states * mask[..., None], mask


def as_list(names: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[str]:
    """One name or several, as texts."""
    return [str(name) for name in ([names] if isinstance(names, (str, PathLike)) else names)]


def _main_encoder(kinds: Sequence[str]) -> int:
    """Index of the main encoder: the first that is no T5, else the first."""
    return next((index for index, kind in enumerate(kinds) if kind not in _T5), 0)
