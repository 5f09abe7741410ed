"""Suites: variants of a training that are compared at equal compute, and their tables.

A variant changes settings of the suite. It starts from random weights, or from a larger base that was pretrained on
another domain. Every variant has the budget of floating-point operations of the suite's reference variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rdtf.masks import Task


@dataclass(frozen=True)
class Variant:
    """A training method: a row of the tables.

    Attributes:
        title: title in tables and pages. settings: changes of the suite's training settings.
        tune: tuning method of the pretrained base (a name of :mod:`rdtf.research.adapters`); None: random weights.
        untrained: the base without training.
    """

    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tune: str | None = None
    untrained: bool = False

    @property
    def needs_base(self) -> bool:
        """Whether the variant starts from the pretrained base."""
        return self.untrained or self.tune is not None


@dataclass(frozen=True)
class Claim:
    """A claim to test: ``better`` is better than ``worse`` in the first of ``measures`` that the data allow."""

    better: str
    worse: str
    measures: tuple[str, ...]
    source: str = "the paper's"


@dataclass(frozen=True)
class TableSpec:
    """A table: its variants, measures and claims."""

    title: str
    rows: tuple[str, ...]
    measures: tuple[str, ...]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class World:
    """A part of the built-in world that is drawn for a suite."""

    count: int
    seed: int
    vocabulary: str = "small"
    style: str = "outlined"


@dataclass(frozen=True)
class Suite:
    """A comparison.

    Attributes:
        pixels: height and width of the drawn stickers. A given dataset has its own size.
        target: stickers for training. judged: other stickers for measuring.
        source: stickers of the base's pretraining: stills, and clips in another style.
        base: settings of the base's training. training: settings that all variants share.
        reference: the variant whose ``steps`` define the compute budget.
        seeds: seeds of weights, batches and samples, with a run for each.
        clips: clips made from images and captions for measuring. Captions alone: half as many. Tasks with given frames:
            an eighth.
        sampling_steps: denoising steps for measuring.
        rates: learning rates for each tuned method. Each is tried in a run of a quarter of the steps, and the one with
            the lowest loss on held-out stickers of ``target`` is used. None: the recipe's rate.
    """

    name: str
    pixels: int
    target: World
    judged: World
    source: World
    base: Mapping[str, Any]
    training: Mapping[str, Any]
    variants: Mapping[str, Variant]
    reference: str
    steps: int
    seeds: tuple[int, ...]
    tables: tuple[TableSpec, ...]
    clips: int
    sampling_steps: int
    rates: tuple[float, ...] = ()

    def part(
        self,
        variants: Sequence[str] | None = None,
        *,
        steps: int | None = None,
        seeds: int | None = None,
        pixels: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Suite:
        """A suite with fewer variants, other steps of the reference (which change all budgets) or other seeds.

        Tables keep their remaining rows and claims.

        Args:
            variants: names of variants; the reference is always included. None = all.
            seeds: number of seeds, counted from 0.
            settings: settings of all trainings. The base has its own where the suite says so.

        Raises:
            ValueError: an unknown variant, or a setting that differs between variants.
        """
        names = set(self.variants if variants is None else [self.reference, *variants])
        if unknown := sorted(names - set(self.variants)):
            raise ValueError(
                f"the suite {self.name} has no variant {', '.join(unknown)}; choose of {', '.join(self.variants)}"
            )
        tables = [
            replace(
                table,
                rows=tuple(row for row in table.rows if row in names),
                claims=tuple(claim for claim in table.claims if {claim.better, claim.worse} <= names),
            )
            for table in self.tables
        ]
        settings = dict(settings or {})
        if own := [name for name in _OF_A_RUN if name in settings]:
            raise ValueError(
                f"{', '.join(own)} cannot be set for all runs of a comparison; seeds, compute and what a variant "
                "starts from are the comparison's (--seeds, --steps, --variant)"
            )
        return replace(
            self,
            pixels=self.pixels if pixels is None else pixels,
            training={**self.training, **settings},
            variants={name: variant for name, variant in self.variants.items() if name in names},
            tables=tuple(table for table in tables if len(table.rows) >= min(2, len(names))),
            steps=self.steps if steps is None else steps,
            seeds=self.seeds if seeds is None else tuple(range(seeds)),
        )


_OF_A_RUN = ("seed", "steps", "max_minutes", "tune", "start_from")

GENERATION = ("it2v.fd", "it2v.mmd", "it2v.body", "it2v.action", "it2v.psnr", "it2v.motion")
GIVEN = ("interpolation.psnr", "interpolation.ssim", "forward.psnr", "forward.ssim", "backward.psnr", "backward.ssim")
COST = ("cost.parameters", "cost.trained", "cost.steps", "cost.teraflop", "cost.with_base", "cost.seconds")
MEASURES = {
    "heldout.loss": "held-out loss",
    **{f"difficulty.{i}": f"difficulty {i}, % of steps" for i in range(5)},
    "it2v.fd": "FD-sticker",
    "it2v.mmd": "MMD x 1000",
    "it2v.body": "body named %",
    "it2v.action": "action named %",
    "it2v.psnr": "PSNR dB",
    "it2v.motion": "motion / real",
    "t2v.mmd": "MMD x 1000, text",
    "t2v.body": "body, text %",
    "t2v.colour": "colour, text %",
    "t2v.action": "action, text %",
    "interpolation.psnr": "in-between PSNR dB",
    "interpolation.ssim": "in-between SSIM",
    "forward.psnr": "forward PSNR dB",
    "forward.ssim": "forward SSIM",
    "backward.psnr": "backward PSNR dB",
    "backward.ssim": "backward SSIM",
    "cost.parameters": "parameters M",
    "cost.trained": "trained M",
    "cost.steps": "steps",
    "cost.teraflop": "TFLOP",
    "cost.with_base": "TFLOP with the base's",
    "cost.seconds": "training s",
}
"""Titles of the measures."""
LOWER_IS_BETTER = {"heldout.loss", "it2v.fd", "it2v.mmd", "t2v.mmd"}
NEAREST = ("it2v.fd", "it2v.mmd")

_ONE_TASK = {
    "task_weights": {task.value: float(task is Task.IMAGE_TEXT_TO_VIDEO) for task in Task},
    "curriculum": "none",
    "still_fraction": 0.0,
    "cluster_fraction": 0.0,
    "short_clips": False,
}
_METHODS = {
    "untrained": Variant("the base as it is", untrained=True),
    "lora": Variant("LoRA", tune="lora"),
    "customize-a-video": Variant("Customize-A-Video", tune="customize-a-video"),
    "i2v-adapter": Variant("I2V-Adapter", tune="i2v-adapter"),
    "simda": Variant("SimDA", tune="simda"),
    "full": Variant("full fine-tuning", tune="full"),
    "rdtf": Variant("RDTF, from scratch"),
}
_ABLATION = {
    "conv3d": Variant("DFGN, 3-D convolution", {**_ONE_TASK, "model": {"temporal_layer": "conv3d"}}),
    "sti": Variant("DFGN, STI", _ONE_TASK),
    "masks": Variant("+ dual masks", {"curriculum": "none"}),
}
_CURRICULA = {
    "linear": Variant("linear", {"curriculum": "linear"}),
    "adaptive": Variant("adaptive", {"curriculum": "adaptive"}),
}
_TUNED = tuple(name for name, variant in _METHODS.items() if variant.tune)
_PAPER_METHODS = ("customize-a-video", "i2v-adapter", "simda")

_PAPER_TABLES = (
    TableSpec(
        "Image and text to video",
        tuple(_METHODS),
        (*GENERATION, "t2v.mmd", "t2v.body", "t2v.colour", "t2v.action"),
        tuple(
            Claim("rdtf", name, measure, "the paper's" if name in _PAPER_METHODS else "beyond the paper")
            for name in _TUNED
            for measure in (NEAREST, ("it2v.action",), ("t2v.mmd",), ("t2v.body",))
        ),
    ),
    TableSpec(
        "In-between and prediction",
        tuple(name for name in _METHODS if name != "customize-a-video"),
        GIVEN,
        tuple(
            Claim("rdtf", name, (measure,))
            for name in ("i2v-adapter", "simda")
            for measure in ("interpolation.psnr", "forward.psnr")
        ),
    ),
    TableSpec(
        "Modules",
        ("conv3d", "sti", "masks", "rdtf"),
        GENERATION,
        tuple(
            Claim(better, worse, NEAREST) for better, worse in (("sti", "conv3d"), ("masks", "sti"), ("rdtf", "masks"))
        ),
    ),
    TableSpec(
        "Curricula",
        ("masks", "linear", "adaptive", "rdtf"),
        (*GENERATION[:2], "t2v.mmd", "t2v.action", "interpolation.psnr", "forward.psnr"),
        (
            Claim("linear", "masks", NEAREST),
            Claim("adaptive", "linear", NEAREST),
            Claim("rdtf", "adaptive", NEAREST, "ours"),
        ),
    ),
    TableSpec("Size and time", tuple({**_METHODS, **_ABLATION}), COST),
)
TITLES_IN = {"Curricula": {"masks": "none", "rdtf": "adaptive-normalised"}, "Modules": {"rdtf": "+ curriculum"}}
"""Titles of variants in tables where the usual title does not name the difference."""

_PAPER: dict[str, Any] = {
    "variants": {**_METHODS, **_ABLATION, **_CURRICULA},
    "reference": "rdtf",
    "seeds": (0, 1, 2),
    "tables": _PAPER_TABLES,
    "rates": (3e-4, 1e-3, 3e-3),
}
LITTLE: dict[str, Any] = {
    "pixels": 32,
    "target": World(2000, seed=0),
    "judged": World(1200, seed=1),
    "source": World(3000, seed=2, vocabulary="full", style="flat"),
    # As deep as `tiny`, with half of its width; the base has two thirds of it.
    "training": {
        "size": "tiny",
        "model": {"widths": (24, 48, 72), "head_dim": 24, "sti_heads": 2, "text_width": 96},
        "num_augmented": 0,
        "checkpoint_every": 250,
        "previews": 0,
        "precision": "fp32",
        "threads": 1,
    },
    "base": {
        "model": {"widths": (32, 64, 96), "head_dim": 32, "sti_heads": 2, "text_width": 128},
        "steps": 1000,
    },
    "clips": 320,
    "sampling_steps": 5,
}

SUITES = {
    suite.name: suite
    for suite in (
        Suite("small", **LITTLE, **_PAPER, steps=200),
        Suite(
            "medium",
            pixels=64,
            target=World(20_000, seed=0, vocabulary="full"),
            judged=World(4000, seed=1, vocabulary="full"),
            source=World(40_000, seed=2, vocabulary="full", style="flat"),
            training={"size": "small", "num_augmented": 0, "batch_size": 64, "checkpoint_every": 1000, "previews": 0},
            base={"size": "base", "steps": 40_000},
            clips=2000,
            sampling_steps=20,
            steps=20_000,
            **_PAPER,
        ),
    )
}
"""The suites by name: ``small`` for two processor cores, ``medium`` for a GPU."""


def suite_named(name: str) -> Suite:
    """A suite of :data:`SUITES`.

    Raises:
        ValueError: unknown name.
    """
    if name not in SUITES:
        raise ValueError(f"unknown suite {name!r}; choose one of {', '.join(SUITES)}")
    return SUITES[name]
