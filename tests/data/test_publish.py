"""Published datasets: what goes out comes back, and the card is true and valid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from rdtf import faults
from rdtf.cli import app
from rdtf.data import publish
from rdtf.data.card import hub_licence
from rdtf.data.dataset import StickerDataset
from rdtf.data.prepare import prepare
from rdtf.data.publish import export
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker
from rdtf.world import draw_sticker
from tests.data.test_prepare import settings

TIMES = [1000 / 60, 1000 / 24, 33.0, 7.5, 1000 / 9, 2550 / 40, 1.0, 4000.0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stills and animations in all splits, with times that are no whole milliseconds, several captions, a copy."""
    root = tmp_path_factory.mktemp("publish")
    lines: list[dict[str, Any]] = []
    for index in range(14):
        drawn = draw_sticker(5, index, size=16)
        durations = np.resize(np.roll(TIMES, index), len(drawn))
        name = f"s{index:02}.png" if index % 2 else f"s{index:02}.webp"
        save_sticker(Sticker(drawn.frames, durations), root / "set" / name)
        lines.append({"file_name": name, "split": ["train", "train", "val", "test"][index % 4]})
        lines[-1] |= {"caption": drawn.caption, "caption_zh": f"贴纸 {index}", "mood": [index, None], "tag": "x|<b>"}
    lines[0] |= {"caption": "", "caption_zh": "", "license": "CC BY 4.0"}
    shutil.copy(root / "set" / "s03.png", root / "set" / "twin.png")
    shutil.move(root / "set" / "s00.webp", root / "set" / "0000.webp")
    lines[0]["file_name"] = "0000.webp"  # nothing to make a caption of
    (root / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (root / "other").mkdir()
    save_sticker(draw_sticker(6, 1, size=16), root / "other" / "😀.png")
    (root / "other" / "metadata.jsonl").write_text(json.dumps({"file_name": "😀.png", "caption": "😀"}), "utf-8")
    prepare([root / "set", root / "other"], root / "data", settings(licenses={"other": "Apache 2.0"}))
    return root / "data"


def rows(data: Path) -> list[dict[str, Any]]:
    """Everything that an export must keep, in an order of its own."""
    dataset = StickerDataset(data)
    found = []
    for index in range(len(dataset)):
        record = dataset.record(index)
        attributes = dict(record.attributes)
        known = {name: getattr(record, name) for name in ("captions", "license", "split", "clusters", "motion")}
        known |= {"source": attributes.pop("source", record.source), "attributes": attributes}
        known |= {"times": record.durations if record.num_frames > 1 else (), "frames": dataset.frames(index)}
        found.append(known)
    return sorted(found, key=lambda row: row["source"])


def test_what_goes_out_comes_back(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "ROWS_PER_FOLDER", 3)
    export(prepared, tmp_path / "out")
    assert len(list(tmp_path.glob("out/*/*/metadata.jsonl"))) == 5
    before = rows(prepared)
    assert len(before) == 15
    again = prepare([tmp_path / "out"], tmp_path / "data", settings())
    assert not again.rejected
    after = rows(tmp_path / "data")
    for one, two in zip(before, after, strict=True):
        assert np.array_equal(one.pop("frames"), two.pop("frames"))
        assert one == two
    assert {row["source"]: row["license"] for row in after}["other/😀.png"] == "Apache 2.0"
    assert {row["captions"] for row in after} >= {("",), ("😀", "grinning face")}
    assert any(len(set(row["times"])) > 3 for row in after)


def test_the_layout_is_an_imagefolder(prepared: Path, tmp_path: Path) -> None:
    export(prepared, tmp_path / "out")
    dataset = StickerDataset(prepared)
    folders = sorted(path for path in tmp_path.glob("out/*/*") if path.is_dir())
    assert [folder.parent.name for folder in folders] == ["test", "train", "validation"]
    fields: set[str] = set()
    seen = 0
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]
        assert sorted(line["file_name"] for line in lines) == sorted(f.name for f in folder.glob("*.png"))
        assert {line["split"] for line in lines} == {folder.parent.name}
        seen += len(lines)
        for line in lines:
            fields.add(json.dumps({key: type(value).__name__ for key, value in line.items()}))
            assert all(type(ms) is float for ms in line["durations"])
            sticker = read_sticker(folder / line["file_name"])
            assert len(sticker) == len(line["durations"])
    assert seen == len(dataset) and len(fields) == 1  # the Hub makes a table of it: every line has the same types


