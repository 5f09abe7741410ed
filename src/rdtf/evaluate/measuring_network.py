"""Networks that measure stickers, and the folders that they are saved in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from rdtf.device import best_device
from rdtf.files import write_bytes, write_text

CONFIG, WEIGHTS = "config.json", "model.safetensors"
Self = TypeVar("Self", bound="MeasuringNetwork")


def convolution(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution with batch normalisation and ReLU."""
    conv = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), nn.ReLU())


class MeasuringNetwork(nn.Module):
    """A network whose folder holds its configuration as JSON and its weights as safetensors.

    Attributes:
        config_class: class of the configuration. kind: what errors call the network.
        config: its sizes and names.
    """

    config_class: ClassVar[type[BaseModel]]
    kind: ClassVar[str]
    config: Any

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over configuration and weights (read as float32)."""
        digest = hashlib.sha256(json.dumps(self.config.model_dump(mode="json"), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (float16) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG, self.config.model_dump_json(indent=2) + "\n")
        weights = {name: tensor.detach().half().cpu().contiguous() for name, tensor in self.state_dict().items()}
        write_bytes(folder / WEIGHTS, save(weights))

    @classmethod
    def load(cls: type[Self], folder: Path) -> Self:
        """A saved network, frozen, in float32, on the GPU if there is one.

        Raises:
            ValueError: the folder holds none, or its files are damaged.
        """
        if not (folder / CONFIG).is_file():
            raise ValueError(f"no {cls.kind} in {folder}; give the folder of one")
        try:
            network = cls(cls.config_class.model_validate_json((folder / CONFIG).read_text(encoding="utf-8")))
            weights = load_file(folder / WEIGHTS)
            network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
        except (ValidationError, UnicodeDecodeError, OSError, SafetensorError, RuntimeError) as error:
            raise ValueError(f"{folder}: no {cls.kind} that this version can read ({error}); train one anew") from error
        return network.eval().requires_grad_(False).to(best_device())
