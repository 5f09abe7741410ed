"""Generating: one pipeline for all six tasks, saved like any diffusers pipeline and loaded by :mod:`rdtf.loading`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from einops import rearrange
from PIL import Image
from torch import Tensor

from rdtf.codec import Codec
from rdtf.copy_decoder import CopyDecoder
from rdtf.diffusion.guidance import guidance_passes
from rdtf.diffusion.objective import Scheduler
from rdtf.diffusion.sampling import Start, sample
from rdtf.model import DFGN
from rdtf.model.adapter import AdaptedDFGN, adapter_of
from rdtf.model.time_axis import MAX_FRAMES
from rdtf.pixels import fit, to_frames, to_tensor
from rdtf.sticker import Sticker
from rdtf.text import TextEncoder

GivenFrame = Image.Image | np.ndarray
BATCH_ON_CPU, BATCH_ON_GPU = 1, 16
"""Stickers that are made at a time. Larger batches are faster. Of one sticker each, they give the same pixels whatever
else the call makes."""


@dataclass(frozen=True)
class _Request:
    """A sticker to make."""

    caption: str
    given: Mapping[int, GivenFrame]
    loop: bool
    seed: int


@dataclass(frozen=True)
class StickerOutput:
    """What a call of the pipeline returns.

    Attributes:
        stickers: one for each caption and repetition, captions first.
    """

    stickers: list[Sticker]

    @property
    def frames(self) -> list[list[Image.Image]]:
        """The frames as RGBA images: ``frames[sticker][time]``."""
        return [[Image.fromarray(frame, "RGBA") for frame in sticker.frames] for sticker in self.stickers]


class StickerPipeline(DiffusionPipeline):
    """Text, given frames or both to transparent animated stickers.

    Args:
        dfgn: the network, with an adapter or without.
        codec: frames to latents and back.
        text_encoder: captions to states.
        scheduler: of diffusers; any that fits the network's prediction can be put in its place.
        sample_size: height and width in pixels that the network was trained at.
        prediction: what the network puts out, see :class:`rdtf.diffusion.objective.Objective`.
        steps, guidance, image_guidance, eta, still_first: defaults of a call.
        copy_decoder: redraws decoded frames with pixels of the given ones; None = the codec's frames as they are.
    """

    _optional_components: ClassVar[list[str]] = ["copy_decoder"]

    def __init__(
        self,
        dfgn: DFGN | AdaptedDFGN,
        codec: Codec,
        text_encoder: TextEncoder,
        scheduler: Scheduler,
        sample_size: int = 64,
        prediction: str = "sample",
        steps: int = 20,
        guidance: float = 2.5,
        image_guidance: float = 1.0,
        eta: float = 0.0,
        copy_decoder: CopyDecoder | None = None,
        still_first: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(
            dfgn=dfgn, codec=codec, text_encoder=text_encoder, scheduler=scheduler, copy_decoder=copy_decoder
        )
        self.register_to_config(
            sample_size=sample_size,
            prediction=prediction,
            steps=steps,
            guidance=guidance,
            image_guidance=image_guidance,
            eta=eta,
            still_first=still_first,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        *,
        frames: Mapping[int, GivenFrame] | Sequence[Mapping[int, GivenFrame]] | None = None,
        num_frames: int = 8,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        seed: int = 0,
        num_stickers_per_prompt: int = 1,
        loop: bool | Sequence[bool] = False,
        fps: float = 8.0,
        output_size: int | None = None,
        still_first: bool | None = None,
        batch_size: int | None = None,
        callback_on_step_end: Callable[[int, int], None] | None = None,
    ) -> StickerOutput:
        """Generate stickers.

        Stickers are made ``batch_size`` at a time, so that memory does not grow with their number. On a processor a
        sticker made alone and one made in a call of many are equal to the pixel if ``batch_size`` is 1; in larger
        batches single pixels may differ by one level of 255.

        Args:
            prompt: one caption or several; empty = no text.
            frames: given frames by position, RGBA images or ``(h, w, 4)`` uint8 arrays of any size. They come back
                in the output pixel for pixel (after fitting to its size). Of all stickers, or a mapping for each
                prompt.
            num_frames: 1 to 16.
            guidance_scale, image_guidance_scale: of the text and of the given frames; 1 = no guidance.
            seed: of the first sticker; the next ones count up. The same seed gives the same pixels on one machine.
            loop: treat time as circular, so that the last frame leads back to the first. One value for all stickers, or
                one for each prompt.
            output_size: height and width of the output, by default ``sample_size``; other sizes are scaled.
            still_first: for stickers without given frames: make the first frame alone, as a still, and then the sticker
                that begins with it. The thing then keeps its shape. Costs twice the steps, of a single frame.
            batch_size: stickers at a time; by default 1 on a processor and 16 on a GPU.
            callback_on_step_end: called with the steps done and their number.

        Raises:
            ValueError: a frame count or position out of range; steps, fps or output_size not above 0; mappings of given
                frames or values of ``loop`` that are not one for each prompt.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        each = [frames or {}] * len(prompts) if frames is None or isinstance(frames, Mapping) else list(frames)
        if len(each) != len(prompts):
            raise ValueError(
                f"{len(prompts)} prompts with given frames for {len(each)}; give one mapping for each prompt"
            )
        loops = [loop] * len(prompts) if isinstance(loop, bool) else list(loop)
        if len(loops) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts with {len(loops)} values of loop; give one for each prompt")
        steps = self.config.steps if num_inference_steps is None else num_inference_steps
        if not 1 <= num_frames <= MAX_FRAMES:
            raise ValueError(f"num_frames must be 1 to {MAX_FRAMES}, not {num_frames}")
        if not prompts or num_stickers_per_prompt < 1 or steps < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError("give at least one prompt, one sticker a prompt, one step and one sticker a batch")
        if fps <= 0 or (output_size is not None and output_size < 1):
            raise ValueError(f"fps and output_size must be above 0, got {fps} and {output_size}")
        if outside := sorted({position for given in each for position in given if not 0 <= position < num_frames}):
            raise ValueError(f"given frames at {outside} lie outside a clip of {num_frames} (positions count from 0)")
        requests = [
            _Request(prompts[i], each[i], loops[i], seed + i * num_stickers_per_prompt + n)
            for i in range(len(prompts))
            for n in range(num_stickers_per_prompt)
        ]
        scales = (
            self.config.image_guidance if image_guidance_scale is None else image_guidance_scale,
            self.config.guidance if guidance_scale is None else guidance_scale,
        )
        still = num_frames > 1 and (self.config.still_first if still_first is None else still_first)
        together = batch_size or (BATCH_ON_CPU if self.device.type == "cpu" else BATCH_ON_GPU)
        total = sum(steps * (2 if still and not request.given else 1) for request in requests[::together])
        done = 0

        def on_step(*_: int) -> None:
            nonlocal done
            done += 1
            if callback_on_step_end is not None:
                callback_on_step_end(min(done, total), total)

        stickers = []
        for at in range(0, len(requests), together):
            part = requests[at : at + together]
            video = self._clips(part, num_frames, scales, steps, still, on_step)
            if output_size is not None:
                video = np.stack([fit(clip, output_size) for clip in video])
            for clip, request in zip(video, part, strict=True):
                for position, frame in request.given.items():
                    clip[position] = fit(_as_rgba(frame)[None], len(clip[position]))[0]
                known_facts = {
                    "steps": steps,
                    "loops": request.loop,
                    "seed": request.seed,
                    "given": sorted(request.given),
                }
                stickers.append(Sticker.at_fps(clip, fps, caption=request.caption, attributes=known_facts))
        return StickerOutput(stickers)

    def _clips(
        self,
        requests: Sequence[_Request],
        num_frames: int,
        scales: tuple[float, float],
        steps: int,
        still_first: bool,
        on_step: Callable[[int, int], None],
    ) -> np.ndarray:
        """Straight frames ``(b, f, s, s, 4)`` uint8 in the model's own size."""
        loops, seeds = [request.loop for request in requests], [request.seed for request in requests]
        captions = [request.caption for request in requests]
        known_video, known = self._known_latents(requests, num_frames)
        drawn_first = ~known.any(1)
        if still_first and drawn_first.any():
            empty, nothing = known_video[:, :, :1] * 0, known[:, :1] & False
            stills = self._denoise(captions, empty, nothing, scales, steps, seeds, [False] * len(requests), on_step)
            known_video[drawn_first, :, 0] = stills[drawn_first, :, 0]
            known[drawn_first, 0] = True
        latents = self._denoise(captions, known_video, known, scales, steps, seeds, loops, on_step)
        decoded = self._decode(latents)
        if self.copy_decoder is not None:
            for i, request in enumerate(requests):
                for position, frame in request.given.items():
                    pixels = to_tensor(fit(_as_rgba(frame)[None], decoded.shape[-1])[0])
                    decoded[i, position] = pixels.to(decoded.device)
            decoded = self.copy_decoder.redraw(decoded, known, torch.tensor(loops, device=self.device))
        return to_frames(decoded)

    @torch.no_grad()
    def bring_back(
        self, frames: Tensor, known: Tensor, loops: list[bool], *, level: float, steps: int, seed: int
    ) -> Tensor:
        """Noise real clips and denoise them around their given frames, without captions and the copy decoder.

        Args:
            frames: ``(b, f, 4, h, w)`` premultiplied in [-1, 1]. known: ``(b, f)`` bool.
            level: noise level in (0, 1]. steps: of the scheduler from level 1; those below ``level`` are taken.
            seed: of the first clip; the next ones count up.

        Returns:
            decoded clips in the shape of ``frames``.
        """
        latents = self.codec.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).movedim(1, 2)
        given = torch.where(known[:, None, :, None, None], latents, torch.zeros_like(latents))
        start = Start(latents, level)
        captions, seeds = [""] * len(frames), [seed + i for i in range(len(frames))]
        return self._decode(self._denoise(captions, given, known, (1.0, 1.0), steps, seeds, loops, None, start))

    def _decode(self, latents: Tensor) -> Tensor:
        """``(b, c, f, h, w)`` latents to ``(b, f, 4, h, w)`` premultiplied frames."""
        decoded = self.codec.decode(rearrange(latents, "b c f h w -> (b f) c h w"))
        return rearrange(decoded, "(b f) c h w -> b f c h w", b=len(latents))

    def _known_latents(self, requests: Sequence[_Request], num_frames: int) -> tuple[Tensor, Tensor]:
        """Latents ``(b, c, f, h, w)`` of the given frames, zeros elsewhere, and the condition mask ``(b, f)``."""
        size, count = self.config.sample_size, len(requests)
        side = size // self.codec.downscale
        video = torch.zeros(count, self.codec.latent_channels, num_frames, side, side, device=self.device)
        known = torch.zeros(count, num_frames, dtype=torch.bool, device=self.device)
        for i, request in enumerate(requests):
            for position, frame in request.given.items():
                pixels = to_tensor(fit(_as_rgba(frame)[None], size)[0])[None]
                video[i, :, position] = self.codec.encode(pixels.to(self.device))[0]
                known[i, position] = True
        return video, known

    def _denoise(
        self,
        captions: list[str],
        known_video: Tensor,
        known: Tensor,
        scales: tuple[float, float],
        steps: int,
        seeds: list[int],
        loops: list[bool],
        callback: Callable[[int, int], None] | None,
        start: Start | None = None,
    ) -> Tensor:
        """Clean latents ``(b, c, f, h, w)``.

        Args:
            scales: guidance of the given frames and of the text.
        """
        shape, count = known_video.shape, len(captions)
        # Drawn on the CPU and a sticker at a time: neither the device nor the company changes a sticker.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(shape[1:], generator=g) for g in generators]).to(self.device)
        passes = guidance_passes(bool(known.any()), any(captions), *scales)
        # All passes are one batch: a processor is faster on it than on one pass after the other.
        words = [caption if p.text else "" for p in passes for caption in captions]
        text = self.dfgn.text_context(*self.text_encoder(self.text_encoder.prepare(words)))
        shown = torch.cat([known if p.frames else torch.zeros_like(known) for p in passes])
        valid = torch.ones_like(shown)
        circular = torch.tensor(loops * len(passes), device=self.device)
        videos = known_video.repeat(len(passes), 1, 1, 1, 1)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            level = timestep.float().expand(len(shown))
            noisy = latents.repeat(len(passes), 1, 1, 1, 1)
            predicted = self.dfgn(noisy, level, videos, shown, valid, circular, text)
            parts = zip(passes, predicted.split(count), strict=True)
            return sum((p.weight * part for p, part in parts), torch.zeros_like(latents))

        return sample(
            predict,
            self.scheduler,
            noise,
            known_video,
            known,
            prediction=self.config.prediction,
            steps=steps,
            start=start or self._start(known_video, known, generators),
            eta=self.config.eta,
            draw_noise=lambda: self._fresh_noise(generators, shape),
            on_step=callback,
        )

    def _start(self, known_video: Tensor, known: Tensor, generators: list[torch.Generator]) -> Start | None:
        """What the adapter begins with instead of pure noise, if it does."""
        adapter = adapter_of(self.dfgn)
        if adapter is None or not known.any(1).all():
            return None
        images = known_video[torch.arange(len(known), device=known.device), :, known.int().argmax(1)]
        priors = [adapter.init_latents(image, generator) for image, generator in zip(images, generators, strict=True)]
        signals = [prior for prior in priors if prior is not None]
        if not signals:
            return None
        return Start(torch.stack(signals)[:, :, None].expand_as(known_video), adapter.start_level)

    def _fresh_noise(self, generators: list[torch.Generator], shape: torch.Size) -> Tensor:
        return torch.stack([torch.randn(shape[1:], generator=g) for g in generators]).to(self.device)


def _as_rgba(frame: GivenFrame) -> np.ndarray:
    array = np.asarray(frame.convert("RGBA") if isinstance(frame, Image.Image) else frame)
    if array.ndim != 3 or array.shape[-1] != 4 or array.dtype != np.uint8:
        raise ValueError(f"a given frame must be RGBA (h, w, 4) uint8, got {array.shape} {array.dtype}")
    return array
