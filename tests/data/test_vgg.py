"""VGG-16 as torchvision builds it: names and shapes, features, and what is said of files that do not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rdtf.data.dataset import StickerDataset
from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.data.settings import choose_features
from rdtf.data.vgg import Vgg16, load_vgg16, vgg_features
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker

# Of torchvision's vgg16: place in `features`, and channels in and out.
CONVOLUTIONS = {
    **{0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)},
    **{17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)},
}


def write_weights(path: Path, seed: int = 0, **changes: torch.Tensor | None) -> Path:
    """The whole state of a narrow vgg16, the layers behind the first fully connected one too."""
    torch.manual_seed(seed)
    state = {name: torch.randn_like(value) * 0.2 for name, value in Vgg16(2).state_dict().items()}
    for name, shape in (("3", (128, 128)), ("6", (10, 128))):
        state |= {f"classifier.{name}.weight": torch.randn(shape), f"classifier.{name}.bias": torch.randn(shape[0])}
    state = {name: value for name, value in {**state, **changes}.items() if value is not None}
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("vgg") / "narrow.pth")


def frames(count: int = 5, size: int = 16) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 4), np.uint8)


def test_names_and_shapes_are_torchvisions() -> None:
    expected = {}
    for place, (before, after) in CONVOLUTIONS.items():
        expected[f"features.{place}.weight"] = (after, before, 3, 3)
        expected[f"features.{place}.bias"] = (after,)
    expected |= {"classifier.0.weight": (4096, 25088), "classifier.0.bias": (4096,)}
    with torch.device("meta"):
        network = Vgg16()
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == expected


def test_features_layer_by_layer(weights: Path) -> None:
    """The same worked out from the file's arrays: on white, RGB, ImageNet's normalisation, before the last ReLU."""
    state, seen = torch.load(weights), frames()
    alpha = torch.from_numpy(seen[..., 3:]).float() / 255
    shown = (torch.from_numpy(seen[..., :3]) * alpha + 255 * (1 - alpha)).round() / 255
    maps = F.interpolate(shown.movedim(-1, 1), (224, 224), mode="bilinear")
    mean, spread = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    maps = (maps - mean) / spread
    for place in CONVOLUTIONS:
        maps = F.conv2d(maps, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1).relu()
        if place in (2, 7, 14, 21, 28):
            maps = F.max_pool2d(maps, 2)
    expected = maps.flatten(1) @ state["classifier.0.weight"].T + state["classifier.0.bias"]
    found = vgg_features(seen, weights)
    assert found.shape == (5, 128) and (found < 0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_equal_frames_have_equal_features_and_what_is_transparent_does_not_count(weights: Path) -> None:
    seen = frames(12, 8)[[*range(12), 4, 11, 0]]
    found = vgg_features(seen, weights)
    np.testing.assert_array_equal(found[12:], found[[4, 11, 0]])
    seen[0, :, :, 3] = 0
    empty = vgg_features(seen[:1], weights)
    seen[0, :, :, :3] = 77
    np.testing.assert_array_equal(vgg_features(seen[:1], weights), empty)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features.0.weight": None}, "features.0.weight"),
        ({"features.10.bias": None}, "features.10.bias"),
        ({"features.28.weight": torch.zeros(16, 15, 3, 3)}, "size mismatch for features.28.weight"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, changes: dict[str, torch.Tensor | None], said: str) -> None:
    with pytest.raises(ValueError, match=f"other.pth does not hold torchvision's weights of vgg16(?s:.)*{said}"):
        load_vgg16(write_weights(tmp_path / "other.pth", **changes))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "broken.pth")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match="broken.pth does not hold"):
        load_vgg16(path)


def test_a_pickle_of_anything_else_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(Vgg16(1), path)  # a pickled class, which could run any code
    with pytest.raises(ValueError, match="module.pth does not hold"):
        load_vgg16(path)


def test_the_choice_of_features(weights: Path, tmp_path: Path) -> None:
    assert choose_features("builtin") == {"features": "builtin"}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    chosen = choose_features(f"vgg16:{weights}")
    assert chosen == {"features": f"vgg16:{digest[:16]}", "weights": weights}
    assert str(weights) not in str(PrepareSettings.model_validate(chosen).shaping())
    for spec, said in {
        "vgg19:x": "builtin, or vgg16:FILE",
        "vgg16:": "got 'vgg16:', and no such file",
        "vgg16:no.pth": "got 'vgg16:no.pth'",
    }.items():
        with pytest.raises(ValueError, match=said):
            choose_features(spec)
    with pytest.raises(ValueError, match="weights belong to"):
        PrepareSettings.model_validate({"features": chosen["features"]})


def test_preparing_with_vgg_clusters_by_it_and_other_weights_describe_anew(weights: Path, tmp_path: Path) -> None:
    moving = np.zeros((9, 16, 16, 4), np.uint8)
    for i, frame in enumerate(moving):
        frame[2:8, i : i + 6] = (250, 20 * i, 90, 255)
    (tmp_path / "set").mkdir()
    save_sticker(Sticker(moving, np.full(9, 100.0)), tmp_path / "set" / "moving.png")

    def run(path: Path | None, overwrite: bool = False) -> tuple[str, tuple[tuple[int, ...], ...]]:
        chosen = choose_features(f"vgg16:{path}" if path else "builtin")
        settings = PrepareSettings.model_validate({"size": 16, "workers": 1, "splits": (1, 0, 0), **chosen})
        report = prepare([tmp_path / "set"], tmp_path / "data", settings, overwrite=overwrite)
        return report.plan, StickerDataset(tmp_path / "data").record(0).clusters

    plain = run(None)[1]
    plan, seen = run(weights, overwrite=True)
    assert "features" in plan and "changed: all are read again" in plan
    assert seen != plain
    moved = tmp_path / "moved.pth"
    moved.write_bytes(weights.read_bytes())
    assert "read again" not in run(moved)[0]
    with pytest.raises(ValueError, match="features 'vgg16:.*--overwrite"):
        run(write_weights(tmp_path / "others.pth", seed=1))
