"""Names and bytes out of folders and archives, honest ones and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from rdtf.io.archives import ArchiveLimits, ArchiveTree, FolderTree, read_member
from rdtf.sticker import StickerError

FILES = {"a.txt": b"first", "deep/er/b.bin": bytes(range(256)) * 300, "c.txt": b"", ".hidden": b"x", "__MACOSX/d": b"y"}


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "a.zip": write_zip,
    "stored.zip": lambda path, files: write_zip(path, files, zipfile.ZIP_STORED),
    "a.tar": write_tar,
}


def reasons(tree: ArchiveTree | FolderTree) -> dict[str, str]:
    return {str(problem.path): problem.reason for problem in tree.problems}


@pytest.mark.parametrize("kind", WRITERS)
def test_archives_have_the_names_and_bytes_that_went_in(tmp_path: Path, kind: str) -> None:
    file = WRITERS[kind](tmp_path / kind, FILES)
    tree = ArchiveTree(file)
    assert tree.names == ["a.txt", "c.txt", "deep/er/b.bin"] and tree.hidden == 2 and not tree.problems
    for name in (*tree.names, *reversed(tree.names)):  # also backwards
        with tree.open(name) as stream:
            assert stream.read() == FILES[name]
        where, member = tree.place(name)
        assert read_member(Path(where), member, 2**20) == FILES[name]
    with pytest.raises(StickerError, match="too large"):
        read_member(file, tree.members["deep/er/b.bin"], 1000)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../out.txt", "out of the archive"),
        ("deep/../../out.txt", "out of the archive"),
        ("/etc/passwd", "absolute"),
        ("C:\\Windows\\x.txt", "absolute"),
        ("..\\out.txt", "out of the archive"),
        ("a" * 2000, "too long"),
        ("/".join("a" * 40), "too deep"),
    ],
)
def test_names_that_lead_elsewhere_are_refused_and_the_others_read(
    tmp_path: Path, kind: str, name: str, why: str
) -> None:
    tree = ArchiveTree(WRITERS[kind](tmp_path / kind, {name: b"evil", "./fine//x.txt": b"good"}))
    assert tree.names == ["fine/x.txt"]
    assert [why in reason for reason in reasons(tree).values()] == [True]


def test_links_devices_and_duplicates_in_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
        for index, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"{index}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for data in (b"one", b"two"):
            info = tarfile.TarInfo("same")
            info.size = 3
            archive.addfile(info, io.BytesIO(data))
        directory = tarfile.TarInfo("folder")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
    tree = ArchiveTree(tmp_path / "a.tar")
    assert tree.names == ["same"] and tree.open("same").read() == b"one"
    assert sorted(reasons(tree)) == ["0", "1", "2", "3", "same"]
    assert "twice" in reasons(tree)["same"] and all("link, device" in reasons(tree)[str(i)] for i in range(4))


def test_links_and_encrypted_members_of_a_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("secret", b"x")
        archive.writestr(zipfile.ZipInfo("lzma"), b"x", zipfile.ZIP_LZMA)
        archive.writestr("open", b"y")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.rindex(b"PK\1\2", 0, data.rindex(b"secret")) + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    tree = ArchiveTree(tmp_path / "a.zip")
    assert tree.names == ["open"]
    assert "link" in reasons(tree)["link"]
    assert "encrypted" in reasons(tree)["secret"]
    assert "method" in reasons(tree)["lzma"]


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(8 * 2**20)
    # One bomb among much that is honest costs itself; an archive that is nothing else is refused whole.
    mixed = ArchiveTree(write_zip(tmp_path / "mixed.zip", {"bomb": zeros, "fine": os.urandom(2**17)}))
    assert mixed.names == ["fine"] and "more than 200 times" in reasons(mixed)["bomb"]
    with pytest.raises(StickerError, match="unpacks to more than"):
        ArchiveTree(write_zip(tmp_path / "pure.zip", {"bomb": zeros}))
    with pytest.raises(StickerError, match="more than 3 files"):
        many = {str(index): b"" for index in range(4)}
        monkeypatch.setattr("rdtf.io.archives.LIMITS", ArchiveLimits(members=3))
        ArchiveTree(write_tar(tmp_path / "many.tar", many))


def test_a_zip_that_lies_about_sizes_gives_no_more_than_it_said(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"a": bytes(10_000)})
    data = bytearray(file.read_bytes())
    at = data.rindex(b"PK\1\2") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(StickerError, match="damaged"):
        read_member(file, ArchiveTree(file).members["a"], 2**20)


def header(size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[0:1], block[100:108], block[124:136], block[156:157] = b"a", b"0000644\0", size.ljust(12, b"\0"), kind
    block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_a_tar_with_negative_sizes_ends(tmp_path: Path) -> None:
    back = b"\xff" * 8 + struct.pack(">i", -512)  # leads a trusting reader round and round
    (tmp_path / "a.tar").write_bytes(header(back) * 2 + bytes(1024))
    with pytest.raises(StickerError, match="no archive"):
        ArchiveTree(tmp_path / "a.tar")


def test_a_tar_whose_headers_claim_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(header(b"77777777777", b"x") + bytes(10**6))
    with pytest.raises(StickerError, match="a header of"):
        ArchiveTree(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("part", [0.1, 0.6, 0.95])
def test_cut_archives_are_refused_or_give_only_whole_files(tmp_path: Path, kind: str, part: float) -> None:
    files = {f"{index}": zlib.crc32(bytes([index])).to_bytes(4, "big") * 2000 for index in range(5)}
    file = WRITERS[kind](tmp_path / kind, files)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    try:
        tree = ArchiveTree(file)
    except StickerError:
        return
    assert "zip" not in kind  # its directory is at the end
    for name in tree.names:
        assert tree.open(name).read() == files[name]


def test_what_is_no_archive(tmp_path: Path) -> None:
    for name, data in (("a.zip", b"PK nothing"), ("a.tar", b"text" * 400), ("b.tar", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StickerError, match="no archive"):
            ArchiveTree(tmp_path / name)
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress(b"text" * 400))
    with pytest.raises(StickerError, match="a compressed TAR; unpack it"):
        ArchiveTree(tmp_path / "c.tar.gz")


def test_a_folder_without_what_is_not_in_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    for name in ("a", "sub/b", ".hidden"):
        (root / name).write_bytes(name.encode())
    (tmp_path / "outside").touch()
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to(root / "a")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    tree = FolderTree(root)
    assert tree.names == ["a", "in", "sub/b"] and tree.hidden == 1
    assert sorted(reasons(tree)) == ["loop", "out", "pipe"]
    assert tree.open("sub/b").read() == b"sub/b" and tree.place("sub/b") == (str(root / "sub" / "b"), None)


def write_unflagged_zip(path: Path, names: list[bytes]) -> Path:
    """A ZIP with names of these bytes, which does not say that they are UTF-8."""
    stand_ins = [f"{number:02}".ljust(len(name), "_") for number, name in enumerate(names)]
    write_zip(path, {stand_in: f"bytes of {number}".encode() for number, stand_in in enumerate(stand_ins)})
    data = path.read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        assert data.count(stand_in.encode()) == 2
        data = data.replace(stand_in.encode(), name)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("page", "names"),
    [
        # Two-byte characters whose second byte is a backslash: 83 5C, 95 5C, 97 5C.
        ("cp932", ["ソファと猫.png", "表情/予定.png", "笑う犬 2.gif", "ねこ/寝る.webp"]),
        ("gbk", ["猫咪.png", "开心的小猫.png", "再见/挥手.gif", "红包 1.webp"]),
        ("utf-8", ["ソファ.png", "schön.png", "ça va.gif"]),
        ("cp437", ["für dich.png", "schöne Grüße.gif", "Übung/Äpfel.png", "café.png", "à bientôt.png"]),
    ],
)
def test_zip_names_without_the_utf8_flag(tmp_path: Path, page: str, names: list[str]) -> None:
    raw = [name.encode(page) for name in [*names, "plain.txt"]]
    tree = ArchiveTree(write_unflagged_zip(tmp_path / "a.zip", raw))
    assert tree.names == sorted([*names, "plain.txt"]) and not tree.problems
    for number, name in enumerate(names):
        assert tree.open(name).read() == f"bytes of {number}".encode()
