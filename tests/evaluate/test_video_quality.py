"""DOVER and FAST-VQA from ONNX files with their inputs, and with networks so simple that the answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from rdtf.evaluate.generation import score_generation
from rdtf.evaluate.video_quality import VideoQuality, fragments, load_quality, played

FAST_VQA, FAST_VQA_M = (3, 32, 224, 224), (3, 16, 128, 128)


def write_network(file: Path, inputs: dict[str, tuple[int | str, ...]]) -> Path:
    """Of every view the mean over all but the clips, in a file; as many scores as views."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [4], [1, 2, 3, 4])
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", [name, "axes"], [f"{name}_score"], keepdims=0) for name in inputs],
        "means",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(f"{name}_score", TensorProto.FLOAT, [shape[0]])
            for name, shape in inputs.items()
        ],
        [axes],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
    return file


def write_dover(file: Path) -> Path:
    return write_network(file, {"aes_view": (1, *FAST_VQA), "tech_view": (4, *FAST_VQA)})


def grey(level: int, frames: int = 8, size: int = 16) -> np.ndarray:
    clip = np.full((frames, size, size, 4), level, np.uint8)
    clip[..., 3] = 255
    return clip


def normalised(level: float) -> float:
    """Mean over the channels of a grey as both projects normalise pixels."""
    return float(np.mean([(level - 123.675) / 58.395, (level - 116.28) / 57.12, (level - 103.53) / 57.375]))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_dover_is_fused_as_published(tmp_path: Path) -> None:
    network = VideoQuality(write_dover(tmp_path / "onnx_dover.onnx"))
    found = network.scores(grey(115))
    raw = normalised(115)
    technical, aesthetic = (raw - 0.1107) / 0.07355, (raw + 0.08285) / 0.03774
    assert found == pytest.approx(
        {
            "DOVER": sigmoid(0.6104 * technical + 0.3896 * aesthetic),
            "DOVER technical": sigmoid(technical),
            "DOVER aesthetic": sigmoid(aesthetic),
        },
        abs=1e-3,
    )


@pytest.mark.parametrize(
    ("view", "name", "mean", "deviation"),
    [(FAST_VQA, "FAST-VQA", -0.110198185, 0.04178565), (FAST_VQA_M, "FAST-VQA-M", 0.023889644, 0.030781006)],
)
def test_fast_vqa_is_known_by_its_input(tmp_path: Path, view: tuple, name: str, mean: float, deviation: float) -> None:
    network = VideoQuality(write_network(tmp_path / "any.onnx", {"fragments": ("clips", *view)}))
    assert network.scores(grey(110)) == pytest.approx({name: sigmoid((normalised(110) - mean) / deviation)}, abs=1e-3)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    network = VideoQuality(write_network(tmp_path / "any.onnx", {"fragments": (1, *FAST_VQA)}))
    clear = grey(0)
    clear[..., 3] = 0
    assert network.scores(clear) == network.scores(grey(255))


def test_a_sticker_is_played_at_its_own_speed() -> None:
    # At 15 frames a second every second frame of a video of 30 is the next one.
    assert played(8, 15.0, 32, np.array([0])).tolist() == [[i % 8 for i in range(32)]]
    # Slower, frames stay on, none is left out, and it begins again at its end.
    slow = played(8, 7.5, 32, np.array([0, 2]))
    assert slow[0].tolist() == [i // 2 % 8 for i in range(32)]
    assert slow[1].tolist() == [(i + 1) // 2 % 8 for i in range(32)]


def test_small_pictures_are_looked_at_whole_and_once() -> None:
    picture = torch.arange(224.0 * 224).reshape(1, 1, 224, 224)
    rng = np.random.default_rng(0)
    assert np.array_equal(fragments(picture, 224, 224, rng), picture.numpy())
    small = torch.zeros(1, 1, 56, 56)
    small[..., 40:, 40:] = 255.0  # the lower right corner, of which the published code sees nothing
    made = fragments(small, 224, 224, rng)
    assert made[0, 0, 200, 200] == 255 and made[0, 0, 20, 20] == 0
    assert made.mean() == pytest.approx(small.mean().item(), rel=0.1)


def test_pieces_of_large_pictures_are_from_their_cells() -> None:
    rows = torch.arange(500.0).reshape(1, 1, 500, 1).expand(1, 2, 500, 700)
    made = fragments(rows, 224, 224, np.random.default_rng(0))
    for row in range(7):
        piece = made[0, :, 32 * row : 32 * row + 32]
        assert piece.min() >= 71 * row and piece.max() < 71 * (row + 1)
        assert np.array_equal(piece[0], piece[1])  # at the same place in all frames
        assert (np.diff(piece[0], axis=0) == 1).all()
    assert not np.array_equal(made, fragments(rows, 224, 224, np.random.default_rng(1)))


def test_a_folder_of_them_beside_the_real_ones(tmp_path: Path) -> None:
    write_dover(tmp_path / "onnx_dover.onnx")
    write_network(tmp_path / "fast.onnx", {"fragments": (1, *FAST_VQA_M)})
    networks = load_quality(tmp_path)
    assert {network.name for network in networks} == {"DOVER", "FAST-VQA-M"}
    scores = score_generation([grey(120), grey(121)], [grey(110), grey(111)], quality=networks)
    for name in ("DOVER", "DOVER technical", "DOVER aesthetic", "FAST-VQA-M"):
        assert scores[name].value > scores[f"real {name}"].value and scores[name].n == 2


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \.onnx file; export DOVER with its convert_to_onnx\.py"):
        load_quality(tmp_path)
    (tmp_path / "torn.onnx").write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"torn\.onnx is no ONNX file that can be loaded"):
        load_quality(tmp_path)
    (tmp_path / "torn.onnx").unlink()
    write_network(tmp_path / "other.onnx", {"picture": (1, 3, 1, 224, 224)})
    with pytest.raises(ValueError, match=r"other\.onnx is neither DOVER .* its inputs are \{'picture'"):
        load_quality(tmp_path)
    (tmp_path / "other.onnx").unlink()
    write_dover(tmp_path / "a.onnx")
    write_dover(tmp_path / "b.onnx")
    with pytest.raises(ValueError, match="holds DOVER twice; leave one"):
        load_quality(tmp_path)
