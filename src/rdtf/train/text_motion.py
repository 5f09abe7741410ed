"""The first training of a motion prior: alone, on the looping clips of the training split."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from rdtf.model.text_prior import mean_state
from rdtf.progress import bars, console
from rdtf.rng import numpy_rng
from rdtf.train.network import Network
from rdtf.train.source import ClipSource

STEPS = 4000
BATCH = 48
_LEARNING_RATE = 2e-3
_WARM_UP = 50
_REPORT_STEPS = 500  # between status lines if there is no terminal for a progress bar


def fit_text_motion(net: Network, source: ClipSource, steps: int = STEPS) -> float:
    """Fit the motion prior of ``net`` to the changes of latents since the first frame.

    Within the network the prior would need a hundred times as long, because each of its steps costs a pass of the
    whole network. Text encoder and network stay as they are.

    Returns:
        the mean square error of the last steps as a fraction of the changes' mean square.

    Raises:
        ValueError: no looping sticker has as many frames as a clip and a caption.
    """
    prior, settings, latents = net.plain.text_motion, source.settings, source.latents
    assert prior is not None
    usable = [
        sticker
        for sticker in source.moving.tolist()
        if latents.num_frames[sticker] >= settings.frames and _loops_with_caption(source, sticker)
    ]
    if not usable:
        raise ValueError(
            f"add_text_motion learns from looping stickers with a caption and {settings.frames} frames; there are none"
        )
    device = net.plain.device
    small = []
    for sticker in usable:
        plan = source.captioned_clip(sticker)
        clip = latents.clip(sticker, plan.frames, plan.variant).movedim(0, 1)
        small.append(F.interpolate(clip.float(), (prior.side, prior.side), mode="area").half())
    clips = torch.stack(small)  # n f c s s
    valid = torch.ones(BATCH, settings.frames, dtype=torch.bool, device=device)
    optimizer = torch.optim.AdamW(prior.parameters(), _LEARNING_RATE, weight_decay=0.0)
    error = 1.0
    with bars() as progress:
        bar = progress.add_task("Fitting the motion prior", total=steps, note="")
        for step in range(steps):
            rng = numpy_rng(settings.seed, step, "text motion")
            rows = rng.integers(len(usable), size=BATCH)
            words = source.text([source.caption(usable[row], rng) for row in rows])
            with torch.no_grad():
                mean = mean_state(*net.text(words))
            truth = clips[torch.from_numpy(rows)].to(device).float().movedim(1, 2)
            change = truth - truth[:, :, :1]
            loss = (prior(mean, valid, truth) - change).square().mean()
            rate = min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * max(0.0, 2 * step / steps - 1)))
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * rate
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            error += max(0.01, 1 / (step + 1)) * (loss.item() / max(1e-12, change.square().mean().item()) - error)
            progress.update(bar, advance=1, note=f"error {error:.3f}")
            if not console.is_terminal and (step + 1) % _REPORT_STEPS == 0:
                console.print(f"motion prior: step {step + 1} of {steps}, error {error:.3f}")
    optimizer.zero_grad(set_to_none=True)
    console.print(f"The motion prior has learned {1 - error:.0%} of the motion of {len(usable)} looping stickers")
    return error


def _loops_with_caption(source: ClipSource, sticker: int) -> bool:
    record = source.latents.record(sticker)
    return record.loops and any(record.captions)
