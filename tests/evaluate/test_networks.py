"""Measures by networks from local files, with networks of the same classes and calls and random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rdtf.evaluate.external import ClipScorer, I3d, to_sixteen
from rdtf.pixels import composite


def clips(count: int, frames: int = 8, size: int = 16) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, frames, size, size, 4), np.uint8))


class LikeI3d(nn.Module):
    """The call of the I3D script: scaled as asked, 400 numbers a clip."""

    def __init__(self, outputs: int = 400) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn((outputs, 3 * 16), generator=generator))

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert x.shape[2] == 16 and x.dtype == torch.float32 and return_features and resize
        if rescale:
            x = x / 127.5 - 1
        return x.mean((3, 4)).flatten(1) @ self.weight.T


def test_fvd_features_are_what_the_script_sees(tmp_path: Path) -> None:
    network = LikeI3d()
    torch.jit.script(network).save(str(tmp_path / "i3d.pt"))
    i3d = I3d(tmp_path / "i3d.pt")
    some = clips(11)
    order = [0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1, 0, 1]
    means = np.stack([composite(clip[order], (255, 255, 255)).mean((1, 2)) / 127.5 - 1 for clip in some])  # n t c
    expected = means.transpose(0, 2, 1).reshape(11, -1) @ network.weight.detach().numpy().T
    found = i3d.features(some)
    assert found == pytest.approx(expected, abs=1e-4) and found.dtype == np.float64
    assert len(i3d.sha256) == 64


def test_clips_are_played_forth_and_back() -> None:
    assert to_sixteen(np.arange(3)).tolist() == [0, 1, 2, 1] * 4
    assert to_sixteen(np.arange(1)).tolist() == [0] * 16
    assert to_sixteen(np.arange(16)).tolist() == list(range(16))
    with pytest.raises(ValueError, match="choose which"):
        to_sixteen(np.arange(17))


def test_other_scripts_are_refused(tmp_path: Path) -> None:
    torch.jit.script(LikeI3d(outputs=10)).save(str(tmp_path / "other.pt"))
    with pytest.raises(ValueError, match=r"\(n, 400\) logits, this one \(2, 10\)"):
        I3d(tmp_path / "other.pt").features(clips(2))
    (tmp_path / "broken.pt").write_bytes(b"no script")
    with pytest.raises(ValueError, match=r"broken\.pt is no TorchScript"):
        I3d(tmp_path / "broken.pt")


@pytest.fixture(scope="module", params=["clip", "chinese_clip"])
def clip_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp(request.param)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "cat", "dog"]
    tokenizer = transformers.BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": 10, "max_position_embeddings": 12, "bos_token_id": 2, "eos_token_id": 3}
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    if request.param == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model, images = transformers.CLIPModel(config), transformers.CLIPImageProcessor
    else:
        config = transformers.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model, images = transformers.ChineseCLIPModel(config), transformers.ChineseCLIPImageProcessor
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": 32, "width": 32}
    images(size=side, crop_size=side).save_pretrained(folder)
    return folder


def test_clip_similarity_is_the_models_own(clip_folder: Path) -> None:
    scorer = ClipScorer(clip_folder)
    [clip] = clips(1, frames=3, size=32)
    captions = ["a red cat", "a blue dog"]
    with torch.no_grad():
        whole = scorer.model(
            **scorer.tokenizer(captions, padding=True, return_tensors="pt"),
            **scorer.images(list(composite(clip, (255, 255, 255))), return_tensors="pt"),
        )
    cosines = (whole.logits_per_image / scorer.model.logit_scale.exp()).detach().numpy()
    for i, caption in enumerate(captions):
        assert scorer.clipsim(caption, clip) == pytest.approx(cosines[:, i].mean(), abs=1e-5)
    assert scorer.clipsim(captions[0], clip) != pytest.approx(scorer.clipsim(captions[1], clip), abs=1e-5)


def test_vectors_are_of_length_one(clip_folder: Path) -> None:
    scorer = ClipScorer(clip_folder)
    [clip] = clips(1, frames=3, size=32)
    vectors = scorer.frames(clip)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert scorer.text(["a red cat " * 20]).shape == (1, 8)  # longer than the model reads


def test_a_folder_of_something_else_is_no_clip_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ValueError, match="kind bert, not clip or chinese_clip"):
        ClipScorer(tmp_path)
