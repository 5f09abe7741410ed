"""The base class of all networks: it records their arguments, and saves and loads them as a folder.

The folder has the layout of diffusers' models: ``config.json`` with the arguments, and the weights in
``diffusion_pytorch_model.safetensors``. Diffusers' own base class imports much of that library, which takes seconds.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rdtf import hub
from rdtf.files import write_bytes, write_text

Self = TypeVar("Self", bound="SavedModule")
Init = TypeVar("Init", bound=Callable[..., None])


class Config(dict[str, Any]):
    """Named values, read as ``config["name"]`` or ``config.name``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no {name!r}; it has {', '.join(self)}") from None

    def save(self, file: Path, class_name: str, **more: Any) -> None:
        """Write it as JSON, with the name of the class that it belongs to, and make the folder."""
        file.parent.mkdir(parents=True, exist_ok=True)
        values = {"_class_name": class_name, **self, **more}
        write_text(file, json.dumps(values, indent=2, sort_keys=True) + "\n")


def register_to_config(init: Init) -> Init:
    """Record the arguments of a constructor, with its defaults, as ``self.config``. The constructor may read them."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        self.config = Config(list(bound.arguments.items())[1:])
        init(self, *args, **kwargs)

    return recorded  # type: ignore[return-value]


class SavedModule(nn.Module):
    """A network with a folder form. Its constructor is decorated with :func:`register_to_config`.

    Attributes:
        config: the arguments it was made with.
    """

    config: Config

    @property
    def device(self) -> torch.device:
        """Of the first tensor."""
        return next(self._tensors()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the first tensor of floating point numbers."""
        return next(tensor.dtype for tensor in self._tensors() if tensor.is_floating_point())

    def _tensors(self) -> Any:
        yield from self.parameters()
        yield from self.buffers()

    def enable_gradient_checkpointing(self) -> None:
        """Compute each level anew on the way back, which saves memory."""
        for module in self.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True  # type: ignore[assignment]

    def save_pretrained(self, save_directory: str | PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Write the folder.

        Args:
            dtype: of the saved weights, by default as they are. Loading gives float32 again.

        Raises:
            ValueError: a weight is too large for ``dtype``.
        """
        from safetensors.torch import save

        folder = Path(save_directory)
        self.config.save(folder / hub.CONFIG, type(self).__name__)
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}
        if dtype is not None:
            for name, tensor in tensors.items():
                if tensor.is_floating_point():
                    tensors[name] = tensor.to(dtype)
                    if not torch.equal(tensors[name].isfinite(), tensor.isfinite()):
                        raise ValueError(f"{name} has numbers too large for {dtype}; save the model without dtype")
        write_bytes(folder / hub.WEIGHTS, save(tensors, metadata={"format": "pt"}))

    @classmethod
    def from_pretrained(cls: type[Self], folder: str | PathLike[str]) -> Self:
        """Load a folder that :meth:`save_pretrained` wrote, in evaluation mode and float32, on the processor.

        The network is first built without memory and compared with the header of the weights file, so that a
        configuration that asks for gigabytes is refused at once (:mod:`rdtf.hub`).

        Raises:
            ValueError: the folder is damaged, of another class, or holds numbers that are not finite.
        """
        folder = Path(folder)
        path, weights = folder / hub.CONFIG, folder / hub.WEIGHTS
        config = hub.read_config(path)
        if config.get("_class_name") != cls.__name__:
            raise ValueError(f"{path} is of class {config.get('_class_name')!r}, and {cls.__name__} is expected")
        arguments = {name: value for name, value in config.items() if not name.startswith("_")}
        if unknown := sorted(arguments.keys() - inspect.signature(cls.__init__).parameters.keys()):
            raise ValueError(f"{path}: {cls.__name__} has no argument {unknown[0]!r}; a newer rdtf may know it")
        with hub.opened(weights) as file:
            found = hub.shapes_of(file)
            module = hub.built(lambda: cls(**arguments), path, len(found))
            wanted = module.state_dict()
            for name in sorted({*wanted, *found}):
                here, there = found.get(name, "missing"), list(wanted[name].shape) if name in wanted else "none"
                if here != there:
                    raise ValueError(f"{weights} does not fit {hub.CONFIG}: {name} is {here}, expected {there}")
            # In the memory layout of a new network. Other layouts are slower, and on some processors round otherwise.
            laid_out = {name: _as(tensor, file.get_tensor(name), weights / name) for name, tensor in wanted.items()}
        module.load_state_dict(laid_out, assign=True)
        hub.check_finite(module, folder)
        return module.eval()


def _as(wanted: Tensor, tensor: Tensor, place: Path) -> Tensor:
    """A float32 copy of ``tensor`` with the strides of ``wanted``."""
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        raise ValueError(f"{place} is of the type {tensor.dtype}, and float16 to float64 are expected")
    return torch.empty_strided(wanted.shape, wanted.stride(), dtype=torch.float32).copy_(tensor)
