"""What a model has learned of its training pictures: ``python benchmarks/captions_learned.py DATA MODEL...``.

The model predicts clean latents from pure noise and a caption of DATA's training split, in one step and without
guidance. The error is the mean square of the difference to the encoded typical frame of that sticker
(:func:`rdtf.data.keyframes.typical_frame`). A model that knows nothing has the variance of the latents as its error.
Moving stickers and stills are measured apart. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from rdtf.data.dataset import StickerDataset
from rdtf.data.keyframes import frame_features, typical_frame
from rdtf.loading import load_pipeline
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import to_tensor
from rdtf.progress import console


def typical(dataset: StickerDataset, row: int) -> np.ndarray:
    """A sticker's typical frame ``(s, s, 4)``."""
    frames = dataset.frames(row)
    return frames[typical_frame(frame_features(frames), dataset.record(row).coverage)]


def predicted(pipeline: StickerPipeline, captions: list[str], seed: int) -> torch.Tensor:
    """Clean latents ``(n, c, y, x)`` as the model predicts them from noise and a caption."""
    seen: dict[str, torch.Tensor] = {}

    def keep(_: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> None:
        seen["latents"] = tensors["latents"]

    pipeline(
        captions,
        num_frames=1,
        num_inference_steps=1,
        guidance_scale=1.0,
        batch_size=len(captions),
        seed=seed,
        callback_on_step_end=keep,
    )
    return seen["latents"][:, :, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="prepared dataset of the models' size")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--count", type=int, default=64, help="moving stickers, and as many stills")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    dataset = StickerDataset(options.data, "train")
    moving = np.array(dataset.column("num_frames")) > 1
    rng, kinds = np.random.default_rng(options.seed), {"moving": moving, "stills": ~moving}
    chosen = {name: rng.permutation(np.flatnonzero(rows))[: options.count].tolist() for name, rows in kinds.items()}
    groups = {name: rows for name, rows in chosen.items() if rows}
    table, results = Table("model", *[f"{name} ({len(rows)})" for name, rows in groups.items()]), []
    for model in options.models:
        pipeline, row = load_pipeline(model), {}
        for name, rows in groups.items():
            frames = [typical(dataset, i) for i in rows]
            real = torch.cat([pipeline.codec.encode(to_tensor(frame[None])) for frame in frames])
            captions = [dataset.record(i).captions[0] for i in rows]
            error = (predicted(pipeline, captions, options.seed) - real).square().mean()
            row[name] = {"error": round(float(error), 4), "variance": round(float(real.var()), 4)}
        table.add_row(model, *[f"{cell['error']:.3f} of {cell['variance']:.3f}" for cell in row.values()])
        results.append({"model": model, **row})
    console.print(table)
    print(json.dumps({"data": str(options.data), "errors": results}))


if __name__ == "__main__":
    main()
