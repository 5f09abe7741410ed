"""The pipeline that generates stickers for all six tasks. It is called and saved like a pipeline of diffusers.

:mod:`rdtf.loading` loads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import rearrange
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rdtf.codec import Codec
from rdtf.copy_decoder import CopyDecoder, enlarge
from rdtf.diffusion.objective import TRAIN_TIMESTEPS
from rdtf.diffusion.sampling import OnStep, Start, sample
from rdtf.diffusion.schedulers import check_scheduler, path_of
from rdtf.guided_network import GuidedNetwork
from rdtf.hub import FORMAT, FORMAT_KEY, INDEX
from rdtf.model import DFGN
from rdtf.model.adapter import AdaptedDFGN, adapter_of
from rdtf.model.time_axis import MAX_FRAMES
from rdtf.pixels import fit, sharpen_edges, to_frames, to_tensor
from rdtf.request import OUTPUT_TYPES, GivenFrame, Request, StickerOutput, requests_of
from rdtf.saved_module import Config
from rdtf.sticker import Sticker
from rdtf.text import Fit, KnownCaptions, TextEncoder

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin
else:
    SchedulerMixin = Any

MAX_SEED = 2**63 - 1
MIN_FPS, MAX_FPS = 0.01, 1000.0
MAX_GUIDANCE = 100.0
MAX_OUTPUT_SIZE = 4096
PARTS = ("dfgn", "codec", "text_encoder", "scheduler", "copy_decoder")
OnStepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any] | None]


class Sampling(BaseModel):
    """Defaults of a call that are saved with a model.

    Attributes:
        steps: denoising steps.
        guidance: guidance scale of the text. image_guidance: guidance scale of the given frames.
        clip_guidance: guidance scale of the text for clips with given frames or with a still as their first frame. By
            default it is ``guidance``; 1 halves the time of these clips.
        guidance_low, guidance_high: noise levels between which the text guides, in all calls (arXiv 2404.07724). A step
            outside costs one pass of the network less.
        eta: noise that DDIM adds in each step (0 = none).
        still_first: for captions alone, make the first frame as a still and then the sticker that begins with it. In a
            training, None means yes if it draws single frames.
        edge_contrast: contrast of :func:`~rdtf.pixels.sharpen_edges` for new frames, times the enlargement; 1 = none.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    steps: int = Field(20, ge=1, le=1000)
    guidance: float = Field(2.5, ge=-MAX_GUIDANCE, le=MAX_GUIDANCE)
    image_guidance: float = Field(1.0, ge=-MAX_GUIDANCE, le=MAX_GUIDANCE)
    clip_guidance: float | None = Field(None, ge=-MAX_GUIDANCE, le=MAX_GUIDANCE)
    guidance_low: float = Field(0.0, ge=0, le=1)
    guidance_high: float = Field(1.0, ge=0, le=1)
    eta: float = Field(0.0, ge=0, le=1)
    still_first: bool | None = None
    edge_contrast: float = Field(1.0, ge=1, le=4)


