"""How well codecs give frames back: ``python benchmarks/codec_fidelity.py [CODEC ...] [--data DATA]``.

CODEC is what ``--codec`` takes: ``f8``, a folder, a hub id. DATA is a prepared dataset whose test split is measured;
without it, stickers of the built-in world are. PSNR is over white, the mean over frames. Its error is parted into flat
colours (means over squares of 8 x 8 pixels) and the rest (edges and detail). Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from rdtf.codec import load_codec
from rdtf.data.dataset import StickerDataset
from rdtf.pixels import to_tensor
from rdtf.progress import console
from rdtf.world import draw_sticker

SQUARE = 8  # pixels
DRAWN = 128  # pixels, of stickers of the built-in world


def psnr(error: Tensor) -> float:
    """Mean over frames, in dB, of errors ``(n, 3, h, w)`` in units of the peak; at most 60 each."""
    return float((-10 * error.square().mean((1, 2, 3)).log10()).clamp(max=60).mean())


def stickers(data: Path | None, limit: int) -> Iterator[np.ndarray]:
    """Frames of stickers, spread evenly over the test split, or drawn."""
    if data is None:
        for i in range(limit):
            yield draw_sticker(1, i, size=DRAWN).frames
        return
    dataset = StickerDataset(data, "test")
    for i in np.unique(np.linspace(0, len(dataset) - 1, limit).round().astype(int)):
        yield dataset.frames(int(i))


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("codec", nargs="*", default=["f8", "f4"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--frames", type=int, default=1, help="of each sticker, evenly spread")
    parser.add_argument("--limit", type=int, default=400, help="stickers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = []
    for frames in stickers(options.data, options.limit):
        parts.append(frames[np.unique(np.linspace(0, len(frames) - 1, options.frames).round().astype(int))])
    target = to_tensor(np.concatenate(parts))
    table = Table("codec", "over white, dB", "flat colours alone", "the rest alone", "encode, ms", "decode, ms")
    table.title = f"{len(target)} frames of {target.shape[-1]} px, {len(parts)} stickers"
    results = {}
    for name in options.codec:
        codec = load_codec(name)
        begin = time.process_time()
        latents = codec.encode(target)
        middle = time.process_time()
        error = (codec.decode(latents).cpu() - target) / 2
        end = time.process_time()
        white = error[:, :3] - error[:, 3:]
        flat = F.interpolate(F.avg_pool2d(white, SQUARE), scale_factor=SQUARE)
        results[name] = {
            "white": round(psnr(white), 2),
            "flat": round(psnr(flat), 2),
            "rest": round(psnr(white - flat), 2),
            "encode_ms": round(1000 * (middle - begin) / len(target), 1),
            "decode_ms": round(1000 * (end - middle) / len(target), 1),
        }
        table.add_row(name, *map(str, results[name].values()))
    console.print(table)
    print(json.dumps({"frames": len(target), "size": target.shape[-1], "codecs": results}))


if __name__ == "__main__":
    main()
