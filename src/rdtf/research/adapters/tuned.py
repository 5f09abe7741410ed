"""A tuned network as one model: saved and loaded whole, with its tuning attached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from rdtf.model import DFGN
from rdtf.model.dfgn import TextContext
from rdtf.research.adapters.tuning import attach


class TunedDFGN(ModelMixin, ConfigMixin):
    """A :class:`~rdtf.model.DFGN` with a tuning attached; it is called like one.

    Args:
        network: arguments of the network.
        tune, tune_options: name and options for :func:`~rdtf.research.adapters.attach`.

    Attributes:
        dfgn: the tuned network.
        tuning: what was attached.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, network: dict[str, Any], tune: str, tune_options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.dfgn = DFGN(**network)
        self.tuning = attach(self.dfgn, tune, **(tune_options or {}))

    @classmethod
    def around(cls, network: DFGN, tune: str, tune_options: Mapping[str, Any]) -> TunedDFGN:
        """Tune this very network.

        Raises:
            ValueError: as :func:`~rdtf.research.adapters.attach`.
        """
        arguments = {name: value for name, value in network.config.items() if not name.startswith("_")}
        with torch.device("meta"):  # for the configuration: its weights would be thrown away
            tuned = cls(network=arguments, tune=tune, tune_options=dict(tune_options))
        tuned.dfgn, tuned.tuning = network, attach(network, tune, **tune_options)
        return tuned

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> TunedDFGN:
        """As of diffusers, with the weights laid out as in :meth:`rdtf.model.DFGN.from_pretrained`."""
        tuned = super().from_pretrained(*args, **kwargs)
        tuned.load_state_dict({name: tensor.clone() for name, tensor in tuned.state_dict().items()}, assign=True)
        for module in tuned.modules():
            if isinstance(module, nn.Conv2d):  # others, of three dimensions, have no such layout
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return tuned

    def text_context(self, states: Tensor, mask: Tensor) -> TextContext:
        """As the network's own."""
        return self.dfgn.text_context(states, mask)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the network's own."""
        return self.dfgn(*args, **kwargs)
