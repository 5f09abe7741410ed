"""What the tests share: one thread, a tiny network with nothing left at zero, the folder of real stickers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch

from rdtf.codec import load_codec
from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.diffusion.objective import Objective
from rdtf.io.write import save_sticker
from rdtf.model import DFGN
from rdtf.pipeline import StickerPipeline
from rdtf.text import BuiltinTextEncoder
from rdtf.world import draw_sticker, vocabulary_named, write_world

# Tests run side by side, and threads would wait for each other most of the time: here, and in processes that are begun.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# What is compared bit by bit is computed on the processor, also where there is a GPU; test_gpu.py takes that.
os.environ.setdefault("ACCELERATE_USE_CPU", "1")

TINY_NETWORK: dict[str, Any] = {
    "widths": (16, 32),
    "attention": (False, True),
    "sti_pool": (2, 1),
    "sti_heads": 1,
    "head_dim": 16,
    "text_width": 16,
    "condition_width": 8,
    "condition_out": 8,
}


SMALLEST_NETWORK: dict[str, Any] = {**TINY_NETWORK, "widths": (16,), "attention": (True,), "sti_pool": (1,)}
"""One level: for tests of what happens around the network. A step of it takes three quarters of the time."""


def awaken(module: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Give every parameter, zero-initialised exits included, a random value; fresh layers would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return module


LONG = ("tests/train/", "tests/test_readme.py", "tests/research/compare/", "tests/studio/", "tests/test_platforms.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker waits for another at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(autouse=True)
def _same_start() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No types checked at run time, as outside the tests: what a user who gives something else is told."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def make_network() -> Callable[..., DFGN]:
    """A DFGN of a few thousand parameters; ``awake=False`` leaves it as it is constructed."""

    def make(awake: bool = True, **overrides: Any) -> DFGN:
        network = DFGN(**{"latent_channels": 4, **TINY_NETWORK, **overrides})
        return awaken(network) if awake else network

    return make


@pytest.fixture(scope="session")
def make_pipeline(make_network: Callable[..., DFGN]) -> Callable[..., StickerPipeline]:
    """A pipeline around such a network, as trainings put it together; ``options`` are those of ``StickerPipeline``."""

    def make(
        size: int = 16,
        *,
        awake: bool = True,
        network: Mapping[str, Any] = TINY_NETWORK,
        objective: Objective | None = None,
        **options: Any,
    ) -> StickerPipeline:
        objective = objective or Objective()
        factor = objective.clean_factor or 0.0
        return StickerPipeline(
            make_network(awake, **network, latent_channels=16, residual_to_known=factor),
            load_codec("pixel2"),
            awaken(BuiltinTextEncoder(width=16, buckets=64, table_width=8)),
            objective.make_scheduler(),
            size,
            prediction=objective.prediction,
            **{"steps": 1, **options},
        )

    return make


@pytest.fixture(scope="session")
def split_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of 20 stickers of 16 px, some to train on and some held out in ``val``."""
    folder = tmp_path_factory.mktemp("split")
    write_world(folder / "world", 20, 3, size=16)
    prepare([folder / "world"], folder / "data", PrepareSettings(size=16, splits=(0.6, 0.4, 0.0), workers=1))
    return folder / "data"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of 20 stickers of 16 px, all in ``train``: some stills, some that may not be mirrored."""
    folder = tmp_path_factory.mktemp("stickers")
    rows, moving, stills, index = [], 0, 0, 0
    while moving < 14 or stills < 6:
        sticker = draw_sticker(1, index, size=16, vocabulary=vocabulary_named("small"))
        index += 1
        still = len(sticker) == 1
        if (stills >= 6) if still else (moving >= 14):
            continue
        moving, stills = moving + (not still), stills + still
        name = f"{len(rows):02}.png"
        save_sticker(sticker, folder / name)
        side = ", looking left" if len(rows) % 4 == 0 else ""
        rows.append({"file_name": name, "caption": sticker.caption + side})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = tmp_path_factory.mktemp("prepared") / "data"
    prepare([folder], data, PrepareSettings(size=16, splits=(1.0, 0.0, 0.0), workers=1))
    return data


@pytest.fixture(scope="session")
def real_stickers() -> Path:
    """The folder of real stickers, or a skip."""
    folder = Path(os.environ.get("RDTF_STICKERS", Path(__file__).parents[2] / "shared" / "stickers"))
    if not folder.is_dir():
        pytest.skip(f"no real stickers at {folder}; set RDTF_STICKERS")
    return folder
