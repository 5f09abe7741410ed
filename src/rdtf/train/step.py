"""The optimiser step: network, batches, loss, optimisers and averages on one or more devices, and its log line.

:mod:`rdtf.train.run` has the rest of a run: folder, checkpoints, log, previews and signals.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rdtf.batch import ClipBatch
from rdtf.codec import load_codec
from rdtf.curriculum import Curriculum, SampleLoss
from rdtf.data.dataset import StickerDataset
from rdtf.faults import reach
from rdtf.masks import Task, loss_mask, masked_mean, weighted_loss
from rdtf.pipeline import StickerPipeline
from rdtf.rng import torch_rng
from rdtf.train.checkpoint import Checkpoint, checkpoints, load_optimizer_tensors, optimizer_tensors, part_like, whole
from rdtf.train.cuda_graphs import RecordedPasses
from rdtf.train.devices import Devices
from rdtf.train.hardware import choose_precision, keep_freed_memory, set_threads
from rdtf.train.latents import LatentCache, cache_folder
from rdtf.train.network import Network, build_network, load_start
from rdtf.train.optim import Averages, lr_factor, make_optimizers
from rdtf.train.settings import TrainSettings
from rdtf.train.source import ClipSource, RankSlice, known_captions, unread_captions
from rdtf.train.text_motion import fit_text_motion

_TASKS = list(Task)


class NotFiniteError(ArithmeticError):
    """The loss or the gradient of a step is not finite. The step was not applied.

    Attributes:
        facts: JSON-able details: the step, its seed, and the loss of every clip.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(f"step {facts['step']}: loss {facts['loss']}, gradient norm {facts['grad_norm']}")
        self.facts = facts


