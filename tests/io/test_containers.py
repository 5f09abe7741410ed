"""Preparation whole, over a folder in which everything that can hold stickers lies beside everything that is broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rdtf.data.dataset import StickerDataset
from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.sticker import Sticker
from tests.data.test_prepare import contents, reasons
from tests.io.test_formats import drawn, encoded, write_tar, write_zip
from tests.io.test_fuzz import mutate
from tests.io.test_read import lottie

SETTINGS = PrepareSettings(size=24, max_frames=40, splits=(1.0, 0.0, 0.0), workers=1)


def many_containers(root: Path) -> None:
    """A folder with a sticker of its own, and one of every kind of archive and table."""
    root.mkdir()
    files = [encoded(drawn(index), root) for index in range(12)]
    (root / "plain.webp").write_bytes(files[0])
    (root / "pack").mkdir()
    write_zip(
        root / "pack" / "one.zip",
        {"cat.webp": files[1], "broken.webp": files[1][:60], "../up.webp": files[1], "captions.csv": CSV},
    )
    write_tar(root / "two.tar", {"dog.webp": files[2], "dog.txt": b"a dog", "note.txt": b"x", "cut.gif": b"GIF89a"})
    write_tar(
        root / "val-000000.tar",
        {"a.webp": files[3], "a.json": b'{"caption": "from a shard", "license": "CC0"}', "b.webp": files[4]},
    )
    messages = [{"media_type": "sticker", "sticker_emoji": "🐱", "file": "stickers/t.tgs"}]
    write_zip(
        root / "export.zip",
        {
            "ChatExport/result.json": json.dumps({"name": "Chat", "type": "personal_chat", "messages": messages}),
            "ChatExport/stickers/t.tgs": gzip.compress(json.dumps(lottie()).encode(), mtime=0),
            "ChatExport/photos/private.jpg": b"private",
        },
    )
    write_zip(root / "whatsapp.wastickers", {"a.webp": files[5], "tray.png": b"x", "title.txt": "P", "author.txt": "A"})
    table = pa.table({"image": [files[6], files[7][:99], files[0], None], "text": ["six", "seven", "zero", "none"]})
    pq.write_table(table, root / "table.parquet", row_group_size=2)
    (root / "zz_damaged.zip").write_bytes(b"PK and then nothing")
    (root / "zz_damaged.parquet").write_bytes(b"PAR1 and then nothing")
    write_zip(root / "zz_outer.zip", {"inner.zip": b"PK", "last.webp": files[8]})


CSV = "file_name,caption,caption_de\ncat.webp,a cat,eine Katze\n"
EXPECTED = {  # in the order of the rows: from where, captions, split, and which of the drawn ones it is
    "set/export.zip/ChatExport/stickers/t.tgs": (("cat face",), "train", None),
    "set/pack/one.zip/cat.webp": (("a cat", "eine Katze"), "train", 1),
    "set/plain.webp": (("plain",), "train", 0),
    "set/table.parquet/0000000": (("six",), "train", 6),
    "set/two.tar/dog.webp": (("a dog",), "train", 2),
    "set/val-000000.tar/a.webp": (("from a shard",), "val", 3),
    "set/val-000000.tar/b.webp": (("b",), "val", 4),
    "set/whatsapp.wastickers/a.webp": (("a",), "train", 5),
    "set/zz_outer.zip/last.webp": (("last",), "train", 8),
}
REFUSED = {
    "set/two.tar/note.txt": "belongs to no sticker",
    "set/pack/one.zip/../up.webp": "path out of the archive",
    "set/pack/one.zip/broken.webp": "cut short",
    "set/table.parquet/0000001": "cut short",
    "set/table.parquet/0000002": "duplicate of set/plain.webp",
    "set/table.parquet/0000003": "its cell is empty",
    "set/two.tar/cut.gif": "cut short",
    "set/zz_damaged.parquet": "no Parquet file",
    "set/zz_damaged.zip": "no archive",
    "set/zz_outer.zip/inner.zip": "archive inside of an archive",
}


def test_all_kinds_of_containers_in_one_folder(tmp_path: Path) -> None:
    many_containers(tmp_path / "set")
    report = prepare([tmp_path / "set"], tmp_path / "data", SETTINGS)
    data = StickerDataset(tmp_path / "data")
    records = [data.record(index) for index in range(len(data))]
    assert {record.source: (record.captions, record.split) for record in records} == {
        name: expected[:2] for name, expected in EXPECTED.items()
    }
    assert [record.source for record in records] == list(EXPECTED)
    for index, (_, _, number) in enumerate(EXPECTED.values()):
        if number is not None:
            sticker: Sticker = drawn(number)
            frames = np.where(sticker.frames[..., 3:] > 0, sticker.frames, 0)
            assert np.array_equal(data.frames(index), frames)
            assert np.allclose(records[index].durations, sticker.durations)
    why = reasons(report)
    assert why.keys() == REFUSED.keys()
    for name, reason in REFUSED.items():
        assert reason in why[name], (name, why[name])
    before = contents(tmp_path / "data")
    assert prepare([tmp_path / "set"], tmp_path / "data", SETTINGS).plan.startswith("14 kept from the last run")
    assert contents(tmp_path / "data") == before


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutants_of_containers(tmp_path: Path, count: int) -> None:
    """The parent process lists archives itself: whatever is in them, it ends well and accounts for what it lists."""
    many_containers(tmp_path / "whole")
    kinds = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file() and path.suffix != ".webp")
    rng = np.random.default_rng(2)
    root = tmp_path / "set"
    root.mkdir()
    (root / "a_whole.webp").write_bytes(encoded(drawn(0), root))
    for number in range(count):
        one, other = (kinds[int(index)].read_bytes() for index in rng.integers(len(kinds), size=2))
        (root / f"mutant_{number:04}{''.join(kinds[int(rng.integers(len(kinds)))].suffixes)}").write_bytes(
            mutate(one, other, rng)
        )
    report = prepare([root], tmp_path / "data", SETTINGS.model_copy(update={"time_limit": 5.0}))
    data = StickerDataset(tmp_path / "data")
    used, refused = set(data.column("source")), reasons(report)
    assert "set/a_whole.webp" in used and used.isdisjoint(refused) and all(refused.values())
    told = {"/".join(name.split("/")[:2]) for name in [*used, *refused]}
    silent = {f"set/{path.name}" for path in root.iterdir() if not path.name.startswith(".")} - told
    # An archive in which nothing is left is silent: of what is told of it, nothing looks like a sticker.
    assert len(silent) <= count // 5
    assert not any("not done after" in reason for reason in refused.values())
