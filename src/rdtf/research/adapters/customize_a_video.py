"""Customize-A-Video (arXiv 2402.14780): temporal LoRA, trained after an absorber has learned the appearance."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rdtf.model.adapter import Adapter
from rdtf.research.adapters.lora import add_lora, fold_lora, lora_layers
from rdtf.research.adapters.networks import attention_projections, temporal_layers


class CustomizeAVideo(Adapter):
    """Temporal LoRA with an appearance absorber (S-LoRA, LoRA on attention within frames and to the text).

    Stage 1 of training bypasses the temporal layers, and trains the absorber on single frames. Stage 2 freezes the
    absorber, uses the temporal layers, and trains the temporal LoRA. The absorber is not used in evaluation mode.

    Args:
        rank: rank of both LoRAs (4 in the paper's comparisons).
        absorb: fraction of the training that stage 1 takes.

    Raises:
        ValueError: peft is not installed, an option out of range, or a network without temporal attention.
    """

    name = "customize-a-video"
    has_stages = True

    def __init__(self, network: nn.Module, rank: int = 4, absorb: float = 0.3) -> None:
        if rank < 1 or not 0 < absorb < 1:
            raise ValueError(f"customize-a-video: rank is 1 or more, absorb in 0..1, not {rank} and {absorb}")
        self.rank, self.absorb = rank, absorb
        self._absorbing: bool | None = None  # None before the first training step: all parts are active
        super().__init__(network)

    def inject(self) -> None:
        """Add both LoRAs, and a bypass of each temporal layer."""
        targets = attention_projections(self.network)
        if not any(targets.values()):
            raise ValueError(f"{type(self.network).__name__} has no temporal attention, which customize-a-video tunes")
        for layer in temporal_layers(self.network).values():
            layer.forward = Bypass(layer, self)
        add_lora(self.network, list(targets), self.rank)
        layers = lora_layers(self.network)
        self._absorber = [layers[name] for name, temporal in targets.items() if not temporal]
        self._temporal = [layers[name] for name, temporal in targets.items() if temporal]
        for layer in self._absorber:  # not the network: a caption's keys and values are made before its pass
            layer.register_forward_pre_hook(self._switch)

    @property
    def stills_only(self) -> bool:
        """True in stage 1."""
        return self._absorbing is True

    @property
    def bypassed(self) -> bool:
        """Whether the temporal layers are bypassed."""
        return self._absorbing is True and self.network.training

    def on_step(self, progress: float) -> None:
        """Choose the stage, and freeze the parameters of the other one."""
        self._absorbing = progress < self.absorb
        self._mark()

    def _mark(self) -> None:
        for layers, trained in ((self._absorber, self._absorbing is not False), (self._temporal, not self._absorbing)):
            for layer in layers:
                base = set(map(id, layer.get_base_layer().parameters()))
                for parameter in layer.parameters():
                    if id(parameter) not in base:
                        parameter.requires_grad_(trained)

    def _switch(self, layer: Any, _args: Any) -> None:
        """A forward hook of the absorber's layers, which turns them off in evaluation mode."""
        if layer.disable_adapters == self.network.training:
            layer.enable_adapters(self.network.training)
            self._mark()

    def merge(self) -> nn.Module:
        """Fold the temporal LoRA into the weights, and remove absorber and stages."""
        kept = set(map(id, self._temporal))
        for layer in temporal_layers(self.network).values():
            del layer.forward
        fold_lora(self.network, lambda layer: id(layer) in kept)
        return self.network


class Bypass:
    """Replaces the forward of a temporal layer. In stage 1 it returns the input."""

    def __init__(self, layer: nn.Module, tuning: CustomizeAVideo) -> None:
        self.forward, self.tuning = layer.forward, tuning

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The output of the layer, or its first argument."""
        return x if self.tuning.bypassed else self.forward(x, *args, **kwargs)
