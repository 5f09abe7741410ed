"""Names of models, and checks of model folders before anything in them is built.

A name is a shipped model (``shipped``; of codecs and judges ``f4``, ``builtin``), a local folder, or a hub id
(``owner/name``), and is looked for in this order. A hub id is fetched from the Hugging Face Hub.

Folders may come from strangers. Nothing in a folder is run or unpickled: configurations are JSON, weights are
safetensors, classes are in a fixed list. A network is first built on the "meta" device, which takes no memory, and
compared with the header of its weights file. A configuration that asks for gigabytes is thus refused at once.

Importing this module does not import torch, so that a wrong name is answered at once.
"""

from __future__ import annotations

import json
import math
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    M = TypeVar("M", bound=Module)
else:
    Module = Tensor = Any
    M = TypeVar("M")

INDEX = "model_index.json"
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHIPPED = "shipped"
"""Name of the generator that the package carries."""
SHIPPED_FOLDER = Path(__file__).with_name(SHIPPED)
FORMAT = 1
"""Version of saved pipelines. It counts up when an older rdtf cannot load what this one saves."""
FORMAT_KEY = "_rdtf_format"
_CONFIG_BYTES = 1 << 20
_SPARE_TENSORS = 64
_MOST_LABELS = 100_000
_HUB_ID = r"[\w-][\w.-]*/[\w.-]+"
_FETCHED = ["*.json", "*.safetensors", "*.txt", "*.model"]  # the last two belong to tokenizers
_AGAIN = "the model is damaged or incomplete, copy it again"


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder.

    Raises:
        ValueError: the file is missing, damaged, larger than 1 MiB, or no object.
    """
    try:
        if _check_file(path) > _CONFIG_BYTES:
            raise ValueError(f"{path} is larger than a configuration can be; take another model")
        config = _parsed(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {_AGAIN}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no JSON object; {_AGAIN}")
    return config


def _check_file(path: Path) -> int:
    """The bytes of a regular file. To read a pipe or a device may never end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file; take another model")
    return status.st_size


def _check_files(folder: Path) -> None:
    for entry in folder.iterdir():
        if not entry.is_dir():
            _check_file(entry)


