from __future__ import annotations

from rdtf.data.disk_list import DiskList


def test_what_is_put_in_comes_out_in_its_order_whenever_it_is_asked_for() -> None:
    entries = DiskList[object]()
    values: list[object] = [("a", number, {"text": "x" * number}) for number in range(50)]
    for number, value in enumerate(values):
        entries.append(value)
        assert len(entries) == number + 1 and entries[number // 2] == values[number // 2]
    assert list(entries) == values and entries[-1] == values[-1] and entries[10:13] == values[10:13]
    entries.remove([3, 49, 0])
    assert list(entries) == values[1:3] + values[4:49]
    entries.append("after")
    assert entries[47] == entries[-1] == "after" and len(entries) == 48
