from __future__ import annotations

from rdtf.data.spool import Spool


def test_what_is_put_in_comes_out_in_its_order_whenever_it_is_asked_for() -> None:
    spool = Spool[object]()
    values: list[object] = [("a", number, {"text": "x" * number}) for number in range(50)]
    for number, value in enumerate(values):
        spool.append(value)
        assert len(spool) == number + 1 and spool[number // 2] == values[number // 2]
    assert list(spool) == values and spool[-1] == values[-1] and spool[10:13] == values[10:13]
    spool.remove([3, 49, 0])
    assert list(spool) == values[1:3] + values[4:49]
    spool.append("after")
    assert spool[47] == spool[-1] == "after" and len(spool) == 48