class Learner:
    """The state of a training and its optimiser step.

    Args:
        data: prepared dataset. run: folder for latents if the data is read-only.

    Attributes:
        settings: the given settings, with precision and number of threads decided.
        precision_reason: why this precision was chosen.
        step: steps done.
        named: the trained parameters by name.
        known: the names that training shows, for saved pipelines; in the first process.
        unread: a warning about captions that are longer than the text encoder reads, or empty.
        recorded: CUDA graphs of passes of whole batches, on a single GPU; otherwise None.
        base: with an adapter, fingerprint of the frozen weights; otherwise empty.

    Raises:
        ValueError: data, codec, settings and the number of processes do not fit.
    """

    def __init__(self, data: Path, run: Path, settings: TrainSettings) -> None:
        run.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        settings = settings.model_copy(update={"threads": set_threads(settings.threads)})
        self.devices = Devices(stages=settings.has_stages)
        self.device = self.devices.device
        if settings.batch_size < self.devices.count:
            raise ValueError(
                f"{self.devices.count} processes have nothing to share in a batch_size of {settings.batch_size}; "
                "raise it, or start fewer"
            )
        self.rank_slice = RankSlice(self.devices.rank, self.devices.count, settings.gradient_accumulation_steps)
        dataset = StickerDataset(data, "train")
        self.manifest, self.sample_size = dataset.manifest, dataset.size
        start = load_start(settings, run)
        self.codec = start.codec if start else load_codec(settings.codec)
        self.copy_decoder = start.copy_decoder if start else None
        if dataset.size % self.codec.downscale:
            raise ValueError(
                f"{data} holds stickers of {dataset.size} px, and the codec takes multiples of {self.codec.downscale}; "
                "prepare the data with another --size"
            )
        self.net = build_network(settings, self.codec, dataset.size, self.device, start)
        precision, self.precision_reason = str(settings.precision), "the settings say so"
        if precision == "auto":
            precision, self.precision_reason = choose_precision(self.device, max(self.net.plain.config.widths))
        self.bf16 = bool(self.devices.from_first(precision == "bf16"))
        # Saved with the run: a run that is resumed on another machine keeps its precision and number of threads.
        settings = settings.model_copy(update={"precision": "bf16" if self.bf16 else "fp32"})
        self.settings, self.step = settings, 0
        self.base = self.net.frozen_fingerprint() if settings.by_adapter else ""
        self.sharded = self.devices.count > 1 and (settings.fsdp or self.devices.asked_to_shard)
        self.unsharded = copy.deepcopy(self.net) if self.sharded and self.devices.first else self.net
        self.model = self.devices.wrap(self.net, self.sharded)
        self.curriculum = Curriculum(settings.curriculum, settings.task_weights)
        with self.devices.first_goes_ahead():
            latents = LatentCache(dataset, self.codec, cache_folder(data, run), settings.num_augmented)
        # All passes of CUDA graphs must have one shape.
        alike = self.devices.count == settings.gradient_accumulation_steps == 1 and self.net.adapter is None
        recordable = self.device.type == "cuda" and alike and not settings.gradient_checkpointing
        self.recorded = RecordedPasses(self.net) if settings.cuda_graphs and recordable else None
        self.unread, self.known = "", None
        if self.devices.first:
            self.unread = unread_captions(chain.from_iterable(dataset.column("captions")), self.net.text)
            self.known = known_captions(dataset)
        if self.known and start and start.known:
            self.known = start.known.joined(self.known)
        self.source = ClipSource(
            latents,
            self.net.text,
            self.curriculum,
            settings,
            one_batch=self.recorded is not None,
            whole_captioned=self.net.plain.text_motion is not None,
        )
        if settings.add_text_motion and not checkpoints(run / "checkpoints"):
            fit_text_motion(self.net, self.source)

        self.named = {name: parameter for name, parameter in self.net.named_parameters() if parameter.requires_grad}
        self.optimizers = make_optimizers(
            self.named.items(),
            muon=settings.muon,
            lr=settings.lr,
            muon_lr=settings.muon_lr,
            muon_iterations=settings.muon_iterations,
            weight_decay=settings.weight_decay,
            bf16=self.bf16,
        )
        self.ema = Averages(self.named.values(), settings.ema_decay)

    def train_step(self, progress: float) -> dict[str, Any]:
        """One optimiser step, at ``progress`` in 0..1 of the training.

        Returns:
            the log line.

        Raises:
            NotFiniteError: the loss or the gradient is not finite.
        """
        settings = self.settings
        factor = lr_factor(self.step, progress, warmup_steps=settings.warmup_steps, decay=settings.decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        weights = self.curriculum.weights(progress)
        adapter = self.net.adapter
        if adapter is not None:
            adapter.on_step(progress)
        stills = adapter is not None and adapter.stills_only
        batches = [batch.to(self.device) for batch in self.source.batches(self.step, progress, self.rank_slice, stills)]
        reach("data.next")
        frames = int(self.devices.sum(torch.tensor(sum(int(batch.valid.sum()) for batch in batches))))

        # One row for each clip of the whole batch: loss, frames, noise level, unknown frames, task.
        table = torch.zeros(settings.batch_size, 5, dtype=torch.float64)
        passes = self.devices.passes(len(batches), self.model)
        for i in range(passes):
            own = i < len(batches)  # otherwise another process needs this pass, and all must take part in it
            batch = batches[i] if own else batches[-1]
            with self.devices.gradients(self.model, last=i == passes - 1):
                # DDP and FSDP average gradients over the processes. Multiplying by their number gives the sum.
                losses, t = self.backward(batch, frames, self.devices.count if own else 0)
            if own:
                unknown = (batch.valid & ~batch.known).sum(1)
                task = torch.tensor([_TASKS.index(task) for task in batch.tasks])
                columns = [column.cpu().double() for column in (losses, batch.valid.sum(1), t, unknown, task)]
                table[list(batch.positions)] = torch.stack(columns, 1)
        table = self.devices.sum(table)
        total = float((table[:, 0] * table[:, 1]).sum()) / frames
        samples = [
            SampleLoss(_TASKS[int(task)], int(unknown), level, loss) for loss, _, level, unknown, task in table.tolist()
        ]
        reach("step.after_backward")
        norm = float(whole(nn.utils.clip_grad_norm_(self.named.values(), settings.max_grad_norm)))
        if not (math.isfinite(total) and math.isfinite(norm)):
            ids = dict(
                self.devices.gather(
                    [pair for batch in batches for pair in zip(batch.positions, batch.ids, strict=True)]
                )
            )
            clips = [
                {"sticker": ids[i], "stream": f"noise/{i}", **asdict(sample), "loss": str(sample.loss)}
                for i, sample in enumerate(samples)
            ]
            facts = {"step": self.step, "seed": settings.seed, "stream": "clips", "lr_factor": factor}
            raise NotFiniteError(facts | {"loss": str(total), "grad_norm": str(norm), "clips": clips})
        self.update()
        self.curriculum.observe(samples)
        self.step += 1

        by_task: dict[str, list[float]] = defaultdict(list)
        for sample in samples:
            by_task[sample.task.value].append(sample.loss)
        return {
            "step": self.step,
            "loss": round(total, 6),
            "loss_by_task": {name: round(sum(values) / len(values), 6) for name, values in by_task.items()},
            "weights": {task.value: round(weight, 4) for task, weight in weights.items()},
            "difficulty": self.curriculum.difficulty,
            "lr_factor": round(factor, 5),
            "grad_norm": round(norm, 4),
            "stickers": len(samples),
        }

    def backward(self, batch: ClipBatch, frames: int, weight: int = 1) -> tuple[Tensor, Tensor]:
        """One forward and backward pass of clips on this device. Gradients accumulate.

        Args:
            frames: number of frames of all clips of the step. weight: factor of the loss.

        Returns:
            the loss and the noise level of each clip.
        """
        t, eps = self.noise(batch, self.step)
        losses = self.losses(batch, t.to(self.device), eps.to(self.device))
        (weighted_loss(losses, batch.valid, frames) * weight).backward()
        return losses.detach(), t

    def update(self) -> None:
        """Update the weights and their averages, and clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        reach("step.after_opt")
        self.ema.step(self.named.values())

    def noise(self, batch: ClipBatch, step: int) -> tuple[Tensor, Tensor]:
        """Noise levels and noise of a batch. The noise is 0 in padding.

        Each clip has its own random stream, named by its position in the step's whole batch. So its noise does not
        depend on the process or on the other clips of the pass.
        """
        levels, eps = [], torch.zeros(batch.video.shape)
        c, _, h, w = batch.video.shape[1:]
        for i, (position, frames) in enumerate(zip(batch.positions, batch.valid.sum(1).tolist(), strict=True)):
            stream = torch_rng(self.settings.seed, step, f"noise/{position}")
            levels.append(self.settings.objective.draw_t(1, stream))
            eps[i, :, :frames] = torch.randn(frames, c, h, w, generator=stream).movedim(0, 1)
        return torch.cat(levels), eps

    def losses(self, batch: ClipBatch, t: Tensor, eps: Tensor, net: nn.Module | None = None) -> Tensor:
        """The mean error of each clip over the elements of the loss mask, for ``net`` or the trained network."""
        objective = self.settings.objective
        noisy = objective.add_noise(batch.video, eps, t)
        # Autocast caches every weight in bf16 until the pass is over. Gradient checkpointing saves this memory too.
        keep = not self.settings.gradient_checkpointing
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=keep):
            recorded = self.recorded if len(batch) == self.settings.batch_size else None
            output = (net or recorded or self.model)(batch, noisy, objective.timestep(t))
        mask = loss_mask(batch.valid, batch.known, self.settings.loss_on_known)
        return masked_mean(objective.error(output.float(), batch.video, eps, t), mask)

    def pipeline(self, net: Network) -> StickerPipeline:
        """A pipeline of the current modules. They are not copied."""
        sampling = self.settings.sampling.model_dump()
        if sampling["still_first"] is None:
            sampling["still_first"] = self.source.draws_stills_separately
        pipeline = StickerPipeline(
            net.dfgn,
            self.codec,
            net.text,
            self.settings.objective.make_scheduler(),
            self.sample_size,
            prediction=self.settings.objective.prediction,
            copy_decoder=self.copy_decoder,
            **sampling,
        )
        pipeline.known = self.known
        return pipeline

    @contextmanager
    def averaged(self) -> Iterator[Network]:
        """A context with the averaged network in evaluation mode. The first process uses it while the others wait."""
        if self.sharded:
            for name, average in zip(self.named, self.ema.tensors, strict=True):
                full = whole(average)
                if self.devices.first:
                    self.unsharded.get_parameter(name).data.copy_(full)
        else:
            self._swap()
        try:
            yield self.unsharded.eval()
        finally:
            self.unsharded.train()
            if not self.sharded:
                self._swap()
            self.devices.wait()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange weights and averages, one parameter after the other, which needs little memory."""
        for parameter, average in zip(self.named.values(), self.ema.tensors, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Weights, averages and moments in the groups of a checkpoint. The first process gets full tensors."""
        shadow = dict(zip(self.named, self.ema.tensors, strict=True))
        groups: dict[str, dict[str, Tensor]] = {"weights": dict(self.named), "ema": shadow}
        for i, optimizer in enumerate(self.optimizers):
            groups[f"optimizer-{i}"] = optimizer_tensors(optimizer)
        if not self.sharded:
            return groups
        gathered: dict[str, dict[str, Tensor]] = {name: {} for name in groups}
        for group, tensors in groups.items():
            for name, tensor in tensors.items():
                full = whole(tensor)
                if self.devices.first:
                    gathered[group][name] = full.cpu()
        return gathered

    def state(self) -> dict[str, Any]:
        """The state of a step beside its tensors, JSON-able."""
        return {"ema_steps": self.ema.steps, "curriculum": self.curriculum.state_dict()}

    def take(self, checkpoint: Checkpoint) -> None:
        """Restore the state from a checkpoint.

        Raises:
            KeyError, RuntimeError: the checkpoint is of another network or other settings.
        """
        with torch.no_grad():
            for (name, parameter), average in zip(self.named.items(), self.ema.tensors, strict=True):
                parameter.copy_(part_like(checkpoint.tensors["weights"][name], parameter))
                average.copy_(part_like(checkpoint.tensors["ema"][name], average))
        self.ema.steps = checkpoint.state["ema_steps"]
        for i, optimizer in enumerate(self.optimizers):
            load_optimizer_tensors(optimizer, checkpoint.tensors[f"optimizer-{i}"])
        self.curriculum.load_state_dict(checkpoint.state["curriculum"])
        self.step = checkpoint.step

    def bytes(self) -> int:
        """Approximate size of a checkpoint (weights, averages, two moments) and a pipeline (averages)."""
        trained = sum(p.numel() * p.element_size() for p in self.named.values())
        frozen = [parameter for parameter in self.net.parameters() if not parameter.requires_grad]
        frozen += self.codec.parameters() if isinstance(self.codec, nn.Module) else []
        return 5 * trained + sum(p.numel() * p.element_size() for p in frozen)