class PipelineConfig(Sampling):
    """What a saved pipeline says besides its parts.

    Attributes:
        sample_size: height and width in pixels that the network was trained at.
        prediction: output of the network. path: the noise path of the training, see :mod:`rdtf.diffusion.objective`.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    sample_size: int = Field(64, ge=4, le=1024)
    prediction: Literal["sample", "epsilon", "v_prediction"] = "sample"
    still_first: bool = False
    path: Literal["flow", "ddpm"]


class StickerPipeline:
    """Makes transparent animated stickers from text, given frames or both.

    Args:
        dfgn: the network, with an adapter or without.
        codec: frames to latents and back.
        text_encoder: captions to states.
        scheduler: a scheduler of :data:`rdtf.diffusion.schedulers.SCHEDULERS`; it may be replaced. A call refuses a
            scheduler that does not fit the network.
        sample_size, settings: see :class:`PipelineConfig`; the path is by default the scheduler's.
        copy_decoder: redraws decoded frames with pixels of the given ones; None = frames as the codec decodes them.

    Attributes:
        known: what the model was trained to draw, or None. Calls take any caption; the commands ask :meth:`fit` first.
    """

    def __init__(
        self,
        dfgn: DFGN | AdaptedDFGN,
        codec: Codec,
        text_encoder: TextEncoder,
        scheduler: SchedulerMixin,
        sample_size: int = 64,
        copy_decoder: CopyDecoder | None = None,
        **settings: Any,
    ) -> None:
        self.dfgn, self.codec, self.text_encoder = dfgn, codec, text_encoder
        self.scheduler, self.copy_decoder = scheduler, copy_decoder
        self.known: KnownCaptions | None = None
        settings["path"] = settings.get("path") or path_of(scheduler)
        self.config = PipelineConfig(sample_size=sample_size, **settings)

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return self.dfgn.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the network."""
        return self.dfgn.dtype

    @property
    def default_batch_size(self) -> int:
        """Stickers in a batch: 1 on a processor, 16 on a GPU.

        Larger batches are faster. In a batch of one, a sticker's pixels do not depend on the other stickers of a call.
        """
        return 1 if self.device.type == "cpu" else 16

    def to(self, *args: Any, **kwargs: Any) -> StickerPipeline:
        """Move all networks or change their precision, with the arguments of ``torch.nn.Module.to``."""
        for part in self.components.values():
            if isinstance(part, torch.nn.Module):
                part.to(*args, **kwargs)
        return self

    def save_pretrained(self, save_directory: str | PathLike[str], dtype: str | None = None) -> None:
        """Write a folder for :func:`rdtf.load_pipeline`: a folder for each part, then the captions and the index.

        Args:
            dtype: dtype of the saved weights, ``float16``, ``bfloat16`` or ``float32``; by default that of the parts.

        Raises:
            ValueError: another ``dtype``, or a weight that is too large for it.
        """
        if dtype not in (None, "float16", "bfloat16", "float32"):
            raise ValueError(f"weights are saved as float16, bfloat16 or float32, not {dtype}")
        kept = {} if dtype is None else {"dtype": getattr(torch, dtype)}
        classes: dict[str, list[str | None]] = {}
        for name, part in self.components.items():
            classes[name] = [None, None]
            if part is not None:
                part.save_pretrained(Path(save_directory, name), **({} if name == "scheduler" else kept))
                module = "diffusers" if name == "scheduler" else type(part).__module__
                classes[name] = [module, type(part).__name__]
        if self.known is not None:
            self.known.save(Path(save_directory))
        config = Config(self.config.model_dump(), **{FORMAT_KEY: FORMAT})
        config.save(Path(save_directory, INDEX), type(self).__name__, **classes)

    def fit(self, caption: str, strict: bool = False, *, given: bool = False) -> Fit:
        """The caption that a call should have instead: the nearest that the model knows, see :class:`KnownCaptions`.

        Args:
            given: the call has given frames; an unknown caption is then left out.

        Raises:
            ValueError: with ``strict``, the model does not know the caption.
        """
        fit = Fit(caption) if self.known is None else self.known.fit(caption, given=given)
        if strict and fit.note:
            raise ValueError(fit.note[0].lower() + fit.note[1:])
        return fit

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
        negative_prompt: str | Sequence[str] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        durations: Sequence[float] | None = None,
        output_type: str = "pil",
        callback_on_step_end: OnStepEnd | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> StickerOutput:
        """Generate stickers.

        Memory depends on ``batch_size`` and not on the number of stickers. On a processor with ``batch_size=1``, the
        pixels of a sticker do not depend on the other stickers of the call. In larger batches single pixels may differ
        by one level of 255.

        Args:
            prompt: one caption or several; empty = no text.
            frames: given frames by position, RGBA images or ``(h, w, 4)`` uint8 arrays of any size. The output has them
                pixel for pixel (after scaling to its size). One mapping for all stickers, or one for each prompt.
            num_frames: 1 to 16.
            guidance_scale, image_guidance_scale: scales of the text and of the given frames; 1 = no guidance.
            seed: seed of the first sticker; the next stickers count up. The same seed gives the same pixels on one
                machine.
            loop: treat time as circular, so that the last frame leads back to the first. One value for all stickers, or
                one for each prompt.
            output_size: height and width of the output, by default ``sample_size``; other sizes are scaled. A copy
                decoder draws larger frames with the pixels of the given ones at that size.
            still_first: for stickers without given frames: make the first frame as a still, and then the sticker that
                begins with it. Shapes then stay the same over time. The still takes the same number of steps.
            batch_size: stickers in a batch; by default :attr:`default_batch_size`.
            negative_prompt: text guidance leads away from it; one for all stickers, or one for each prompt.
            generator: draws the seeds instead of ``seed``; one for all stickers, or one for each.
            durations: milliseconds that each frame is shown, instead of ``fps``.
            output_type: form of the output's ``frames``: ``pil``, ``np`` or ``pt``.
            callback_on_step_end: called as ``callback(pipeline, index, timestep, {"latents": latents})`` after each
                step. It may return a dictionary with new latents. An exception ends the call. The index starts at 0 for
                each batch and each still.
            on_step: called with the number of steps done and the number of all steps of the call.

        Raises:
            ValueError: a number or position is out of range, the number of values is not the number of prompts, or the
                scheduler does not fit the network.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        steps = self.config.steps if num_inference_steps is None else num_inference_steps
        together = self.default_batch_size if batch_size is None else batch_size
        image_scale = self.config.image_guidance if image_guidance_scale is None else image_guidance_scale
        text_scale = self.config.guidance if guidance_scale is None else guidance_scale
        own = self.config.clip_guidance if guidance_scale is None else None
        scales = image_scale, text_scale, text_scale if own is None else own
        side = self.config.sample_size if output_size is None else output_size
        count = len(prompts) * num_stickers_per_prompt
        for name, number, least, most in (
            ("prompts", len(prompts), 1, math.inf),
            ("num_frames", num_frames, 1, MAX_FRAMES),
            ("num_inference_steps", steps, 1, math.inf),
            ("num_stickers_per_prompt", num_stickers_per_prompt, 1, math.inf),
            ("batch_size", together, 1, math.inf),
            ("guidance_scale", text_scale, -MAX_GUIDANCE, MAX_GUIDANCE),
            ("image_guidance_scale", image_scale, -MAX_GUIDANCE, MAX_GUIDANCE),
            ("fps", fps, MIN_FPS, MAX_FPS),
            ("output_size", side, 1, MAX_OUTPUT_SIZE),
            ("seed", seed, -MAX_SEED, MAX_SEED - count),
        ):
            if not least <= number <= most:  # nor is a number that is none
                raise ValueError(f"{name} must be {least} to {most}, not {number}")
        times = np.full(num_frames, 1000 / fps) if durations is None else np.asarray(durations, np.float64)
        if times.shape != (num_frames,) or not (np.isfinite(times) & (times > 0)).all():
            raise ValueError(f"durations must be milliseconds above 0 for each of {num_frames} frames, not {durations}")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"unknown output_type {output_type!r}; use {', '.join(OUTPUT_TYPES)}")
        check_scheduler(self.scheduler, self.config.path, self.config.prediction)
        requests = requests_of(
            prompts,
            negative_prompt=negative_prompt,
            frames=frames,
            loop=loop,
            seed=seed,
            generator=generator,
            repetitions=num_stickers_per_prompt,
            num_frames=num_frames,
        )
        still = num_frames > 1 and (self.config.still_first if still_first is None else still_first)
        total = sum(steps * (2 if still and not request.given else 1) for request in requests[::together])
        done = 0

        def after_step(index: int, timestep: Tensor, latents: Tensor) -> Tensor:
            nonlocal done
            done += 1
            if callback_on_step_end is not None:
                returned = callback_on_step_end(self, index, timestep, {"latents": latents})
                latents = (returned or {}).get("latents", latents)
            if on_step is not None:
                on_step(min(done, total), total)
            return latents

        stickers = []
        for at in range(0, len(requests), together):
            part = requests[at : at + together]
            video = self._clips(part, num_frames, scales, steps, still, side, after_step)
            for clip, request in zip(video, part, strict=True):
                clip = fit(clip, side)
                for position, frame in request.given.items():
                    clip[position] = fit(frame[None], side)[0]
                about = {"steps": steps, "loops": request.loop, "seed": request.seed, "given": sorted(request.given)}
                stickers.append(Sticker(clip, times, request.caption, about))
        return StickerOutput(stickers, output_type)

    def _clips(
        self,
        requests: Sequence[Request],
        num_frames: int,
        scales: tuple[float, float, float],
        steps: int,
        still_first: bool,
        side: int,
        on_step: OnStep,
    ) -> np.ndarray:
        """Straight frames ``(b, f, s, s, 4)`` uint8 in the model's size; with a copy decoder in ``side`` if larger."""
        loops, seeds = [request.loop for request in requests], [request.seed for request in requests]
        captions = [(request.caption, request.negative) for request in requests]
        known_video, known = self._known_latents(requests, num_frames)
        drawn_first = ~known.any(1)
        if still_first and drawn_first.any():
            empty, nothing = known_video[:, :, :1] * 0, known[:, :1] & False
            stills = self._denoise(captions, empty, nothing, scales[:2], steps, seeds, [False] * len(requests), on_step)
            known_video[drawn_first, :, 0] = stills[drawn_first, :, 0]
            known[drawn_first, 0] = True
        beside = scales[0], scales[2 if known.any(1).all() else 1]  # text beside given frames has its own scale
        latents = self._denoise(captions, known_video, known, beside, steps, seeds, loops, on_step)
        if not latents.isfinite().all():
            raise ValueError("the model gives numbers that are not finite: it is damaged, or needs .to(torch.float32)")
        decoded = self._decode(latents)
        if self.copy_decoder is not None:
            self._put_given(decoded, requests)
            large = None
            if side > decoded.shape[-1]:
                large = enlarge(decoded.flatten(0, 1), (side, side)).unflatten(0, decoded.shape[:2])
                self._put_given(large, requests)
            circular = torch.tensor(loops, device=known.device)
            decoded = self.copy_decoder.redraw(decoded, known, circular, large, trusted=~drawn_first)
        if self.config.edge_contrast > 1:
            larger = max(1.0, decoded.shape[-1] / self.config.sample_size)
            decoded = sharpen_edges(decoded, self.config.edge_contrast * larger, math.ceil(larger))
        return to_frames(decoded)

    @staticmethod
    def _put_given(frames: Tensor, requests: Sequence[Request]) -> None:
        """Replace frames ``(b, f, 4, h, w)`` by the given ones, scaled to their size."""
        for clip, request in zip(frames, requests, strict=True):
            for position, frame in request.given.items():
                clip[position] = to_tensor(fit(frame[None], clip.shape[-1])[0]).to(clip.device)

    @torch.no_grad()
    def bring_back(
        self, frames: Tensor, known: Tensor, loops: list[bool], *, level: float, steps: int, seed: int
    ) -> Tensor:
        """Noise real clips and denoise them around their given frames, without captions or copy decoder.

        Args:
            frames: ``(b, f, 4, h, w)`` premultiplied in [-1, 1]. known: ``(b, f)`` bool.
            level: noise level in (0, 1]. steps: the scheduler's steps from level 1; only those below ``level`` are run.
            seed: seed of the first clip; the next clips count up.

        Returns:
            decoded clips in the shape of ``frames``.
        """
        latents = self.codec.encode(frames.flatten(0, 1)).float().unflatten(0, frames.shape[:2]).movedim(1, 2)
        given = torch.where(known[:, None, :, None, None], latents, torch.zeros_like(latents))
        start = Start(latents, level)
        captions, seeds = [("", "")] * len(frames), [seed + i for i in range(len(frames))]
        return self._decode(self._denoise(captions, given, known, (1.0, 1.0), steps, seeds, loops, None, start))

    def _decode(self, latents: Tensor) -> Tensor:
        """``(b, c, f, h, w)`` latents to ``(b, f, 4, h, w)`` premultiplied frames."""
        decoded = self.codec.decode(rearrange(latents, "b c f h w -> (b f) c h w")).float()
        return rearrange(decoded, "(b f) c h w -> b f c h w", b=len(latents))

    def _known_latents(self, requests: Sequence[Request], num_frames: int) -> tuple[Tensor, Tensor]:
        """Latents ``(b, c, f, h, w)`` of the given frames, zeros elsewhere, and the condition mask ``(b, f)``."""
        size, count = self.config.sample_size, len(requests)
        side = size // self.codec.downscale
        video = torch.zeros(count, self.codec.latent_channels, num_frames, side, side, device=self.device)
        known = torch.zeros(count, num_frames, dtype=torch.bool, device=self.device)
        for i, request in enumerate(requests):
            for position, frame in request.given.items():
                pixels = to_tensor(fit(frame[None], size)[0])[None]
                video[i, :, position] = self.codec.encode(pixels.to(self.device))[0]
                known[i, position] = True
        return video, known

    def _denoise(
        self,
        captions: list[tuple[str, str]],
        known_video: Tensor,
        known: Tensor,
        scales: tuple[float, float],
        steps: int,
        seeds: list[int],
        loops: list[bool],
        on_step: OnStep | None,
        start: Start | None = None,
    ) -> Tensor:
        """Clean latents ``(b, c, f, h, w)``.

        Args:
            captions: each with its negative one. scales: guidance of the given frames and of the text.
        """
        # Noise is drawn on the CPU, for each sticker alone. So it does not depend on the device or on other stickers.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(known_video.shape[1:], generator=g) for g in generators]).to(self.device)
        network = partial(GuidedNetwork, self.dfgn, self.text_encoder, captions, known_video, known, loops)
        low, high = self.config.guidance_low, self.config.guidance_high
        guided = network(*scales)
        plain = guided if (low, high) == (0.0, 1.0) else network(scales[0], 1.0)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            return (guided if low <= float(timestep) / TRAIN_TIMESTEPS <= high else plain)(latents, timestep)

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
            generators=generators,
            on_step=on_step,
        )

    def _start(self, known_video: Tensor, known: Tensor, generators: list[torch.Generator]) -> Start | None:
        """The adapter's start instead of pure noise. None without one, or where a clip has no given frame."""
        adapter = adapter_of(self.dfgn)
        if adapter is None or adapter.start is None or not known.any(1).all():
            return None
        images = known_video[torch.arange(len(known), device=known.device), :, known.int().argmax(1)]
        latents = torch.stack([adapter.init_latents(*pair) for pair in zip(images, generators, strict=True)])
        return Start(latents[:, :, None].expand_as(known_video), adapter.start)