def front_and_text(card: Path) -> tuple[dict[str, Any], str]:
    _, front, text = card.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(prepared, out, title="<script> | stickers")
    front, text = front_and_text(out / "README.md")
    assert front["license"] == ["apache-2.0", "cc-by-4.0", "unknown"]
    assert front["pretty_name"] == "<script> | stickers"
    (config,) = front["configs"]
    files = {entry["split"]: entry["path"] for entry in config["data_files"]}
    assert files == {name: f"{name}/*/*" for name in ("train", "validation", "test")}
    assert all(list(out.glob(pattern)) for pattern in files.values())
    assert "# &lt;script&gt; \\| stickers" in text and "<script>" not in text
    assert "| train | 9 |" in text and "| other | 1 |" in text and "| Apache 2.0 | 1 |" in text
    assert "| duplicate of another sticker | 1 |" in text
    left = [json.loads(line) for line in (out / "left_out.jsonl").read_text("utf-8").splitlines()]
    assert left == [{"file": "set/twin.png", "reason": "duplicate of set/s03.png"}]
    fingerprint = StickerDataset(prepared).fingerprint
    assert fingerprint in text and "size 16" in text


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("CC BY 4.0", "cc-by-4.0"),
        ("Creative thing", "other"),
        ("Apache-2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("CC0", "cc0-1.0"),
        ("MIT license", "mit"),
        ("", "unknown"),
    ],
)
def test_licences_as_the_hub_calls_them(name: str, hub: str) -> None:
    assert hub_licence(name) == hub


def test_an_export_is_whole_or_not_there(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(faults.VARIABLE, "publish.before_rename=raise")
    with pytest.raises(faults.FaultError):
        export(prepared, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv(faults.VARIABLE)
    export(prepared, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folders_of_others_are_left_alone(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").touch()
    with pytest.raises(ValueError, match="not empty; choose a new folder"):
        export(prepared, tmp_path / "mine")
    with pytest.raises(ValueError, match="lie within each other"):
        export(prepared, prepared / "out")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious"]


def test_the_command(prepared: Path, tmp_path: Path) -> None:
    run = CliRunner()
    result = run.invoke(app, ["data", "export", str(prepared), str(tmp_path / "out")])
    assert result.exit_code == 0 and "a card, README.md" in result.stderr, result.output
    result = run.invoke(app, ["data", "export", str(tmp_path), str(tmp_path / "out2")])
    assert result.exit_code == 2 and "holds no prepared dataset" in result.stderr


def test_licences_of_sources(prepared: Path, tmp_path: Path) -> None:
    sources = [prepared.parent / "set", prepared.parent / "other"]
    words = [*map(str, sources), str(tmp_path / "data"), "--size", "16", "--workers", "1"]
    result = CliRunner().invoke(app, ["prepare", *words, "--licence", "MIT", "--licence", "other=CC0 1.0"])
    assert result.exit_code == 0, result.output
    manifest = StickerDataset(tmp_path / "data").manifest
    assert manifest.licenses == {"CC BY 4.0": 1, "CC0 1.0": 1, "MIT": 13}
    assert manifest.settings["licenses"] == {"": "MIT", "other": "CC0 1.0"}
    with pytest.raises(ValueError, match="given for elsewhere, but the sources are called set, other"):
        prepare(sources, tmp_path / "data2", settings(licenses={"elsewhere": "MIT"}))
    with pytest.raises(ValueError, match="needs a name"):
        settings(licenses={"": " "})
