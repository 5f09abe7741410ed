"""Batches as a pure function of (seed, step) and the curriculum's state."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from rdtf.batch import ClipBatch
from rdtf.curriculum import Curriculum
from rdtf.data.augment import FIRST_AUGMENTED, PLAIN
from rdtf.data.clips import ClipPlan, plan_clip, whole_clip
from rdtf.data.dataset import StickerDataset
from rdtf.data.keyframes import typical_frame
from rdtf.data.moved_stills import is_moved
from rdtf.data.style import FIELD, style_phrase, without_style
from rdtf.masks import GENERATION, Task, draw_known
from rdtf.rng import numpy_rng
from rdtf.text import KnownCaptions, TextEncoder, TextFeatures, drop_words
from rdtf.train.latents import LatentCache
from rdtf.train.settings import TrainSettings

_SHOWABLE_COVERAGE = 0.02  # a frame with a smaller opaque part is not used as the only given image
_TEXT_BYTES = 256 << 20  # largest cache of text features
_ENTRY_BYTES = 512  # about the size of a cache entry without its arrays
_WORD_DROP_VARIANTS = 8  # of a caption by word dropout: few, so that their text features stay in the cache


@dataclass(frozen=True)
class RankSlice:
    """What process ``rank`` of ``count`` works on, in ``parts`` passes for each group of clips of one length."""

    rank: int = 0
    count: int = 1
    parts: int = 1


def unread_captions(captions: Iterable[str], text: TextEncoder) -> str:
    """A warning about captions that are longer than the encoder's window; empty if there are none."""
    different = dict.fromkeys(captions)
    cut = [caption for caption in different if text.unread(caption)]
    if not cut:
        return ""
    example = cut[0] if len(cut[0]) <= 60 else f"{cut[0][:60]}..."
    return (
        f"{len(cut)} of {len(different)} captions are longer than the text encoder reads, and their ends are left out, "
        f"for example of {example!r}. Give the most important words first"
    )


def known_captions(dataset: StickerDataset) -> KnownCaptions | None:
    """The names of a dataset's stickers, apart from moved stills, whose captions name a motion.

    Synonyms are the other captions and the attribute ``keywords``.
    """
    columns = map(dataset.column, ("captions", "attributes", "num_frames"))
    rows = [(captions, json.loads(attributes), frames) for captions, attributes, frames in zip(*columns, strict=True)]
    found = [(*_name_style_synonyms(*row), frames) for *row, frames in rows if not is_moved(row[1])]
    return KnownCaptions.of_stickers((row[:3] for row in found), {row[0] for row in found if row[3] > 1})


def _name_style_synonyms(captions: list[str], attributes: dict[str, Any]) -> tuple[str, str, list[str]]:
    name, *others = (without_style(caption, attributes.get(FIELD)) for caption in captions)
    style = style_phrase(attributes[FIELD]) if name != captions[0] else ""
    keywords = attributes.get("keywords")
    words = [word for word in keywords if isinstance(word, str)] if isinstance(keywords, list) else []
    return name, style, [*others, *words]


class TextCache:
    """A cache of what an encoder's ``prepare`` makes, of ``limit`` bytes (default: 256 MiB). The oldest are dropped."""

    def __init__(self, text: TextEncoder, limit: int | None = None) -> None:
        self._text, self._limit = text, _TEXT_BYTES if limit is None else limit
        self._kept: dict[str, TextFeatures] = {}
        self.bytes = 0

    def __call__(self, captions: list[str]) -> list[TextFeatures]:
        """The features of each caption, from the cache or from the encoder."""
        new = sorted({caption for caption in captions if caption not in self._kept})
        for caption, made in zip(new, self._text.prepare(new) if new else [], strict=True):
            self._kept[caption] = made
            self.bytes += _size(made)
        features = [self._kept[caption] for caption in captions]
        while self.bytes > self._limit:
            self.bytes -= _size(self._kept.pop(next(iter(self._kept))))
        return features


def _size(features: TextFeatures) -> int:
    return _ENTRY_BYTES + sum(array.nbytes for array in features.arrays)


