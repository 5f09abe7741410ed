"""LoRA (arXiv 2106.09685) on the linear layers of attentions, through peft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn

from rdtf.model.adapter import Adapter
from rdtf.research.adapters.networks import attention_projections, units

Where = Literal["all", "spatial", "temporal"]


class LoRA(Adapter):
    """Low-rank residuals ``W = W0 + B A`` on queries, keys, values and output of attentions; B starts at zero.

    Our networks compute queries, keys and values with one linear layer, so the three share A. ``where="temporal"`` on a
    ``UNetMotionModel`` is AnimateDiff's MotionLoRA.

    Args:
        rank: rank of the residuals.
        where: ``all`` attentions (as in MotionDirector, arXiv 2310.08465), ``spatial`` (within a frame and to the text)
            or ``temporal`` (between frames).

    Raises:
        ValueError: peft is not installed, rank below 1, or the network has no such attention.
    """

    name = "lora"

    def __init__(self, network: nn.Module, rank: int = 16, where: Where = "all") -> None:
        if rank < 1 or where not in ("all", "spatial", "temporal"):
            raise ValueError(f"lora: rank must be 1 or more and where all, spatial or temporal, not {rank} and {where}")
        self.rank, self.where = rank, where
        super().__init__(network)

    def inject(self) -> None:
        """Add LoRA layers to the chosen projections."""
        next(units(self.network))  # raises for a network of another kind
        names = [
            name
            for name, temporal in attention_projections(self.network).items()
            if self.where == "all" or temporal == (self.where == "temporal")
        ]
        if not names:
            raise ValueError(f"{type(self.network).__name__} has no {self.where} attention for LoRA")
        add_lora(self.network, names, self.rank)

    def merge(self) -> nn.Module:
        """Replace the weights by ``W0 + B A``."""
        fold_lora(self.network, lambda layer: True)
        return self.network


def add_lora(network: nn.Module, names: Sequence[str], rank: int) -> None:
    """Add peft's LoRA layers to the linear layers of these names. Alpha equals the rank, so the factor is 1.

    Raises:
        ValueError: peft is not installed.
    """
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(names))
    peft.inject_adapter_in_model(config, network)


def lora_layers(network: nn.Module) -> dict[str, Any]:
    """peft's LoRA layers by name."""
    kind = _peft().tuners.lora.LoraLayer
    return {name: module for name, module in network.named_modules() if isinstance(module, kind)}


def fold_lora(network: nn.Module, keep: Callable[[Any], bool]) -> None:
    """Replace LoRA layers by plain layers. Residuals are added to the weights if ``keep`` is true for the layer."""
    for name, layer in lora_layers(network).items():
        if keep(layer):
            layer.merge()
        network.set_submodule(name, layer.get_base_layer())
    del network.peft_config


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError("LoRA needs peft; install it with pip install rdtf[adapters]") from error
    return peft
