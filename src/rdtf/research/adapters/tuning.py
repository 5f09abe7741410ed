"""The contract of all ways of tuning."""

from __future__ import annotations

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rdtf.research.adapters.clip_context import CurrentClips

_CLASSES = {
    "full": "Full",
    "lora": "LoRA",
    "customize-a-video": "CustomizeAVideo",
    "i2v-adapter": "I2VAdapter",
    "simda": "SimDA",
    "motion-modules": "MotionModules",
}
BASELINES = tuple(_CLASSES)
"""Names for :func:`attach`; each has a file of its own, of this name."""


class Tuning(ABC):
    """A network that is tuned in one of the ways, in place.

    At the start the network computes what it did, and nothing but the method's own parameters wants a gradient.

    Attributes:
        name: of the method.
        network: what is tuned.
        clips: what the method's layers know of the current pass.
    """

    name: ClassVar[str]

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.clips = CurrentClips(network)
        before = {id(parameter) for parameter in network.parameters()}
        network.requires_grad_(False)
        self._build()
        self._names = [
            name for name, parameter in network.named_parameters() if id(parameter) not in before or self._owns(name)
        ]
        for parameter in self.own.values():
            parameter.requires_grad_(True)

    @property
    def own(self) -> dict[str, nn.Parameter]:
        """The method's own parameters by their names in the network (which may have been given others since)."""
        return {name: self.network.get_parameter(name) for name in self._names}

    @abstractmethod
    def _build(self) -> None:
        """Add the method's layers to the network."""

    def _owns(self, name: str) -> bool:
        """Whether a parameter that was there before is one of the method's own."""
        return False

    def parameters(self) -> Iterator[nn.Parameter]:
        """The method's own."""
        return iter(self.own.values())

    @property
    def stills_only(self) -> bool:
        """Whether training is to show single frames for now."""
        return False

    def advance(self, progress: float) -> None:  # noqa: B027 (most methods have one stage)
        """Told before each step how much of the training is done, 0 to 1; for methods with several stages."""

    @property
    def start_level(self) -> float:
        """The noise level that sampling from a given frame starts at, in 0..1."""
        return 1.0

    def prior(self, image: Float[Tensor, "c h w"], generator: torch.Generator) -> Float[Tensor, "c h w"] | None:
        """What every frame is taken to be where sampling from a given frame starts, noise added; None for noise alone.

        Args:
            image: latents of the first given frame.
        """
        return None

    def state_dict(self) -> dict[str, Tensor]:
        """The method's own parameters."""
        return {name: parameter.detach() for name, parameter in self.own.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them over.

        Raises:
            ValueError: they are of another method, of other options or of another network.
        """
        missing, unknown = self.own.keys() - state.keys(), state.keys() - self.own.keys()
        misfits = [name for name in self.own.keys() & state.keys() if self.own[name].shape != state[name].shape]
        if missing or unknown or misfits:
            example = sorted([*missing, *unknown, *misfits])[0]
            raise ValueError(
                f"these weights do not fit {self.name} on this network: {len(missing)} are missing, {len(unknown)} "
                f"unknown, {len(misfits)} of another shape, for example {example}"
            )
        with torch.no_grad():
            for name, parameter in self.own.items():
                parameter.copy_(state[name])

    def save(self, file: Path) -> None:
        """Write the method's own parameters as safetensors."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, file, metadata={"tuning": json.dumps(self.name)})

    def load(self, file: Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: it cannot be read, or does not fit.
        """
        try:
            with safe_open(file, "pt") as opened:
                state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} cannot be read as safetensors ({error})") from error
        self.load_state_dict(state)

    def merge(self) -> nn.Module:
        """Fold the method into the network's own weights, for good.

        Returns:
            the network, of the same layers as before :func:`attach`.

        Raises:
            ValueError: the method adds layers that cannot be folded.
        """
        raise ValueError(f"{self.name} adds layers that cannot be folded into the network's weights; keep it attached")


def attach(network: nn.Module, name: str, **options: Any) -> Tuning:
    """Tune a network in the named way.

    Args:
        network: a :class:`~rdtf.model.DFGN`, or what :func:`~rdtf.research.adapters.load_network` gives.
        name: one of :data:`BASELINES`.
        options: of the method, see the class in its file.

    Raises:
        ValueError: an unknown name or option, an option out of range, or a network that the method does not fit.
    """
    if name not in _CLASSES:
        raise ValueError(f"unknown baseline {name!r}; choose one of {', '.join(BASELINES)}")
    method = getattr(import_module(f"rdtf.research.adapters.{name.replace('-', '_')}"), _CLASSES[name])
    possible = [option for option in inspect.signature(method).parameters if option != "network"]
    if unknown := sorted(options.keys() - set(possible)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(possible) or 'none'}")
    return method(network, **options)
