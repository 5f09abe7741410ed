"""Model folders of strangers: nothing in them runs, and what is wrong with them is one sentence, at once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from rdtf import hub
from rdtf.cli import app
from rdtf.codec import load_codec
from rdtf.loading import load_pipeline
from rdtf.pipeline import StickerPipeline
from rdtf.provenance import fingerprint, read_made
from rdtf.studio.maker import Models
from rdtf.text import load_text_encoder
from rdtf.train.network import load_start
from rdtf.train.settings import recipe_settings

WEIGHTS = hub.WEIGHTS


@pytest.fixture(scope="module")
def saved(make_pipeline: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    make_pipeline(8).save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def reweigh(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


CODE = "import pathlib\npathlib.Path('ran').touch()\n"
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another pipeline": (lambda m: edit(m / "model_index.json", _class_name="StableDiffusionPipeline"), "_index"),
    "a pipeline of code": (lambda m: edit(m / "model_index.json", _class_name=["mine", "Pipeline"]), "_index"),
    "a part of code": (lambda m: edit(m / "model_index.json", dfgn=["mine", "DFGN"]), "not allowed"),
    "another class": (lambda m: edit(m / "model_index.json", dfgn=["diffusers", "UNet2DModel"]), "not allowed"),
    "one part more": (lambda m: edit(m / "model_index.json", safety=["diffusers", "UNet2DModel"]), "safety"),
    "a part that is a number": (lambda m: edit(m / "model_index.json", codec=3), "not allowed"),
    "huge pictures": (lambda m: edit(m / "model_index.json", sample_size=8192), "sample_size"),
    "a size that is a list": (lambda m: edit(m / "model_index.json", sample_size=[8]), "sample_size"),
    "a size that does not divide": (lambda m: edit(m / "model_index.json", sample_size=9), "sample_size"),
    "an unknown prediction": (lambda m: edit(m / "model_index.json", prediction="noise"), "prediction"),
    "guidance that is not finite": (lambda m: edit(m / "model_index.json", guidance=float("nan")), "guidance"),
    "no steps": (lambda m: edit(m / "model_index.json", steps=0), "steps"),
    "a later format": (lambda m: edit(m / "model_index.json", _rdtf_format=hub.FORMAT + 1), "later rdtf.*Update rdtf"),
    "a format that is no number": (lambda m: edit(m / "model_index.json", _rdtf_format="new"), "no format number"),
    "steps that are no integer": (lambda m: edit(m / "model_index.json", steps=2.5), "steps is .2.5.*valid integer"),
    "no size": (lambda m: edit(m / "model_index.json", sample_size=None), "sample_size is 'None'"),
    "a number of many digits": (lambda m: (m / "model_index.json").write_text(f'{{"a": {"9" * 5000}}}'), "is no JSON"),
    "a pipe": (lambda m: pipe(m / "dfgn" / "config.json"), "is no regular file"),
    "weights in a pipe": (lambda m: pipe(m / "dfgn" / WEIGHTS), "is no regular file"),
    "no JSON": (lambda m: cut(m / "dfgn" / "config.json"), "dfgn/config.json is no JSON"),
    "a list for an object": (lambda m: (m / "dfgn" / "config.json").write_text("[]"), "no JSON object"),
    "a configuration of 2 MB": (lambda m: (m / "dfgn" / "config.json").write_text(" " * (1 << 21)), "larger than"),
    "no configuration": (lambda m: (m / "codec" / "config.json").unlink(), "codec/config.json cannot be read"),
    "many layers": (lambda m: edit(m / "dfgn" / "config.json", layers=100_000), "larger network"),
    "wide layers": (lambda m: edit(m / "dfgn" / "config.json", widths=[1 << 20, 1 << 20]), "does not fit|can be built"),
    "negative widths": (lambda m: edit(m / "dfgn" / "config.json", widths=[-16, 32]), "can be built"),
    "pools of 0": (lambda m: edit(m / "dfgn" / "config.json", sti_pool=[0, 0]), "sti_pool.*must be 1 or more"),
    "no residual": (lambda m: edit(m / "dfgn" / "config.json", residual_to_known=float("nan")), "in -1..1"),
    "widths of text": (lambda m: edit(m / "dfgn" / "config.json", widths="wide"), "can be built"),
    "an unknown argument": (lambda m: edit(m / "dfgn" / "config.json", magic=1), "no argument 'magic'"),
    "many buckets": (lambda m: edit(m / "text_encoder" / "config.json", buckets=1 << 40), "does not fit|can be built"),
    "no weights": (lambda m: (m / "dfgn" / WEIGHTS).unlink(), "cannot be read as safetensors"),
    "cut weights": (lambda m: cut(m / "dfgn" / WEIGHTS), "cannot be read as safetensors"),
    "a pickle": (lambda m: (m / "dfgn" / WEIGHTS).rename(m / "dfgn" / "diffusion_pytorch_model.bin"), "safetensors"),
    "a tensor less": (lambda m: reweigh(m / "dfgn" / WEIGHTS, dict.popitem), "is missing, expected"),
    "a tensor more": (lambda m: reweigh(m / "dfgn" / WEIGHTS, lambda t: t.update(x=torch.ones(2))), "expected none"),
    "whole numbers": (
        lambda m: reweigh(m / "dfgn" / WEIGHTS, lambda t: t.update({n: v.long() for n, v in t.items()})),
        "is of the type torch.int64",
    ),
    "not finite": (
        lambda m: reweigh(m / "dfgn" / WEIGHTS, lambda t: next(iter(t.values())).fill_(torch.nan)),
        "finite",
    ),
    "infinite text": (
        lambda m: reweigh(m / "text_encoder" / WEIGHTS, lambda t: next(iter(t.values())).fill_(torch.inf)),
        "finite",
    ),
    "a scheduler without end": (
        lambda m: edit(m / "scheduler" / "scheduler_config.json", num_train_timesteps=1 << 40),
        "num_train_timesteps",
    ),
    "no scheduler": (lambda m: shutil.rmtree(m / "scheduler"), "scheduler_config.json cannot be read"),
}


@pytest.mark.parametrize("name", [name for name in HOSTILE if hasattr(os, "mkfifo") or "pipe" not in name.split()])
def test_a_damaged_or_hostile_model_is_refused_in_a_sentence(name: str, model: Path, monkeypatch: pytest.MonkeyPatch):
    change, says = HOSTILE[name]
    for folder in (model, model / "dfgn"):
        (folder / "mine.py").write_text(CODE)
    change(model)
    monkeypatch.chdir(model.parent)
    began = time.process_time()
    with pytest.raises(ValueError, match=says) as caught:
        load_pipeline(model)
    assert time.process_time() - began < 2
    assert "\n" not in str(caught.value) and str(model) in str(caught.value)
    assert "trust" not in str(caught.value) and not Path("ran").exists()


def test_a_sound_model_loads_and_names_its_format(model: Path, tmp_path: Path):
    index = json.loads((model / hub.INDEX).read_text())
    assert index[hub.FORMAT_KEY] == hub.FORMAT
    assert index["text_encoder"] == ["rdtf.text", "BuiltinTextEncoder"]  # wherever the class stands
    del index[hub.FORMAT_KEY]  # as older versions saved it
    (model / hub.INDEX).write_text(json.dumps(index))
    pipeline = load_pipeline(model)
    assert pipeline("a cat", num_frames=2).stickers[0].frames.shape == (2, 8, 8, 4)
    pipeline.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / hub.INDEX).read_text())[hub.FORMAT_KEY] == hub.FORMAT


def test_a_model_whose_numbers_overflow_makes_no_sticker(model: Path):
    reweigh(model / "dfgn" / WEIGHTS, lambda tensors: [tensor.fill_(3e38) for tensor in tensors.values()])
    with pytest.raises(ValueError, match="numbers that are not finite"):
        load_pipeline(model)("a cat", num_frames=1)


def test_a_name_is_a_folder_or_else_a_hub_id(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def download(name: str, **_: Any) -> str:
        asked.append(name)
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    assert hub.find_pipeline("someone/stickers") == model
    assert isinstance(load_pipeline("someone/stickers"), StickerPipeline)
    assert asked == ["someone/stickers"] * 2
    shutil.copytree(model, tmp_path / "runs" / "mine" / "pipeline")
    assert hub.find_pipeline("runs/mine") == Path("runs/mine/pipeline")
    for missing in ("runs/other", "./other", "other", "/someone/stickers"):  # a folder is meant, so nothing is asked
        with pytest.raises(ValueError, match="holds no trained model"):
            hub.find_pipeline(missing)
    assert asked == ["someone/stickers"] * 2


def test_the_shipped_model_is_the_default_of_every_command(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A stand-in for the folder in the package, in half precision: found by its name, and where no model is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "SHIPPED_FOLDER", tmp_path / "package" / "shipped")
    said = CliRunner().invoke(app, ["generate", "a cat"])
    assert said.exit_code == 2 and "carries no model of its own" in said.output
    assert Models([], tmp_path).names() == []

    load_pipeline(saved).save_pretrained(hub.SHIPPED_FOLDER, dtype="float16")
    assert {t.dtype for t in load_file(hub.SHIPPED_FOLDER / "dfgn" / WEIGHTS).values()} == {torch.float16}
    pipeline = load_pipeline("shipped")
    assert {p.dtype for part in (pipeline.dfgn, pipeline.text_encoder) for p in part.parameters()} == {torch.float32}
    assert Models([saved], tmp_path).names() == ["shipped", saved.name]
    assert Models([saved], tmp_path).preferred == saved.name
    settings = recipe_settings(start_from="shipped", objective={"prediction": "v_prediction"})
    start = load_start(settings, tmp_path / "run")
    assert start is not None and fingerprint(start) == fingerprint(pipeline)

    (tmp_path / "shipped").mkdir()  # another folder of this name is not taken for it
    for words in (["generate", "a cat", "--frames", "2", "-o", "a.webp"], ["explain", "a.webp", "-o", "b.webp"]):
        said = CliRunner().invoke(app, words)
        assert said.exit_code == 0, said.output
    assert read_made(Path("a.webp")).model == "shipped" and "model: shipped" in said.output
    assert Path("a.webp").read_bytes() == Path("b.webp").read_bytes()
    with pytest.raises(ValueError, match="holds no trained model"):
        load_pipeline(Path("shipped"))  # a path is a folder


def test_weights_that_half_precision_cannot_hold_are_refused(model: Path, tmp_path: Path):
    pipeline = load_pipeline(model)
    with pytest.raises(ValueError, match="float16, bfloat16 or float32, not int8"):
        pipeline.save_pretrained(tmp_path / "half", dtype="int8")
    next(pipeline.dfgn.parameters()).data.fill_(1e5)
    with pytest.raises(ValueError, match=r"too large for torch\.float16"):
        pipeline.save_pretrained(tmp_path / "half", dtype="float16")


def test_a_wheel_carries_the_shipped_model():
    """By the pattern in pyproject.toml and what git ignores, which the wheel's builder leaves out too."""
    tomllib, pathspec = pytest.importorskip("tomllib"), pytest.importorskip("pathspec")
    root = Path(__file__).parents[1]
    target = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert target == {"targets": {"wheel": {"packages": ["src/rdtf"]}}}
    folder = hub.SHIPPED_FOLDER.resolve().relative_to(root)
    assert folder.is_relative_to("src/rdtf")
    ignored = pathspec.GitIgnoreSpec.from_lines((root / ".gitignore").read_text("utf-8").splitlines())
    for name in (hub.INDEX, f"dfgn/{hub.WEIGHTS}", "dfgn/config.json", "README.md", "pictures/best.png"):
        assert not ignored.match_file(folder / name), name


@pytest.mark.parametrize("answer", ['{"auto_map": {"AutoModel": "mine.Model"}, "model_type": "mine"}',
                                    '{"auto\\u005fmap": {"AutoModel": "mine.Model"}, "model_type": "mine"}',
                                    '{"model_type": "bert", "attn_implementation": "owner/kernels"}'])  # fmt: skip
def test_code_of_a_text_model_never_runs(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("transformers")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text(answer)
    (tmp_path / "text" / "mine.py").write_text(CODE)
    save_file({"a": torch.ones(1)}, tmp_path / "text" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whatever anyone answers
    with pytest.raises(ValueError, match="never run"):
        load_text_encoder(str(tmp_path / "text"), 16)
    assert not (tmp_path / "ran").exists()


def test_a_codec_folder_holds_an_autoencoder_or_nothing(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValueError, match="no autoencoder"):
        load_codec(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(ValueError, match="no weights in safetensors"):
        load_codec(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="larger network|can be built"):
        load_codec(tmp_path)