@dataclass(frozen=True)
class _Sample:
    """One sticker in a step. ``known`` has one entry for each frame. ``caption`` is empty if it is hidden."""

    position: int
    sticker: int
    plan: ClipPlan
    task: Task
    known: np.ndarray
    caption: str


class ClipSource:
    """Draws the stickers, clips, tasks, masks and captions of each step from the latents of the training split.

    Args:
        one_batch: put all clips of a step into one batch, padded to one length.
        whole_captioned: for a motion prior. Generated clips with a caption show the whole sticker in evenly spaced
            frames, unaltered, and loops begin with their typical frame. So a caption has one motion.
    """

    def __init__(
        self,
        latents: LatentCache,
        text: TextEncoder,
        curriculum: Curriculum,
        settings: TrainSettings,
        one_batch: bool = False,
        whole_captioned: bool = False,
    ) -> None:
        self.latents, self.text, self.curriculum, self.settings = latents, TextCache(text), curriculum, settings
        self.one_batch, self.whole_captioned = one_batch, whole_captioned
        fewest = 1 if settings.short_clips else settings.frames
        self.everything = np.flatnonzero(latents.num_frames >= fewest)
        self.moving = np.flatnonzero(latents.num_frames >= max(2, fewest))
        if not len(latents):
            raise ValueError("the training split is empty; prepare more stickers or change the split shares")
        if not len(self.everything):
            raise ValueError(f"no sticker has {fewest} frames, which short_clips=false asks for; lower frames")
        # The caption of a moved still names its motion, which says nothing about a single frame.
        own = self.everything[~latents.moved[self.everything]]
        self.stills = own if len(own) else self.everything
        self._order = lru_cache(maxsize=4)(
            lambda purpose, epoch, count: numpy_rng(settings.seed, epoch, purpose).permutation(count)
        )
        self._typical = lru_cache(maxsize=None)(self._typical_frame)

    @property
    def draws_stills_separately(self) -> bool:
        """Whether a fraction of each batch is single frames; the others are then clips of moving stickers."""
        return self.settings.still_fraction > 0 and len(self.moving) > 0

    def batches(
        self, step: int, progress: float, part: RankSlice = RankSlice(), stills: bool = False
    ) -> list[ClipBatch]:
        """The clips of a step, in batches of similar length unless they are put together.

        Batches of similar length have less padding, which costs as much as frames. The draw does not depend on
        ``part``: the clips are sorted by length and dealt to the processes in turn, so all get long and short ones.
        With ``stills`` every sticker gives a single frame.
        """
        size = self.settings.batch_size
        separate = self.draws_stills_separately and not stills
        num_stills = round(size * self.settings.still_fraction) if separate else 0
        num_clips, most_frames = size - num_stills, 1 if stills else self.settings.frames
        sources = self.moving if num_stills else self.everything
        drawn = [(self._nth(sources, "clips", step * num_clips + i), most_frames) for i in range(num_clips)]
        drawn += [(self._nth(self.stills, "stills", step * num_stills + i), 1) for i in range(num_stills)]
        rng = numpy_rng(self.settings.seed, step, "clips")
        samples = [
            self._draw(position, sticker, self._plan(sticker, most, rng), progress, rng)
            for position, (sticker, most) in enumerate(drawn)
        ]
        passes, dealt = [], 0
        for group in [samples] if self.one_batch else _grouped(samples):
            own = group[(part.rank - dealt) % part.count :: part.count]
            dealt += len(group)
            length = max(1, -(-len(own) // part.parts))
            passes += [self._collate(own[at : at + length]) for at in range(0, len(own), length)]
        return passes

    def _nth(self, stickers: np.ndarray, purpose: str, position: int) -> int:
        """The sticker at a position of the endless sequence of shuffled passes."""
        order = self._order(f"order/{purpose}", position // len(stickers), len(stickers))
        return int(stickers[order[position % len(stickers)]])

    def _plan(self, sticker: int, most_frames: int, rng: np.random.Generator) -> ClipPlan:
        settings = self.settings
        if most_frames == 1 and settings.still_frame == "typical":
            return ClipPlan((self._typical(sticker),), loop=False, variant=PLAIN)
        return plan_clip(
            self.latents.record(sticker),
            most_frames,
            rng,
            cluster_fraction=settings.cluster_fraction,
            num_augmented=self.latents.num_augmented,
            shorter=settings.short_clips,
            extraction=settings.extraction,
        )

    def _typical_frame(self, sticker: int) -> int:
        return typical_frame(self.latents.frame_features(sticker), self.latents.record(sticker).coverage)

    def _draw(self, position: int, sticker: int, plan: ClipPlan, progress: float, rng: np.random.Generator) -> _Sample:
        settings, record = self.settings, self.latents.record(sticker)
        task, unknown = self.curriculum.draw(progress, len(plan.frames), rng)
        known = self._known(sticker, plan, task, unknown, rng)
        dropout = settings.caption_dropout if task in GENERATION else settings.fill_caption_dropout
        shown = task.uses_text and rng.random() >= dropout
        if shown and self.whole_captioned and task in GENERATION and len(known) > 1:
            plan = self.captioned_clip(sticker)
            known = self._known(sticker, plan, task, None, rng)
        if plan.variant >= FIRST_AUGMENTED and self.latents.augmentation(record, plan.variant).hue:
            shown = False  # the caption may name colours that the augmentation has changed
        return _Sample(position, sticker, plan, task, known, self.caption(sticker, rng) if shown else "")

    def _known(
        self, sticker: int, plan: ClipPlan, task: Task, unknown: int | None, rng: np.random.Generator
    ) -> np.ndarray:
        showable = np.asarray(self.latents.record(sticker).coverage)[list(plan.frames)] > _SHOWABLE_COVERAGE
        return draw_known(task, len(plan.frames), rng, unknown=unknown, loop=plan.loop, showable=showable)

    def captioned_clip(self, sticker: int) -> ClipPlan:
        """The clip of a sticker that a caption shows with ``whole_captioned``."""
        return whole_clip(self.latents.record(sticker), self.settings.frames, self._typical(sticker))

    def _collate(self, samples: list[_Sample]) -> ClipBatch:
        slots = self.settings.frames if self.one_batch else max(len(sample.known) for sample in samples)
        clips = [self.latents.clip(s.sticker, s.plan.frames, s.plan.variant) for s in samples]
        channels, _, height, width = clips[0].shape
        video = torch.zeros(len(samples), channels, slots, height, width)
        valid, known = (torch.zeros(len(samples), slots, dtype=torch.bool) for _ in range(2))
        for i, (sample, clip) in enumerate(zip(samples, clips, strict=True)):
            count = len(sample.known)
            video[i, :, :count] = clip
            valid[i, :count] = True
            known[i, :count] = torch.from_numpy(sample.known)
        return ClipBatch(
            video=video,
            valid=valid,
            known=known,
            loop=torch.tensor([sample.plan.loop for sample in samples]),
            tasks=tuple(sample.task for sample in samples),
            text=tuple(self.text([sample.caption for sample in samples])),
            ids=tuple(self.latents.record(sample.sticker).id for sample in samples),
            positions=tuple(sample.position for sample in samples),
        )

    def caption(self, sticker: int, rng: np.random.Generator) -> str:
        """One of the sticker's captions, most often the first one, without some of its words; empty if it has none."""
        captions = [caption for caption in self.latents.record(sticker).captions if caption]
        if not captions:
            return ""
        caption = captions[0 if rng.random() < 0.7 else int(rng.integers(len(captions)))]
        variant = int(rng.integers(_WORD_DROP_VARIANTS))
        words = numpy_rng(self.settings.seed, variant, f"words/{caption}")
        return drop_words(caption, words, self.settings.word_dropout)


def _grouped(samples: list[_Sample]) -> list[list[_Sample]]:
    """A group of single frames and one or two groups of clips, sorted by length.

    A second group of clips costs another pass, and saves more than that from about a dozen clips on. Groups of equal
    size keep the number of different shapes low, because a processor builds its kernels for each shape.
    """
    singles = [sample for sample in samples if len(sample.known) == 1]
    clips = sorted((sample for sample in samples if len(sample.known) > 1), key=lambda sample: len(sample.known))
    middle = len(clips) // 2 if len(clips) >= 12 else len(clips)
    return [group for group in (singles, clips[:middle], clips[middle:]) if group]
