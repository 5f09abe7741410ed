"""The network with guidance, as the sampler calls it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rdtf.diffusion.guidance import guidance_passes
from rdtf.model import DFGN
from rdtf.model.adapter import AdaptedDFGN
from rdtf.text import TextEncoder


class GuidedNetwork:
    """The network for the clips of a call: all guidance passes of a step, and their weighted sum.

    Args:
        captions: one for each clip, with its negative caption.
        known_video, known: latents of the given frames, and which frames are given.
        loops: for each clip, whether its time is circular.
        image_scale, text_scale: see :func:`rdtf.diffusion.guidance.guidance_passes`.
    """

    def __init__(
        self,
        dfgn: DFGN | AdaptedDFGN,
        text_encoder: TextEncoder,
        captions: Sequence[tuple[str, str]],
        known_video: Float[Tensor, "b c f h w"],
        known: Bool[Tensor, "b f"],
        loops: Sequence[bool],
        image_scale: float,
        text_scale: float,
    ) -> None:
        self._dfgn = dfgn
        self._passes = passes = guidance_passes(bool(known.any()), any(map(any, captions)), image_scale, text_scale)
        # All guidance passes are one batch, which is faster than separate passes on a processor.
        words = [caption if p.text else negative for p in passes for caption, negative in captions]
        self._text = dfgn.text_context(*text_encoder(text_encoder.prepare(words)))
        self._known = torch.cat([known if p.frames else torch.zeros_like(known) for p in passes])
        self._valid = torch.ones_like(self._known)
        self._loops = torch.tensor([*loops] * len(passes), device=known.device)
        self._known_video = known_video.repeat(len(passes), 1, 1, 1, 1).to(dfgn.dtype)

    def __call__(self, latents: Float[Tensor, "b c f h w"], timestep: Tensor) -> Float[Tensor, "b c f h w"]:
        """The guided output for noisy latents.

        The network may run in half precision. The result is float32, because half precision would lose the small steps
        of sampling.
        """
        noisy = latents.repeat(len(self._passes), 1, 1, 1, 1).to(self._dfgn.dtype)
        level = timestep.float().expand(len(noisy))
        output = self._dfgn(noisy, level, self._known_video, self._known, self._valid, self._loops, self._text).float()
        parts = zip(self._passes, output.split(len(latents)), strict=True)
        return sum((p.weight * part for p, part in parts), torch.zeros_like(latents))
