"""Settings of a training run, and the named recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rdtf.curriculum import CURRICULA
from rdtf.data.keyframes import Extraction
from rdtf.diffusion.objective import Objective
from rdtf.model.adapter import adapter_class, adapter_names
from rdtf.model.time_axis import MAX_FRAMES
from rdtf.pipeline import Sampling
from rdtf.presets import size_config

START_DECIDES = ("size", "model", "codec", "text")
"""Settings that ``start_from`` decides."""


class TrainSettings(BaseModel):
    """Settings of a run; the defaults are the ``fast`` recipe.

    Attributes:
        size: named size of the network; ``model`` overrides single arguments of :class:`rdtf.model.DFGN`.
        codec, text: specs for ``load_codec`` and ``load_text_encoder``.
        start_from: ``shipped``, or the folder of a run or saved pipeline. Training starts from its network, codec and
            text encoder. The data may have another size in pixels; a step at half of the size costs a quarter.
        grow: put one more level around that network (:func:`rdtf.model.grow.grown`). For data of twice the size: shapes
            that it learned at the smaller size are kept.
        add_text_prior: give that network a text prior (:class:`rdtf.model.text_prior.TextPrior`) of this hidden width.
        add_text_motion: give it a motion prior (:class:`rdtf.model.text_prior.MotionPrior`) of this hidden width. It is
            first fitted alone to the looping clips, and then trained with the network.
        tune: name of an adapter (:mod:`rdtf.model.adapter`), with ``tune_options``. Only the adapter's layers are
            trained. By default, and with ``full``, all weights of network and text encoder are trained.
        steps: optimiser steps. max_minutes: stop earlier, at this wall-clock time; schedules then follow the clock.
        batch_size: stickers in a step. still_fraction: fraction of them that show a single frame, of a still or of a
            moving sticker; the others are clips of moving stickers. A single frame costs a fraction of a clip, so
            captions are learned sooner from single frames. With 0, every sticker is drawn equally often.
        still_frame: frame that these single frames show. ``any``: every frame, mirrored and altered like clips.
            ``typical``: the medoid of the frames that show the thing, unaltered. A caption then has one picture; it
            is learned sooner and varies less.
        frames: most frames of a clip.
        short_clips: also train on stills and on stickers with fewer than ``frames`` frames; the loss mask allows it.
            False is the paper's ablation without masks: every clip has ``frames`` frames.
        cluster_fraction: fraction of clips of informative frames. The other clips have evenly spaced frames.
        extraction: how informative frames are chosen, see :func:`rdtf.data.keyframes.extract_frames`.
        num_augmented: augmented copies of each sticker: moved, turned, scaled, some recoloured.
        caption_dropout: probability of hiding the caption in generation (from text, from an image and text).
        fill_caption_dropout: probability of hiding the caption in in-betweening and prediction.
        word_dropout: probability of dropping each word of a shown caption.
        residual_to_known: the network predicts the difference to the cross-fade of the given frames.
        loss_on_known: given frames count in the loss, as in the paper.
        muon: Muon for hidden matrices (``muon_lr``) and AdamW (``lr``) for the rest; otherwise AdamW alone.
        muon_iterations: Newton-Schulz iterations in each step of Muon. More iterations are closer to orthogonal.
        decay: cosine decay in the second half.
        precision: ``auto`` follows the rule of :func:`~rdtf.train.hardware.choose_precision`.
        gradient_checkpointing: recompute the activations of each level in the backward pass to save memory.
        gradient_accumulation_steps: split the batch into this many passes. The step is the same and needs less memory.
        cuda_graphs: on a single GPU, record each pass as a CUDA graph, which is several times as fast for small
            networks. All clips are then padded to ``frames``. Not used with ``gradient_checkpointing``,
            ``gradient_accumulation_steps`` or ``tune``.
        fsdp: with several processes, shard weights, gradients and averages over them (FSDP).
        threads: CPU threads. None takes torch's default, and the run keeps the number.
        eval_clips: held-out clips (rounded up to whole batches) of the evaluations every ``eval_every`` steps and at
            the end; 0 = no evaluations.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: str = "fast"
    size: str = "tiny"
    model: dict[str, Any] = Field(default_factory=dict)
    codec: str = "f4"
    text: list[str] = Field(default_factory=lambda: ["builtin"])
    objective: Objective = Objective()
    sampling: Sampling = Sampling()

    start_from: str | None = None
    grow: bool = False
    add_text_prior: int = Field(0, ge=0, le=8192)
    add_text_motion: int = Field(0, ge=0, le=8192)
    tune: str | None = None
    tune_options: dict[str, Any] = Field(default_factory=dict)

    steps: int = Field(2000, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(16, ge=1)
    still_fraction: float = Field(0.25, ge=0, le=1)
    still_frame: Literal["any", "typical"] = "any"
    frames: int = Field(8, ge=1, le=MAX_FRAMES)
    short_clips: bool = True
    cluster_fraction: float = Field(0.5, ge=0, le=1)
    extraction: Extraction = "cluster-random"
    num_augmented: int = Field(2, ge=0, le=16)
    caption_dropout: float = Field(0.1, ge=0, le=1)
    fill_caption_dropout: float = Field(0.5, ge=0, le=1)
    word_dropout: float = Field(0.2, ge=0, le=1)
    curriculum: str = "adaptive-normalised"
    task_weights: dict[str, float] = Field(default_factory=dict)
    residual_to_known: bool = True
    loss_on_known: bool = False

    muon: bool = True
    lr: float = Field(2e-3, gt=0)
    muon_lr: float = Field(0.02, gt=0)
    muon_iterations: int = Field(5, ge=1, le=10)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(30, ge=0)
    decay: bool = True
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.9995, ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    gradient_accumulation_steps: int = Field(1, ge=1)
    cuda_graphs: bool = True
    fsdp: bool = False
    seed: int = 0
    threads: int | None = Field(None, ge=1)

    checkpoint_every: int = Field(500, ge=1)
    preview_every: int = Field(500, ge=1)
    previews: int = Field(8, ge=0)
    eval_every: int = Field(500, ge=1)
    eval_clips: int = Field(32, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        """Runs of earlier versions say what is gone: ``ema_on_disk=false``, ``trackers=[]``."""
        gone = ("ema_on_disk", "trackers")
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if value or name not in gone}
        return values

    @model_validator(mode="after")
    def _check(self) -> TrainSettings:
        size_config(self.size)  # raises for an unknown name
        if self.by_adapter and self.tune not in adapter_names():
            raise ValueError(f"unknown tune {self.tune!r}; choose one of full, {', '.join(adapter_names())}")
        if self.tune is not None and self.start_from is None:
            raise ValueError(f"tune={self.tune} tunes a trained model; name it with start_from (--from)")
        if self.grow and (self.start_from is None or self.by_adapter):
            raise ValueError(
                "grow puts a level around all of a trained model; name it with start_from (--from), no tune"
            )
        if self.add_text_prior and (self.start_from is None or self.by_adapter):
            raise ValueError(
                "add_text_prior is for all of a trained model; name it with start_from (--from), no tune. "
                "A new network gets one by --set model.text_prior=WIDTH"
            )
        if self.add_text_motion and (self.start_from is None or self.by_adapter):
            raise ValueError(
                "add_text_motion is for all of a trained model with a text prior; name it with start_from (--from), no "
                "tune"
            )
        if self.tune_options and not self.by_adapter:
            raise ValueError("tune_options are for a method named by tune; full fine-tuning has none")
        defaults = TrainSettings.model_construct()
        given = [name for name in START_DECIDES if getattr(self, name) != getattr(defaults, name)]
        if self.start_from is not None and given:
            raise ValueError(f"start_from brings network, codec and text encoder along; leave out {', '.join(given)}")
        if self.curriculum not in CURRICULA:
            raise ValueError(f"unknown curriculum {self.curriculum!r}; choose one of {', '.join(CURRICULA)}")
        if self.objective.path == "flow" and self.sampling.eta:
            raise ValueError("sampling.eta belongs to objective.path=ddpm; the flow path's sampler adds no noise")
        if self.residual_to_known and self.objective.clean_factor is None:
            raise ValueError(
                "residual_to_known needs an output that holds the clean clip at the same weight at every noise level "
                "(prediction sample, or v_prediction on the flow path); set residual_to_known=false for this objective"
            )
        if not self.short_clips and (self.still_fraction or self.cluster_fraction):
            raise ValueError(
                "short_clips=false takes whole clips alone; set still_fraction=0 and cluster_fraction=0 with it"
            )
        return self

    @property
    def by_adapter(self) -> bool:
        """Whether only the layers of an adapter are trained."""
        return self.tune not in (None, "full")

    @property
    def has_stages(self) -> bool:
        """Whether parameters are frozen and unfrozen during the training."""
        return self.by_adapter and adapter_class(self.tune or "").has_stages

    def network(self) -> dict[str, Any]:
        """Arguments of the network, without those that codec and text encoder decide."""
        residual = self.objective.clean_factor if self.residual_to_known else 0.0
        return {**size_config(self.size), "residual_to_known": residual, **self.model}


RECIPES: dict[str, dict[str, Any]] = {
    "fast": {},
    # The paper's Table 6. Its batch of 1 on each of 16 GPUs is a batch of 16 in 16 passes here, divided among the
    # processes.
    "paper": {
        "size": "paper",
        "model": {"mask_channel": False, "known_neighbours": False},
        "residual_to_known": False,
        "objective": {"path": "ddpm", "prediction": "epsilon"},
        "sampling": {"steps": 50, "guidance": 7.5, "image_guidance": 7.5, "eta": 1.0},
        "steps": 50_000,
        "batch_size": 16,
        "gradient_accumulation_steps": 16,
        "gradient_checkpointing": True,
        "still_fraction": 0.0,
        "cluster_fraction": 1.0,
        "num_augmented": 0,
        "fill_caption_dropout": 0.1,
        "curriculum": "adaptive",
        "loss_on_known": True,
        "muon": False,
        "lr": 1e-5,
        "warmup_steps": 0,
        "decay": False,
        "codec": "f8",
    },
    # For every start from a trained model, with or without an adapter: AdamW, as in all papers on tuning.
    "tune": {"muon": False, "lr": 1e-3},
}


def recipe_settings(recipe: str | None = None, **overrides: Any) -> TrainSettings:
    """The settings of a named recipe with some of them replaced. A value of None keeps the recipe's value.

    The default recipe is ``tune`` for a start from a trained model (``start_from``), otherwise ``fast``. Nested
    settings (``model``, ``objective``, ``sampling``) are merged key by key.

    Raises:
        ValueError: unknown recipe or setting, or a value out of range (pydantic names it).
    """
    if recipe is None:
        recipe = "fast" if overrides.get("start_from") is None else "tune"
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe {recipe!r}; choose one of {', '.join(RECIPES)}")
    values = RECIPES[recipe]
    if overrides.get("start_from") is not None:
        values = {name: value for name, value in values.items() if name not in START_DECIDES}
    return changed_settings({"recipe": recipe, **values}, overrides)


def changed_settings(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> TrainSettings:
    """Settings from a dictionary with some of its values replaced, as in :func:`recipe_settings`."""
    values = dict(values)
    for name, value in overrides.items():
        if isinstance(value, dict) and name in ("model", "objective", "sampling"):
            values[name] = {**values.get(name, {}), **value}
        elif value is not None:
            values[name] = value
    return TrainSettings.model_validate(values)
