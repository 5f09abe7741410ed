"""The scripts in ``examples``: captions by a tiny BLIP of random weights, and by stand-ins."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rdtf.data.find import find_items
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "caption_stickers.py"))
Captioner, caption_folder = SCRIPT["Captioner"], SCRIPT["caption_folder"]


def square(colour: tuple[int, int, int], count: int = 6) -> Sticker:
    frames = np.zeros((count, 16, 16, 4), np.uint8)
    frames[:, 4:12, 4:12] = (*colour, 255)
    for index in range(count):
        frames[index, 0, index] = 255, 255, 0, 255
    return Sticker.at_fps(frames)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for name, colour in {"1.png": (255, 0, 0), "2.png": (0, 255, 0), "sub/3.webp": (0, 0, 255)}.items():
        save_sticker(square(colour), root / name)
    save_sticker(square((9, 9, 9)), f"{root}/4/")
    lines = ['{"file_name": "1.png", "caption": "kept"}', "{broken", '{"file_name": "2.png", "license": "CC0"}']
    (root / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    (root / "metadata.csv").write_text("file_name,artist,split\nsub/3.webp,Me,val\n", "utf-8")
    (root / "bad.gif").write_bytes(b"GIF89a")
    return root


def by_colour(frames: Sequence[Image.Image]) -> str:
    """A captioner that sees."""
    assert 1 <= len(frames) <= 4 and {frame.mode for frame in frames} == {"RGB"}
    assert frames[0].getpixel((383, 383)) == (255, 255, 255)  # on white
    seen = frames[0].getpixel((192, 192))
    return {(0, 255, 0): "a green\nsquare", (0, 0, 255): "a blue square", (7, 7, 7): ""}[seen]  # type: ignore[index]


def test_only_those_without_a_caption_get_one_and_nothing_else_is_lost(folder: Path) -> None:
    before = (folder / "metadata.jsonl").read_text("utf-8")
    save_sticker(square((7, 7, 7)), folder / "dark.png")
    (folder / "sub" / "full.txt").write_bytes(b"caf\xe9")
    save_sticker(square((0, 0, 255)), folder / "sub" / "full.webp")
    results = caption_folder(folder, by_colour)
    assert results.pop("set/bad.gif")
    assert results == {
        "set/2.png": "a green square",
        "set/4": "is not a file of its own; name its caption in a metadata.jsonl",
        "set/dark.png": "",
        "set/sub/3.webp": "a blue square",
        "set/sub/full.webp": "full.txt is there already, and has no caption for it",
    }
    items = {item.name: item.caption for item in find_items(folder, "s").items}
    assert items["s/1.png"].texts == ("kept",)
    assert items["s/2.png"].texts == ("a green square",) and items["s/2.png"].license == "CC0"
    blue = items["s/sub/3.webp"]
    assert blue.texts == ("a blue square",) and blue.split == "val" and blue.attributes == {"artist": "Me"}
    assert (folder / "metadata.jsonl").read_text("utf-8") == before
    assert len(caption_folder(folder, by_colour)) == 4


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP of a few thousand random weights, with its processor."""
    transformers: Any = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("models") / "blip"
    root.mkdir()
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] [DEC] a red cat dog jumps waves happy sad".split()  # noqa: SIM905
    tokenizer = transformers.BertTokenizerFast(vocab={word: index for index, word in enumerate(words)})
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**small, **special, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    config = transformers.BlipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16})
    torch.manual_seed(2)  # one whose words depend on the picture
    model = transformers.BlipForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        model.text_decoder.cls.predictions.bias[:6] = -1e4  # words only
    model.save_pretrained(root)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(root)
    return root


def test_a_captioning_model_of_transformers(blip: Path, folder: Path) -> None:
    model = Captioner(blip)
    red, blue = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (40, 40), (0, 0, 255))
    alone = [model([picture]) for picture in (red, blue)]
    assert all(alone) and alone[0] != alone[1]
    assert model([blue, red, blue]) == alone[1]  # it is said twice
    caption_folder(folder, model)
    assert all((folder / name).read_text("utf-8").strip() for name in ("2.txt", "sub/3.txt"))


def test_a_model_that_is_talked_to_gets_all_frames_and_the_prompt() -> None:
    asked: list[Any] = []

    class Inputs(dict[str, torch.Tensor]):
        def to(self, *args: Any) -> Inputs:
            return self

    def template(messages: Any, **options: Any) -> Inputs:
        asked.append(messages)
        return Inputs(input_ids=torch.tensor([[1, 2, 3]]))

    def decode(tokens: torch.Tensor, **options: Any) -> list[str]:
        return [" ".join(map(str, row.tolist())) for row in tokens]

    model = Captioner.__new__(Captioner)
    model.prompt, model.device = "What is it?", "cpu"
    model.processor = SimpleNamespace(chat_template="{{ x }}", apply_chat_template=template, batch_decode=decode)
    model.model = SimpleNamespace(
        dtype=torch.float32, generate=lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[7, 8]])], 1)
    )
    frames = [Image.new("RGB", (8, 8))] * 3
    assert model(frames) == "7 8"  # the question is not part of the answer
    ((message,),) = asked
    assert [part["type"] for part in message["content"]] == ["image"] * 3 + ["text"]
    assert message["content"][-1]["text"] == "What is it?"
