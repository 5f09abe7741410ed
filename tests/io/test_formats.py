"""One test for each row of docs/formats.md that no other module tests: what is kept of a file, whole."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rdtf.data.find import Found, find_items
from rdtf.data.items import Item
from rdtf.io.archives import ARCHIVES
from rdtf.io.read import LEFT_OUT, SUFFIXES, read_sticker
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker, StickerError
from rdtf.world import draw_sticker

from .test_read import lottie, moving_square, write_video

REAL = Path(os.environ.get("RDTF_STICKERS", Path(__file__).parents[3] / "shared" / "stickers"))
DOCS = Path(__file__).parents[2] / "docs" / "formats.md"


def drawn(index: int) -> Sticker:
    """A moving sticker of the built-in world, with times of its own."""
    stickers = (draw_sticker(3, i, size=24) for i in range(100 * index, 100 * index + 100))
    sticker = next(sticker for sticker in stickers if len(sticker) > 3)
    return Sticker(sticker.frames, np.arange(len(sticker)) * 10.0 + 40, sticker.caption)


def encoded(sticker: Sticker, folder: Path, ending: str = "webp") -> bytes:
    path = folder / f".encoded.{ending}"
    save_sticker(sticker, path)
    data = path.read_bytes()
    path.unlink()
    return data


def assert_same(item: Item, sticker: Sticker) -> None:
    back = item.read()
    visible = sticker.frames[..., 3:] > 0
    assert np.array_equal(back.frames, np.where(visible, sticker.frames, 0))
    assert np.allclose(back.durations, sticker.durations)


def by_name(found: Found) -> dict[str, Item]:
    return {item.name: item for item in found.items}


def write_zip(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def png(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(stream, "PNG")
    return stream.getvalue()


# Single files


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt", "tolerance"),
    [
        ("mov", "prores_ks", "yuva444p10le", 6),
        ("mov", "png", "rgba", 0),
        ("mov", "qtrle", "argb", 0),
        ("webm", "libvpx", "yuva420p", 60),
        ("webm", "libvpx-vp9", "yuva420p", 60),
        ("mkv", "libvpx-vp9", "yuva420p", 60),
    ],
)
def test_video_with_alpha(tmp_path: Path, ending: str, codec: str, pix_fmt: str, tolerance: int) -> None:
    options = {"auto-alt-ref": "0"} if "vpx" in codec else {}
    frames = moving_square(6)
    path = write_video(tmp_path / f"a.{ending}", frames, codec=codec, pix_fmt=pix_fmt, **options)
    sticker = read_sticker(path)
    assert sticker.durations.tolist() == [50] * 6
    assert np.abs(sticker.frames[..., 3].astype(int) - frames[..., 3]).max() <= max(tolerance, 6)
    solid = frames[..., 3] == 255
    assert np.abs(sticker.frames[solid].astype(int) - frames[solid]).mean() <= max(tolerance / 6, 0)


def test_mp4_is_opaque(tmp_path: Path) -> None:
    sticker = read_sticker(
        write_video(
            tmp_path / "a.mp4", moving_square(6), codec="mpeg4", pix_fmt="yuv420p", pts=[0, 40, 100, 150, 300, 310]
        )
    )
    assert sticker.frames[..., 3].min() == 255
    assert sticker.durations[:4].tolist() == [40, 60, 50, 150]


def dotlottie(animations: dict[str, dict[str, Any]], folder: str = "animations", **files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({"version": "1", "animations": [{"id": id} for id in animations]}))
        for name, animation in animations.items():
            archive.writestr(f"{folder}/{name}.json", json.dumps(animation))
        for name, data in files.items():
            archive.writestr(f"images/{name}.png", data)
    return stream.getvalue()


def test_dotlottie(tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text(json.dumps(lottie()))
    (tmp_path / "one.lottie").write_bytes(dotlottie({"x": lottie()}))
    (tmp_path / "new.lottie").write_bytes(dotlottie({"x": lottie()}, folder="a"))
    (tmp_path / "two.lottie").write_bytes(dotlottie({"x": lottie(), "late": lottie(ip=10)}))
    items = by_name(find_items(tmp_path, "set"))
    assert sorted(items) == [f"set/{n}" for n in ("new.lottie", "one.lottie", "plain.json", "two.lottie")]
    plain = items["set/plain.json"].read()
    for name in ("set/one.lottie", "set/new.lottie", "set/two.lottie"):
        assert_same(items[name], plain)
    assert "1 further" in items["set/two.lottie"].read().attributes[LEFT_OUT][0]


def test_dotlottie_with_a_picture(tmp_path: Path) -> None:
    picture = np.zeros((20, 20, 4), np.uint8)
    picture[...] = 0, 0, 255, 255
    place = {"p": {"a": 0, "k": [0, 0]}, "a": {"a": 0, "k": [0, 0]}, "s": {"a": 0, "k": [100, 100]}}
    layer = {"ty": 2, "refId": "i", "ind": 1, "ip": 0, "op": 20, "st": 0, "ks": place | {"o": {"a": 0, "k": 100}}}
    asset = {"id": "i", "w": 20, "h": 20, "u": "/images/", "p": "blue.png", "e": 0}
    animation = lottie(layers=[layer], assets=[asset])
    (tmp_path / "a.lottie").write_bytes(dotlottie({"x": animation}, blue=png(picture)))
    sticker = read_sticker(tmp_path / "a.lottie")
    assert sticker.frames[0, 10, 10].tolist() == [0, 0, 255, 255]
    (tmp_path / "without.lottie").write_bytes(dotlottie({"x": animation}))
    with pytest.raises(StickerError, match="outside the file"):
        read_sticker(tmp_path / "without.lottie")


# Stickers of several files


def test_a_folder_of_frames_as_we_write_it(tmp_path: Path) -> None:
    sticker = drawn(0)
    save_sticker(sticker, f"{tmp_path}/set/cat/")
    save_sticker(drawn(1), tmp_path / "set" / "dog.png")
    (tmp_path / "set" / "cat.txt").write_text("a cat", "utf-8")
    found = find_items(tmp_path / "set", "set")
    assert list(by_name(found)) == ["set/cat", "set/dog.png"] and not found.problems
    item = by_name(found)["set/cat"]
    assert item.caption.texts == ("a cat",)
    assert_same(item, sticker)
    few = item.read(size=12, max_frames=2)
    assert few.frames.shape == (2, 12, 12, 4) and few.durations.sum() == pytest.approx(sticker.durations.sum())
    before = item.stamp()
    (tmp_path / "set" / "cat" / "001.png").touch()
    assert item.stamp() != before


def test_frames_of_other_programs(tmp_path: Path) -> None:
    frames = drawn(0).frames[:3]
    folders: dict[str, tuple[list[str], str | None, list[float]]] = {
        "plain": (["frame_8.png", "frame_9.png", "frame_10.png"], None, [100, 100, 100]),
        "ezgif": ([f"frame_{i}_delay-0.{i + 1}s.png" for i in range(3)], None, [100, 200, 300]),
        "x.frames": (["1.png", "2.png", "3.png"], '{"fps": 20}', [50, 50, 50]),
        "timed": (["a (1).png", "a (2).png", "a (3).png"], '{"durations": [30, 40, 0]}', [30, 40, 100]),
    }
    for folder, (names, timing, _) in folders.items():
        (tmp_path / folder).mkdir()
        for name, frame in zip(names, frames, strict=True):
            (tmp_path / folder / name).write_bytes(png(frame))
        if timing:
            (tmp_path / folder / "frames.json").write_text(timing)
    items = by_name(find_items(tmp_path, "set"))
    assert sorted(items) == [f"set/{folder}" for folder in sorted(folders)]
    for folder, (_, _, durations) in folders.items():
        assert_same(items[f"set/{folder}"], Sticker(frames, np.array(durations)))


def test_a_set_of_numbered_stickers_is_no_animation(tmp_path: Path) -> None:
    for name in (
        "a/1.png",
        "a/2.png",
        "cats/cats_1.png",
        "cats/cats_2.png",
        "frames/frame1.png",
        "frames/b/frame2.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(drawn(0).frames[0]))
    assert len(find_items(tmp_path, "set").items) == 6


@pytest.mark.parametrize(
    ("timing", "why"), [("[1, 2]", "2 times for 3 frames"), ('{"a": 1}', "KeyError"), ("{", "timing cannot be used")]
)
def test_frames_with_bad_times(tmp_path: Path, timing: str, why: str) -> None:
    save_sticker(Sticker.at_fps(drawn(0).frames[:3]), f"{tmp_path}/set/a/")
    (tmp_path / "set" / "a" / "durations.json").write_text(timing)
    (item,) = find_items(tmp_path / "set", "set").items
    with pytest.raises(StickerError, match=why):
        item.read()


def test_a_sprite_sheet_is_refused_and_does_not_become_a_still(tmp_path: Path) -> None:
    place = {"frame": {"x": 0, "y": 0, "w": 5, "h": 5}}
    for name, frames in (("list", [place]), ("object", {"a 0.png": place})):
        (tmp_path / f"{name}.png").write_bytes(png(drawn(2).frames[0]))
        (tmp_path / f"{name}.json").write_text(json.dumps({"frames": frames, "meta": {"image": f"{name}.png"}}))
    found = find_items(tmp_path, "set")
    assert [problem.file for problem in found.problems] == ["set/list.png", "set/object.png"] and not found.items
    assert all("export its frames" in problem.reason for problem in found.problems)


# Archives and exports


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar"])
@pytest.mark.parametrize("inside", [True, False])
def test_archives_with_their_metadata(tmp_path: Path, name: str, inside: bool) -> None:
    files = {
        "b/cat.webp": encoded(drawn(0), tmp_path),
        "a/dog.png": encoded(drawn(1), tmp_path, "png"),
        "b/cat.txt": b"a red cat",
        "metadata.csv": b"file_name,caption,caption_de\na/dog.png,a dog,ein Hund\n",
        "notes.doc": b"x",
    }
    folder = tmp_path / "set"
    folder.mkdir()
    write = write_zip if name.endswith("zip") else write_tar
    write(folder / name, files)  # type: ignore[arg-type]
    found = find_items(folder, "set") if inside else find_items(folder / name, "set")
    prefix = f"set/{name}" if inside else "set"
    items = by_name(found)
    assert sorted(items) == [f"{prefix}/a/dog.png", f"{prefix}/b/cat.webp"]
    assert [(problem.file, "ending '.doc'" in problem.reason) for problem in found.problems] == [
        (f"{prefix}/notes.doc", True)
    ]
    cat, dog = items[f"{prefix}/b/cat.webp"], items[f"{prefix}/a/dog.png"]
    assert cat.caption.texts == ("a red cat",) and dog.caption.texts == ("a dog", "ein Hund")
    assert_same(cat, drawn(0))
    assert_same(dog, drawn(1))
    before = cat.stamp()
    write(folder / name, files)  # type: ignore[arg-type]
    assert cat.stamp() != before


def test_an_archive_in_an_archive_is_named_and_not_opened(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"a.png": png(drawn(0).frames[0])})
    write_zip(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
    found = find_items(tmp_path / "outer.zip", "outer")
    assert not found.items and "inside of an archive" in found.problems[0].reason


def test_a_damaged_archive_is_one_problem_and_the_rest_is_found(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4" + bytes(100))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(100))
    write_zip(tmp_path / "good.zip", {"a.png": png(drawn(0).frames[0])})
    found = find_items(tmp_path, "set")
    assert [item.name for item in found.items] == ["set/good.zip/a.png"]
    assert [problem.file for problem in found.problems] == ["set/bad.parquet", "set/bad.zip"]


def telegram(tmp_path: Path) -> dict[str, bytes | str]:
    messages = [
        {
            "id": 1,
            "from": "Someone",
            "date": "2026-01-01",
            "media_type": "sticker",
            "sticker_emoji": "😂",
            "file": "stickers/s.webp",
        },
        {"id": 2, "from": "Someone", "media_type": "sticker", "sticker_emoji": "🐱", "file": "stickers/t (1).tgs"},
        {"id": 3, "media_type": "sticker", "file": "(File not included. Change data exporting settings to download.)"},
        {"id": 4, "media_type": "animation", "file": "video_files/gif.mp4"},
        {"id": 5, "text": "hello"},
    ]
    return {
        "result.json": json.dumps({"name": "Chat", "type": "personal_chat", "messages": messages}),
        "stickers/s.webp": encoded(drawn(0), tmp_path),
        "stickers/s.webp_thumb.jpg": b"thumb",
        "stickers/t (1).tgs": gzip.compress(json.dumps(lottie()).encode()),
        "photos/photo_1.jpg": b"private",
    }


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("all_chats", [True, False])
def test_telegram_exports(tmp_path: Path, packed: bool, all_chats: bool) -> None:
    files = telegram(tmp_path)
    if all_chats:
        files["result.json"] = json.dumps({"chats": {"list": [json.loads(files["result.json"])]}})
    if packed:
        write_zip(tmp_path / "export.zip", {f"ChatExport/{name}": data for name, data in files.items()})
        found = find_items(tmp_path / "export.zip", "set")
    else:
        for name, data in files.items():
            path = tmp_path / "export" / "ChatExport" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
        found = find_items(tmp_path / "export", "set")
    items = by_name(found)
    assert sorted(items) == ["set/ChatExport/stickers/s.webp", "set/ChatExport/stickers/t (1).tgs"]
    captions = [items[name].caption for name in sorted(items)]
    assert [caption.texts for caption in captions] == [("face with tears of joy",), ("cat face",)]
    assert captions[0].attributes == {"emoji": "😂"}  # and nothing about people
    assert [problem.reason.partition(";")[0] for problem in found.problems] == ["1 stickers are not in the export"]
    assert found.passed_over == 3
    assert_same(items["set/ChatExport/stickers/s.webp"], drawn(0))
    assert len(items["set/ChatExport/stickers/t (1).tgs"].read()) == 20


def test_whatsapp_packs(tmp_path: Path) -> None:
    picture = png(drawn(0).frames[0])
    write_zip(
        tmp_path / "cats.wastickers",
        {"title.txt": "Cats", "author.txt": "Me", "tray.png": picture, "1.webp": encoded(drawn(0), tmp_path),
         "emoji.txt": json.dumps({"1": "😀"})},
    )  # fmt: skip
    pack = {
        "identifier": "1", "name": "Dogs", "publisher": "You", "tray_image_file": "tray.png",
        "stickers": [
            {"image_file": "01.webp", "emojis": ["🐶", "❤️"], "accessibility_text": "a dog in love"},
            {"image_file": "02.webp"},
        ],
    }  # fmt: skip
    write_zip(
        tmp_path / "sample.zip",
        {
            "contents.json": json.dumps({"sticker_packs": [pack]}),
            "1/01.webp": encoded(drawn(1), tmp_path),
            "1/tray.png": picture,
        },
    )
    found = find_items(tmp_path, "set")
    items = by_name(found)
    assert sorted(items) == ["set/cats.wastickers/1.webp", "set/sample.zip/1/01.webp"]
    cat, dog = items["set/cats.wastickers/1.webp"].caption, items["set/sample.zip/1/01.webp"].caption
    assert cat.texts == ("grinning face",)
    assert cat.attributes == {"pack": "Cats", "author": "Me", "emoji": "😀"}
    assert dog.texts == ("a dog in love", "dog face", "red heart") and dog.attributes["pack"] == "Dogs"
    assert [problem.reason for problem in found.problems] == ["'02.webp' is not among the stickers here"]
    assert_same(items["set/cats.wastickers/1.webp"], drawn(0))


@pytest.mark.parametrize("metadata", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_imagefolder(tmp_path: Path, metadata: str) -> None:
    for index, split in enumerate(("train", "validation", "test")):
        save_sticker(drawn(index), tmp_path / "set" / split / "0001.webp")
        rows = [{"file_name": "0001.webp", "text": f"sticker {index}", "score": 0.5}]
        place = tmp_path / "set" / split / metadata
        if metadata.endswith("parquet"):
            pq.write_table(pa.Table.from_pylist(rows), place)
        elif metadata.endswith("csv"):
            place.write_text(f"file_name,text,score\n0001.webp,sticker {index},0.5\n")
        else:
            place.write_text(json.dumps(rows[0]))
    found = find_items(tmp_path / "set", "set")
    assert not found.problems and len(found.items) == 3
    assert [(item.caption.split, item.caption.texts) for item in found.items] == [
        ("test", ("sticker 2",)), ("train", ("sticker 0",)), ("val", ("sticker 1",))
    ]  # fmt: skip
    assert found.items[0].caption.attributes == {"score": "0.5" if metadata.endswith("csv") else 0.5}


def test_folders_called_like_splits_among_others_are_no_splits(tmp_path: Path) -> None:
    for name in ("train", "test", "plane"):
        save_sticker(drawn(0), tmp_path / name / "a.png")
    assert {item.caption.split for item in find_items(tmp_path, "set").items} == {None}


def test_webdataset_shards(tmp_path: Path) -> None:
    for shard in range(2):
        files = {
            f"{shard}0.webp": encoded(drawn(0), tmp_path),
            f"{shard}0.json": json.dumps({"caption": "from json", "license": "CC0"}).encode(),
            f"{shard}0.cls": b"3",
            f"{shard}1.txt": b"from text",
            f"{shard}1.sticker.png": encoded(drawn(1), tmp_path, "png"),
        }
        write_tar(tmp_path / f"train-{shard:06d}.tar", files)
    found = find_items(tmp_path, "set")
    assert not found.problems
    assert [item.name.removeprefix("set/train-00000") for item in found.items] == [
        "0.tar/00.webp", "0.tar/01.sticker.png", "1.tar/10.webp", "1.tar/11.sticker.png"
    ]  # fmt: skip
    assert [item.caption.texts[0] for item in found.items] == ["from json", "from text"] * 2
    assert found.items[0].caption.license == "CC0" and {item.caption.split for item in found.items} == {"train"}
    assert_same(found.items[2], drawn(0))


@pytest.mark.parametrize("struct", [True, False])
def test_parquet(tmp_path: Path, struct: bool) -> None:
    stickers = [drawn(index) for index in range(5)]
    data = [encoded(sticker, tmp_path, ending) for sticker, ending in zip(stickers, ["webp", "png"] * 3, strict=False)]
    images: list[Any] = (
        [{"bytes": d, "path": f"red cat_{i}.webp"} for i, d in enumerate(data)] if struct else list(data)
    )
    table = pa.table(
        {
            "image": images,
            "en": ["a cat", "a dog", None, "a mouse", "a bird"],
            "caption_zh": ["猫", None, None, None, None],
            "when": pa.array([0, 1, 2, 3, 4], pa.timestamp("s")),
        }
    )
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet", row_group_size=2)
    found = find_items(tmp_path, "set", ["en"])
    assert not found.problems
    texts = [item.caption.texts for item in found.items]
    assert texts == [("a cat", "猫"), ("a dog",), ("red cat",) if struct else ("",), ("a mouse",), ("a bird",)]
    assert found.items[1].caption.attributes["when"] == "1970-01-01 00:00:01"
    assert {item.caption.split for item in found.items} == {"test"}
    assert found.items[3].name == "set/test-00000-of-00001.parquet/0000003"
    for item, sticker in zip(reversed(found.items), reversed(stickers), strict=True):
        assert_same(item, sticker)


def test_two_stickers_of_one_name(tmp_path: Path) -> None:
    frames = {f"x.png/frame_{number}.png": png(drawn(2).frames[number]) for number in range(2)}
    found = find_items(write_tar(tmp_path / "a.tar", {"x.png": encoded(drawn(0), tmp_path), **frames}), "set")
    assert [item.name for item in found.items] == ["set/x.png"]
    assert [problem.file for problem in found.problems] == ["set/x.png"]


def test_parquet_without_pictures_or_with_an_empty_cell(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": pa.array([None, b"x"], pa.binary())}), tmp_path / "b.parquet")
    found = find_items(tmp_path, "set")
    assert "no column of pictures; its columns are text" in found.problems[0].reason
    with pytest.raises(StickerError, match="empty"):
        found.items[0].read()


def test_one_sticker_named_itself(tmp_path: Path) -> None:
    save_sticker(drawn(0), tmp_path / "cat.webp")
    (tmp_path / "cat.txt").write_text("a cat", "utf-8")
    for ending in ("svgz", "jfif", "jpe", "m4v", "avifs", "bmp"):  # what is inside is looked at later
        (tmp_path / "more" / f"x.{ending}").parent.mkdir(exist_ok=True)
        (tmp_path / "more" / f"x.{ending}").write_bytes(b"?")
    more = find_items(tmp_path / "more", "more")
    assert len(more.items) == 5 and [problem.file for problem in more.problems] == ["more/x.bmp"]
    (item,) = find_items(tmp_path / "cat.webp", "cat.webp").items
    assert item.name == "cat.webp" and item.caption.texts == ("a cat",)
    assert_same(item, drawn(0))
    with pytest.raises(ValueError, match="no such folder or file"):
        find_items(tmp_path / "dog.webp", "dog.webp")


# Real stickers


@pytest.mark.stickers
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real stickers in {REAL}; set RDTF_STICKERS to their folder")
def test_real_stickers_come_out_of_every_container_as_they_went_in(tmp_path: Path) -> None:
    files = [
        sorted((REAL / kind).glob(ending))[7]
        for kind, ending in (("animated", "*.json"), ("gif", "*.gif"), ("static", "*.png"))
    ]
    data = {file.name: file.read_bytes() for file in files}
    lottie_id = files[0].stem
    with zipfile.ZipFile(tmp_path / "real.lottie", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({"animations": [{"id": lottie_id}]}))
        archive.writestr(f"animations/{lottie_id}.json", data[files[0].name])
    write_zip(tmp_path / "pack.zip", dict(data))
    write_tar(tmp_path / "pack.tar", data)
    pq.write_table(pa.table({"image": list(data.values())}), tmp_path / "pack.parquet")
    found = find_items(tmp_path, "set")
    assert not found.problems and len(found.items) == 10
    expected = {file.name: read_sticker(file, size=48, max_frames=6) for file in files}
    for item in found.items:
        back = item.read(size=48, max_frames=6)
        match = [n for n, sticker in expected.items() if np.array_equal(sticker.frames, back.frames)]
        assert len(match) == 1 and np.array_equal(expected[match[0]].durations, back.durations)


def test_the_table_in_the_docs_names_every_ending(tmp_path: Path) -> None:
    text = DOCS.read_text("utf-8")
    for ending in (*SUFFIXES, *ARCHIVES, ".parquet"):
        assert f"`{ending}`" in text, ending
    tests = {
        name
        for file in Path(__file__).parents[1].rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text("utf-8"))
    }
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) > 15 and set(named) <= tests
