"""The model that the package carries: it loads, is small enough, and makes the stickers that it made when it was saved.

``frozen/shipped.npz`` holds them. ``python tests/test_shipped.py`` writes the file anew for another model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from rdtf import hub
from rdtf.cli import app
from rdtf.io.read import read_sticker
from rdtf.loading import load_pipeline
from rdtf.pipeline import StickerPipeline
from rdtf.provenance import read_made

EXPECTED = Path(__file__).parent / "frozen" / "shipped.npz"
MOST_BYTES = 64 << 20
CAPTIONS = ("red heart", "cat face", "rocket")


@pytest.fixture(scope="module")
def shipped() -> StickerPipeline:
    return load_pipeline(hub.SHIPPED)


def made(pipe: StickerPipeline) -> dict[str, np.ndarray]:
    """Three stickers of words, and the first frame of the second one animated."""
    fits = [pipe.fit(caption).caption for caption in CAPTIONS]
    stickers = {
        name: pipe(fit, num_frames=4, seed=5).stickers[0].frames for name, fit in zip(CAPTIONS, fits, strict=True)
    }
    first = stickers[CAPTIONS[1]][0]
    stickers["animated"] = pipe(frames={0: first}, num_frames=4, seed=6, loop=True).stickers[0].frames
    return stickers


def test_it_makes_the_stickers_that_it_made(shipped: StickerPipeline):
    with np.load(EXPECTED) as expected:
        for name, frames in made(shipped).items():
            away = np.abs(frames.astype(int) - expected[name].astype(int))
            # processors round in other ways, and each step of the sampling adds to it
            assert away.mean() < 1 and np.quantile(away, 0.99) <= 16, name


def test_it_is_small_and_of_this_format_and_knows_its_names(shipped: StickerPipeline):
    files = [path for path in hub.SHIPPED_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert hub.read_config(hub.SHIPPED_FOLDER / hub.INDEX)[hub.FORMAT_KEY] == hub.FORMAT
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".png", ".webp"}
    assert shipped.dtype == torch.float32 and shipped.config.sample_size == 128
    assert shipped.copy_decoder is not None and shipped.config.still_first
    assert shipped.known is not None
    for caption in CAPTIONS:
        assert not shipped.fit(caption).note, caption
    assert "nearest" in shipped.fit("a happy purple dragon").note


def test_its_card_names_the_artists():
    card = (hub.SHIPPED_FOLDER / "README.md").read_text("utf-8")
    for name in ("CC BY 4.0", "MIT", "Google", "Microsoft", "What it cannot do"):
        assert name in card


def test_both_commands_make_transparent_stickers_without_naming_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["generate", "a happy purple dragon", "--frames", "4", "-o", "dragon.webp"])
    assert said.exit_code == 0 and "nearest" in said.output, said.output
    said = CliRunner().invoke(app, ["animate", "dragon.webp", "--frames", "4", "-o", "again.webp"])
    assert said.exit_code == 0 and "no transparent ground" not in said.output, said.output
    for name in ("dragon.webp", "again.webp"):
        sticker = read_sticker(Path(name))
        assert sticker.frames.shape == (4, 128, 128, 4)
        alpha = sticker.frames[..., 3]
        assert 0.03 < (alpha > 128).mean() < 0.97  # neither empty nor full
        assert read_made(Path(name)).model == hub.SHIPPED
    Image.new("RGB", (90, 60), "green").save("photo.jpg")
    said = CliRunner().invoke(app, ["animate", "photo.jpg", "--frames", "2", "--steps", "1", "-o", "photo.webp"])
    assert said.exit_code == 0 and "no transparent ground" in said.output, said.output


if __name__ == "__main__":
    np.savez_compressed(EXPECTED, **made(load_pipeline(hub.SHIPPED)))  # type: ignore[arg-type]