def _parsed(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or a number with too many digits
        raise ValueError(f"{path} is no JSON ({str(error).partition(';')[0]}); {_AGAIN}") from None


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """The names and values of all objects within a JSON value."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            yield from inner.items()
            left += inner.values()
        elif isinstance(inner, list):
            left += inner


def find_pipeline(name: Path | str, pause: float = 0.02) -> Path:
    """The folder with the index of a saved pipeline.

    Args:
        name: the text :data:`SHIPPED`, a saved pipeline's folder, a run's folder (which holds one in ``pipeline/``), or
            a hub id. A ``Path`` is always a folder.
        pause: seconds before the second look. A save that replaces the folder takes less.

    Raises:
        ValueError: there is no pipeline, and the hub has none or is not reached.
    """
    if name == SHIPPED:
        if (SHIPPED_FOLDER / INDEX).is_file():
            return SHIPPED_FOLDER
        raise ValueError(
            "this rdtf carries no model of its own; name one with --model (-m): a run's or a saved pipeline's folder. "
            "`rdtf prepare STICKERS DATA` and `rdtf train DATA RUN` make one; `rdtf demo` shows all of it"
        )
    folder = Path(name)
    # A folder ends in .old only while a save replaces it, or after a crash in this moment.
    old = (folder / "pipeline.old", folder.with_name(f"{folder.name}.old"))
    for seconds in (pause, 0.0):
        for candidate in (folder, folder / "pipeline", *old):
            if (candidate / INDEX).is_file():
                return candidate
        time.sleep(seconds)  # the folder may have been renamed between two looks
    if re.fullmatch(_HUB_ID, folder.as_posix()) and not folder.parent.exists():
        folder = fetch(folder.as_posix())
        if (folder / INDEX).is_file():
            return folder
    raise ValueError(f"{name} holds no trained model: expected {INDEX} in it or in {folder / 'pipeline'}")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, as ``safetensors.safe_open`` gives it.

    Raises:
        ValueError: it is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _check_file(path)
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}); {_AGAIN}") from None


def shapes_of(file: Any) -> dict[str, list[int]]:
    """The shapes of the tensors in an opened file, by name."""
    return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)


class _TooManyError(Exception):
    pass


def built(make: Callable[[], M], config: Path, tensors: int) -> M:
    """A network whose tensors have shapes but no memory.

    Args:
        tensors: number of tensors in the weights file. A constructor that makes many more is stopped.

    Raises:
        ValueError: it cannot be built.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook
    from torch.overrides import TorchFunctionMode

    class NoNumbers(TorchFunctionMode):
        """Random numbers without memory are none; drawing them would import torch's compiler, which takes seconds."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            options = kwargs or {}
            initial = getattr(function, "__module__", None) == torch.nn.init.__name__
            if initial or function in (torch.Tensor.normal_, torch.Tensor.uniform_):
                return args[0] if args else options["tensor"]
            return (torch.empty if function is torch.randn else function)(*args, **options)

    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > 2 * tensors + _SPARE_TENSORS:  # an adapter replaces some tensors that a network begins with
            raise _TooManyError

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), NoNumbers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except _TooManyError:
        raise ValueError(f"{config} describes a larger network than its weights file holds; {_AGAIN}") from None
    except Exception as error:  # constructors raise anything for values that make no sense
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{config} describes no network that can be built ({reason}); {_AGAIN}") from None
    finally:
        handle.remove()


def check_foreign(folder: Path, make: Callable[[dict[str, Any]], Module]) -> None:
    """Check a folder of another library: its weights are safetensors, and its network is not larger than they are.

    Args:
        make: the library's network from its configuration.

    Raises:
        ValueError: one of them is not so.
    """
    path = folder / CONFIG
    config = read_config(path)
    _check_files(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder} has no weights in safetensors; other files may hold code and are never read")
    tensors = numbers = 0
    for file in files:
        with opened(file) as weights:
            shapes = shapes_of(weights)
        tensors += len(shapes)
        numbers += sum(math.prod(shape) for shape in shapes.values())
    made = sum(parameter.numel() for parameter in built(lambda: make(config), path, tensors).parameters())
    if made > 2 * numbers + (1 << 20):
        raise ValueError(f"{path} describes a larger network than its weights files hold; {_AGAIN}")


def check_transformers(folder: Path, kinds: Mapping[str, str] | None = None) -> None:
    """Check a folder of the transformers library before that library reads it.

    Args:
        kinds: the class that reads a ``model_type``, where that is not transformers' ``AutoModel``.

    Raises:
        ValueError: it asks for code of its own or for kernels from a hub, has no safetensors, or is too large for them.
    """
    _check_files(folder)
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size <= _CONFIG_BYTES or path.name == "tokenizer_config.json":
            for name, value in _members(_parsed(path)):
                if name == "auto_map":
                    raise ValueError(
                        f"{path} asks for code of its own ({name}), which is never run; take another model"
                    )
                if "attn_implementation" in name and "/" in json.dumps(value):
                    raise ValueError(
                        f"{path} asks for attention kernels from a hub, which are never run; take another model"
                    )
    labels = read_config(folder / CONFIG).get("num_labels", 1)
    if not isinstance(labels, int) or labels > _MOST_LABELS:  # transformers makes a name for each
        raise ValueError(f"{folder / CONFIG}: num_labels is {str(labels)[:40]}, at most {_MOST_LABELS} are expected")
    import transformers

    def make(config: dict[str, Any]) -> Module:
        model_type = str(config.get("model_type"))
        name = (kinds or {}).get(model_type)
        if name is None:
            kind = transformers.CONFIG_MAPPING[model_type]
            return transformers.AutoModel.from_config(kind.from_dict(config))
        loader = getattr(transformers, name)
        return loader(loader.config_class.from_pretrained(folder, local_files_only=True))

    check_foreign(folder, make)


def fetch(name: str) -> Path:
    """A local folder of that name, or the hub's model without code and pickles.

    Raises:
        ValueError: there is no such folder, and the hub has none or is not reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(rf"{_HUB_ID}|[\w-][\w.-]*", name):
        raise ValueError(f"{name!r}: no such folder")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_FETCHED))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name!r}: no such folder, and no model could be fetched from the hub: {error}") from error


def check_finite(module: Module, folder: Path) -> None:
    """Check that all weights are finite numbers.

    Raises:
        ValueError: a weight is not.
    """
    import torch

    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{folder}: {name} holds numbers that are not finite; {_AGAIN}")
