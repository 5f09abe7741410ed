"""Adapters: layers that are added to a trained network. Only these layers are trained.

A package offers an adapter as an entry point of the group ``rdtf.adapters``::

    [project.entry-points."rdtf.adapters"]
    my-adapter = "my_package.module:MyAdapter"
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rdtf.files import write_bytes
from rdtf.model.dfgn import DFGN, TextContext
from rdtf.saved_module import SavedModule, register_to_config

ENTRY_POINTS = "rdtf.adapters"
"""The group of entry points in which adapters are found."""


class Adapter(ABC):
    """Layers added to a network, in place.

    After the constructor only the added parameters require gradients. A new adapter does not change the network's
    output, unless its class says so.

    Attributes:
        name: the name of its entry point.
        has_stages: whether :meth:`on_step` changes which parameters require gradients.
        start: noise level in (0, 1] at which sampling starts from noised :meth:`init_latents`; None = from pure noise.
        network: the adapted network.
    """

    name: ClassVar[str]
    has_stages: ClassVar[bool] = False
    start: float | None = None

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        before = {id(parameter) for parameter in network.parameters()}
        network.requires_grad_(False)
        self.inject()
        self._names = [name for name, parameter in network.named_parameters() if id(parameter) not in before]
        for parameter in self.trainable_parameters.values():
            parameter.requires_grad_(True)

    @abstractmethod
    def inject(self) -> None:
        """Add the layers to ``self.network``."""

    @property
    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The added parameters, by their names in the network."""
        return {name: self.network.get_parameter(name) for name in self._names}

    def on_step(self, progress: float) -> None:  # noqa: B027 (most adapters have one stage)
        """Called before each training step with the progress of the training, 0 to 1."""

    @property
    def stills_only(self) -> bool:
        """Whether the next step trains on single frames."""
        return False

    def init_latents(self, image: Float[Tensor, "c h w"], generator: torch.Generator) -> Float[Tensor, "c h w"]:
        """Clean latents from which every frame starts, of ``image``, the latents of the first given frame."""
        return image

    def save(self, file: Path) -> None:
        """Write the added parameters as safetensors."""
        write_bytes(file, save({name: p.detach().cpu().contiguous() for name, p in self.trainable_parameters.items()}))

    def load(self, file: Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file cannot be read, or its parameters belong to another adapter, options or network.
        """
        try:
            saved = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} cannot be read as safetensors ({error})") from error
        own = self.trainable_parameters
        shapes, found = ({name: t.shape for name, t in tensors.items()} for tensors in (own, saved))
        if unequal := sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name)):
            raise ValueError(
                f"{file} does not fit {self.name} on this network: {len(unequal)} parameters are missing, unknown or "
                f"of another shape, for example {unequal[0]}"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(saved[name])

    def merge(self) -> nn.Module:
        """Fold the adapter into the network's weights.

        Returns:
            the network, with the same layers as before it was adapted.

        Raises:
            ValueError: the adapter's layers cannot be folded.
        """
        raise ValueError(f"{self.name} adds layers that cannot be folded into the network's weights; keep it attached")


@cache
def _offered() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if found.setdefault(point.name, point).value != point.value:
            raise ValueError(f"two installed packages offer an adapter {point.name}; uninstall one of them")
    return found


def adapter_names() -> tuple[str, ...]:
    """Names of the adapters of all installed packages. No adapter is loaded."""
    return tuple(sorted(_offered()))


def adapter_class(name: str) -> type[Adapter]:
    """Load an adapter.

    Raises:
        ValueError: no installed package offers it, or it needs a package that is not installed.
    """
    if name not in _offered():
        raise ValueError(f"unknown adapter {name!r}; installed are {', '.join(adapter_names()) or 'none'}")
    try:
        return _offered()[name].load()
    except ImportError as error:
        raise ValueError(f"the adapter {name} cannot be loaded ({error}); install what it needs") from error


def add_adapter(network: nn.Module, name: str, **options: Any) -> Adapter:
    """Add a named adapter to a network, in place.

    Args:
        options: arguments of the adapter's class.

    Raises:
        ValueError: an unknown adapter or option, an option out of range, or a network that does not fit.
    """
    adapter = adapter_class(name)
    possible = [option for option in inspect.signature(adapter).parameters if option != "network"]
    if unknown := sorted(options.keys() - set(possible)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(possible) or 'none'}")
    return adapter(network, **options)


class AdaptedDFGN(SavedModule):
    """A :class:`~rdtf.model.DFGN` with an adapter, saved and loaded as one model. It is called like a DFGN.

    Args:
        network: arguments of the DFGN.
        tune, tune_options: name and options for :func:`add_adapter`.

    Attributes:
        dfgn: the network.
        adapter: its adapter.
    """

    @register_to_config
    def __init__(self, network: dict[str, Any], tune: str, tune_options: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.dfgn = DFGN(**network)
        self.adapter = add_adapter(self.dfgn, tune, **(tune_options or {}))

    @classmethod
    def around(cls, network: DFGN, tune: str, tune_options: Mapping[str, Any]) -> AdaptedDFGN:
        """Adapt an existing network, in place.

        Raises:
            ValueError: as :func:`add_adapter`.
        """
        with torch.device("meta"):  # only the configuration of this network is used; it takes no memory
            adapted = cls(network=dict(network.config), tune=tune, tune_options=dict(tune_options))
        adapted.dfgn, adapted.adapter = network, add_adapter(network, tune, **tune_options)
        return adapted

    def text_context(self, states: Tensor, mask: Tensor) -> TextContext:
        """See :meth:`rdtf.model.DFGN.text_context`."""
        return self.dfgn.text_context(states, mask)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """See :meth:`rdtf.model.DFGN.forward`."""
        return self.dfgn(*args, **kwargs)


def adapter_of(network: nn.Module) -> Adapter | None:
    """The adapter of a pipeline's network, if it has one."""
    return network.adapter if isinstance(network, AdaptedDFGN) else None


def without_adapter(network: nn.Module) -> DFGN:
    """The DFGN of a pipeline's network, with the layers of its adapter."""
    plain = network.dfgn if isinstance(network, AdaptedDFGN) else network
    assert isinstance(plain, DFGN)
    return plain
