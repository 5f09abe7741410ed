"""Latents of a whole data set, computed once and kept beside it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdtf.codec import Codec
from rdtf.data.augment import FIRST_AUGMENTED, Augmentation, variant_frames
from rdtf.data.dataset import StickerDataset, StickerRecord
from rdtf.faults import reach
from rdtf.pixels import to_tensor
from rdtf.progress import bars, console

_FRAMES_AT_ONCE = 64
_RECORDS_KEPT = 256  # a step asks for each of its own several times


def cache_folder(data: Path, run: Path) -> Path:
    """Where latents are kept: beside the data, so that runs share them; in the run where the data cannot be written."""
    folder = data / "cache"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return run / "cache"
    return folder


class LatentCache:
    """Memory-mapped fp16 latents of every frame of every variant of a sticker.

    The variants are the sticker, its mirror image (where the caption allows) and augmented variants. The file's name
    holds the codec's and the data's fingerprints, so that a cache is never used for another pair. Behind the latents
    it has a checksum of every variant of every sticker, which is compared when that is first asked for. Of each
    sticker nothing but a few numbers is held; its record is read from the dataset's memory map when it is asked for.

    Args:
        num_augmented: augmented variants of each sticker (:mod:`rdtf.data.augment`).

    Attributes:
        record: called with a sticker's number, what is known about it.
        num_frames: of each sticker.
    """

    def __init__(self, dataset: StickerDataset, codec: Codec, folder: Path, num_augmented: int = 0) -> None:
        self.num_augmented = num_augmented
        self.record = lru_cache(maxsize=_RECORDS_KEPT)(dataset.record)
        self.num_frames = np.asarray(dataset.column("num_frames"), np.int64)
        rows_each = self.num_frames * (FIRST_AUGMENTED + num_augmented)
        rows, self._starts = int(rows_each.sum()), np.cumsum(rows_each) - rows_each
        side = dataset.size // codec.downscale
        shape = (rows, codec.latent_channels, side, side)
        path = (
            folder / f"latents-{codec.fingerprint}-{dataset.fingerprint}-{dataset.split or 'all'}-{num_augmented}.npy"
        )
        if not self._open(path, shape):
            self._fill(path, shape, dataset, codec)
            if not self._open(path, shape):
                raise ValueError(f"{path} was written and cannot be read; is the disk sound?")

    def __len__(self) -> int:
        return len(self.num_frames)

    def _open(self, path: Path, shape: tuple[int, ...]) -> bool:
        """Take a file that is there and whole, as its length tells."""
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
                    frames = to_tensor(np.concatenate(list(self._variants(dataset.record(i), dataset.frames(i)))))
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

    def _variants(self, record: StickerRecord, frames: np.ndarray) -> Iterator[np.ndarray]:
        yield frames
        yield frames[:, :, ::-1]  # kept for unflippable ones too: a fixed number of rows a frame, and few of them
        for variant in range(FIRST_AUGMENTED, FIRST_AUGMENTED + self.num_augmented):
            yield variant_frames(record, frames, variant)

    def augmentation(self, record: StickerRecord, variant: int) -> Augmentation:
        """How a variant differs from its sticker."""
        return Augmentation.draw(record.id, variant, record.flippable)

    def _rows(self, sticker: int, variant: int) -> np.ndarray:
        """The latents ``(n, c, h, w)`` of a variant of a sticker, which are those that were written."""
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

    def looks(self, sticker: int) -> np.ndarray:
        """``(n, d)`` float32: the latents of a sticker's frames, a row each, for comparing them."""
        rows = self._rows(sticker, 0)
        return rows.reshape(len(rows), -1).astype(np.float32)

    def clip(self, sticker: int, frames: Sequence[int], variant: int) -> Tensor:
        """``(c, f, h, w)`` float32 latents of some frames of a variant of a sticker.

        Raises:
            ValueError: they are not those that were written.
        """
        rows = self._rows(sticker, variant)[np.asarray(frames)]
        return torch.from_numpy(rows.astype(np.float32)).movedim(0, 1)
