"""LoRA (arXiv 2106.09685) on the linear layers of attentions, through peft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from rdtf.model.adapter import Adapter
from rdtf.research.adapters.networks import attention_projections


class LoRA(Adapter):
    """Low-rank residuals ``W = W0 + B A`` on queries, keys, values and output of attentions; B starts at zero.

    Our networks compute queries, keys and values with one linear layer, so the three share A.

    Args:
        rank: rank of the residuals.

    Raises:
        ValueError: peft is not installed, or rank below 1.
    """

    name = "lora"

    def __init__(self, network: nn.Module, rank: int = 16) -> None:
        if rank < 1:
            raise ValueError(f"lora: rank must be 1 or more, not {rank}")
        self.rank = rank
        super().__init__(network)

    def inject(self) -> None:
        """Add LoRA layers to all attentions, as in MotionDirector (arXiv 2310.08465)."""
        add_lora(self.network, list(attention_projections(self.network)), self.rank)

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
