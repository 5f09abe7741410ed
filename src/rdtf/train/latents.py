"""Latents of a whole data set, computed once and kept beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdtf.codec import Codec
from rdtf.data.dataset import StickerDataset
from rdtf.pixels import to_tensor
from rdtf.progress import bars

_FRAMES_AT_ONCE = 64


class LatentCache:
    """Memory-mapped fp16 latents of every frame, and of its mirror image where the sticker may be flipped.

    The file's name holds the codec's and the data's fingerprints, so that a cache is never used for another pair.
    """

    def __init__(self, dataset: StickerDataset, codec: Codec, folder: Path) -> None:
        self.records = [dataset.record(i) for i in range(len(dataset))]
        rows, self._starts = 0, []
        for record in self.records:
            self._starts.append(rows)
            rows += record.num_frames * (2 if record.flippable else 1)
        side = dataset.size // codec.downscale
        shape = (rows, codec.latent_channels, side, side)
        path = folder / f"latents-{codec.fingerprint}-{dataset.fingerprint}-{dataset.split or 'all'}.npy"
        if not path.exists():
            self._fill(path, shape, dataset, codec)
        self._latents = np.load(path, mmap_mode="r")
        if self._latents.shape != shape:
            raise ValueError(f"{path} has shape {self._latents.shape}, expected {shape}; delete it to compute it again")

    def _fill(self, path: Path, shape: tuple[int, ...], dataset: StickerDataset, codec: Codec) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        try:
            with bars() as progress:
                task = progress.add_task("Encoding frames", total=len(self.records), note="")
                for i, (record, start) in enumerate(zip(self.records, self._starts, strict=True)):
                    frames = to_tensor(dataset.frames(i))
                    if record.flippable:
                        frames = torch.cat([frames, frames.flip(-1)])
                    for at in range(0, len(frames), _FRAMES_AT_ONCE):
                        latents = codec.encode(frames[at : at + _FRAMES_AT_ONCE])
                        out[start + at : start + at + len(latents)] = latents.float().numpy()
                    progress.advance(task)
            out.flush()
            partial.replace(path)
        finally:
            del out
            partial.unlink(missing_ok=True)

    def clip(self, sticker: int, frames: Sequence[int], flip: bool) -> Tensor:
        """``(c, f, h, w)`` float32 latents of some frames of a sticker, mirrored if wanted (and allowed)."""
        record = self.records[sticker]
        assert not flip or record.flippable
        rows = self._starts[sticker] + np.asarray(frames) + (record.num_frames if flip else 0)
        return torch.from_numpy(self._latents[rows].astype(np.float32)).movedim(0, 1)
