"""Latents of a whole data set, computed once and kept beside it."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdtf.codec import Codec
from rdtf.data.augment import FIRST_AUGMENTED, Augmentation, variant_frames
from rdtf.data.dataset import StickerDataset, StickerRecord
from rdtf.data.moved_stills import is_moved
from rdtf.faults import reach
from rdtf.pixels import to_tensor
from rdtf.progress import bars, console

_FRAMES_AT_ONCE = 64
_RECORDS_KEPT = 256  # a step reads each of its records several times
_TOLERANCE = 0.02  # between latents of one frame; half precision, processors and threads make small differences


def cache_folder(data: Path, run: Path) -> Path:
    """The folder for latents: beside the data, so that runs share them, or in the run if the data is read-only."""
    folder = data / "cache"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return run / "cache"
    return folder


def pixels_version() -> str:
    """First 12 hexadecimal digits of SHA-256 over a fixed probe after augmentation and :mod:`rdtf.pixels`.

    Any change of these pixels, in our code or in Pillow, changes the digits. So no version number is kept by hand.
    """
    digest = hashlib.sha256()
    probe = np.random.default_rng(0).integers(0, 256, (1, 24, 24, 4), np.uint8)
    for sticker in range(8):
        augmentation = Augmentation.draw(str(sticker), FIRST_AUGMENTED + sticker % 2, mirror=True)
        digest.update(repr(augmentation).encode())
        digest.update(to_tensor(augmentation.apply(probe)).numpy().tobytes())
    return digest.hexdigest()[:12]


class LatentCache:
    """Memory-mapped fp16 latents of every frame of every variant of a sticker.

    The variants are the sticker, its mirror image and ``num_augmented`` augmented variants (:mod:`rdtf.data.augment`).
    The file's name holds the fingerprints of codec, data and pixels (:func:`pixels_version`). Opening the file checks
    the code of the codec too: it must make the same latents of the first frame. A checksum of every variant of every
    sticker follows the latents, and is compared when the variant is first read.

    Attributes:
        record: function from a sticker's number to its record. num_frames: number of frames of each sticker.
        moved: bool, whether each sticker is a moved still (:mod:`rdtf.data.moved_stills`).
    """

    def __init__(self, dataset: StickerDataset, codec: Codec, folder: Path, num_augmented: int = 0) -> None:
        self.num_augmented = num_augmented
        self.record = lru_cache(maxsize=_RECORDS_KEPT)(dataset.record)
        self.num_frames = np.asarray(dataset.column("num_frames"), np.int64)
        self.moved = np.array([is_moved(json.loads(text)) for text in dataset.column("attributes")], bool)
        rows_each = self.num_frames * (FIRST_AUGMENTED + num_augmented)
        rows, self._starts = int(rows_each.sum()), np.cumsum(rows_each) - rows_each
        side = dataset.size // codec.downscale
        shape = (rows, codec.latent_channels, side, side)
        made_of = f"{codec.fingerprint}-{dataset.fingerprint}-{dataset.split or 'all'}-{num_augmented}"
        path = folder / f"latents-{made_of}-{pixels_version()}.npy"
        if not (self._open(path, shape) and self._matches(dataset, codec)):
            self._fill(path, shape, dataset, codec)
            if not self._open(path, shape):
                raise ValueError(f"{path} was written and cannot be read; is the disk sound?")

    def __len__(self) -> int:
        return len(self.num_frames)

    def _open(self, path: Path, shape: tuple[int, ...]) -> bool:
        """Open an existing file if its shape is right."""
        try:
            self._latents = np.load(path, mmap_mode="r")
            with path.open("rb") as file:
                file.seek(self._latents.offset + self._latents.nbytes)
                self._sums = np.load(file)
            if self._latents.shape != shape or self._sums.shape != (len(self), FIRST_AUGMENTED + self.num_augmented):
                raise ValueError(f"its shape is {self._latents.shape}, not {shape}")
        except FileNotFoundError:
            return False
        except (OSError, ValueError, EOFError) as error:
            console.print(f"{path} is not whole ({error}); it is computed again")
            return False
        self._path, self._compared = path, np.zeros(self._sums.shape, bool)
        return True

    def _matches(self, dataset: StickerDataset, codec: Codec) -> bool:
        """Whether the codec still makes the stored latents of the first frame."""
        if not len(self):
            return True
        made = codec.encode(to_tensor(dataset.frames(0)[:1])).float().cpu().numpy()
        if np.allclose(made, self._latents[:1].astype(np.float32), rtol=_TOLERANCE, atol=_TOLERANCE):
            return True
        del self._latents  # Windows replaces no file that is mapped
        console.print(f"{self._path} is of another version of the codec; it is computed again")
        return False

    def _fill(self, path: Path, shape: tuple[int, ...], dataset: StickerDataset, codec: Codec) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        sums = np.zeros((len(self), FIRST_AUGMENTED + self.num_augmented), np.uint32)
        console.print(f"Encoding {shape[0]} frames of {len(self)} stickers (their augmented variants too)")
        try:
            with bars() as progress:
                task = progress.add_task("Encoding frames", total=len(self), note="")
                for i, start in enumerate(self._starts):
                    frames = to_tensor(self._variants(dataset.record(i), dataset.frames(i)))
                    for at in range(0, len(frames), _FRAMES_AT_ONCE):
                        latents = codec.encode(frames[at : at + _FRAMES_AT_ONCE])
                        out[start + at : start + at + len(latents)] = latents.float().cpu().numpy()
                    variants = np.split(out[start : start + len(frames)], sums.shape[1])
                    sums[i] = [zlib.crc32(variant.data) for variant in variants]
                    progress.advance(task)
                    reach("cache.mid_write")
            out.flush()
            with partial.open("ab") as file:
                np.save(file, sums)
            partial.replace(path)
        finally:
            del out
            partial.unlink(missing_ok=True)

    def _variants(self, record: StickerRecord, frames: np.ndarray) -> np.ndarray:
        """All variants, one after the other. Unflippable stickers are mirrored too: all have as many rows a frame."""
        augmented = range(FIRST_AUGMENTED, FIRST_AUGMENTED + self.num_augmented)
        return np.concatenate(
            [frames, frames[:, :, ::-1], *(variant_frames(record, frames, variant) for variant in augmented)]
        )

    def augmentation(self, record: StickerRecord, variant: int) -> Augmentation:
        """How a variant differs from its sticker."""
        return Augmentation.draw(record.id, variant, record.flippable)

    def _rows(self, sticker: int, variant: int) -> np.ndarray:
        """The latents ``(n, c, h, w)`` of a variant of a sticker, after comparing them with their checksum."""
        count = self.num_frames[sticker]
        start = self._starts[sticker] + count * variant
        rows = self._latents[start : start + count]
        if not self._compared[sticker, variant]:
            if zlib.crc32(rows.data) != self._sums[sticker, variant]:
                raise ValueError(
                    f"{self._path} is damaged: the latents of sticker {sticker} are not those that were written; "
                    "delete the file to compute it again"
                )
            self._compared[sticker, variant] = True
        return rows

    def frame_features(self, sticker: int) -> np.ndarray:
        """``(n, d)`` float32 features for comparing frames: the latents of each frame in a row."""
        rows = self._rows(sticker, 0)
        return rows.reshape(len(rows), -1).astype(np.float32)

    def clip(self, sticker: int, frames: Sequence[int], variant: int) -> Tensor:
        """``(c, f, h, w)`` float32 latents of some frames of a variant of a sticker.

        Raises:
            ValueError: the file is damaged.
        """
        rows = self._rows(sticker, variant)[np.asarray(frames)]
        return torch.from_numpy(rows.astype(np.float32)).movedim(0, 1)
