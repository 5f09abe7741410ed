"""What a model has learned of its training stickers: ``python benchmarks/captions_learned.py DATA MODEL...``.

The model predicts clean latents from pure noise and a caption of DATA's training split, in one step and without
guidance. The error is the mean square of the difference to the encoded typical frame of that sticker
(:func:`rdtf.data.keyframes.typical_frame`). A model that knows nothing has the variance of the latents as its error.
Moving stickers and stills are measured apart.

The third measure is motion: looping stickers are predicted likewise from their captions and typical frames, as whole
loops of 8 frames that begin with it. The error of the other frames is compared with the error of repeating the first
frame. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from rdtf.data.clips import whole_clip
from rdtf.data.dataset import StickerDataset
from rdtf.data.keyframes import frame_features, typical_frame
from rdtf.loading import load_pipeline
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import to_tensor
from rdtf.progress import console

FRAMES = 8


def clip_of(dataset: StickerDataset, row: int, frames: int) -> np.ndarray:
    """The whole sticker from its typical frame on, ``(frames, s, s, 4)``."""
    pictures, record = dataset.frames(row), dataset.record(row)
    first = typical_frame(frame_features(pictures), record.coverage)
    return pictures[[first] if frames == 1 else list(whole_clip(record, frames, first).frames)]


def predicted(pipeline: StickerPipeline, captions: list[str], seed: int, clips: list[np.ndarray]) -> torch.Tensor:
    """Clean latents ``(n, c, f, y, x)`` from noise and captions, and of clips from their first frames too."""
    seen: list[torch.Tensor] = []

    def keep(_: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> None:
        seen.append(tensors["latents"])

    moving = len(clips[0]) > 1
    pipeline(
        captions,
        frames=[{0: clip[0]} for clip in clips] if moving else None,
        num_frames=len(clips[0]),
        num_inference_steps=1,
        guidance_scale=1.0,
        loop=moving,
        batch_size=16 if moving else len(captions),
        seed=seed,
        callback_on_step_end=keep,
    )
    return torch.cat(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared dataset of the models' size")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--count", type=int, default=64, help="moving stickers, and as many stills")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    dataset = StickerDataset(options.data, "train")
    count, rng = np.array(dataset.column("num_frames")), np.random.default_rng(options.seed)
    loops = np.array([dataset.record(row).loops and count[row] >= FRAMES for row in range(len(dataset))])
    kinds = {"moving": (count > 1, 1), "stills": (count == 1, 1), "motion": (loops, FRAMES)}
    chosen = {
        kind: rng.permutation(np.flatnonzero(rows))[: options.count].tolist() for kind, (rows, _) in kinds.items()
    }
    groups = {kind: (rows, kinds[kind][1]) for kind, rows in chosen.items() if rows}
    table, results = Table("model", *[f"{kind} ({len(rows)})" for kind, (rows, _) in groups.items()]), []
    for model in options.models:
        pipeline, result = load_pipeline(model), {}
        for kind, (rows, frames) in groups.items():
            clips = [clip_of(dataset, row, frames) for row in rows]
            real = torch.stack([pipeline.codec.encode(to_tensor(clip)) for clip in clips]).movedim(1, 2)
            captions = [dataset.record(row).captions[0] for row in rows]
            wrong = (predicted(pipeline, captions, options.seed, clips) - real).square()
            still = (real - real[:, :, :1]).square()
            error, most = (
                (wrong.mean(), real.var()) if frames == 1 else (wrong[:, :, 1:].mean(), still[:, :, 1:].mean())
            )
            result[kind] = {"error": round(float(error), 4), "of": round(float(most), 4)}
        table.add_row(model, *[f"{cell['error']:.3f} of {cell['of']:.3f}" for cell in result.values()])
        results.append({"model": model, **result})
    console.print(table)
    print(json.dumps({"data": str(options.data), "errors": results}))


if __name__ == "__main__":
    main()
