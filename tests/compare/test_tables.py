"""Tables and verdicts from made-up results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rdtf.baselines import BASELINES
from rdtf.compare.suites import LOWER_IS_BETTER, MEASURES, SUITES, TITLES_IN, Claim, TableSpec
from rdtf.compare.tables import make_table, verdict

TITLES = {"a": "A", "b": "B"}


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [
        ((10.0, 11.0, 10.5), (12.0, 13.1, 12.4), "held; better in 3 of 3 seeds, by 2.00"),
        ((12.0, 13.1, 12.4), (10.0, 11.0, 10.5), "the reverse held; better in 0 of 3 seeds, by -2.00"),
        ((10.0, 14.0, 10.5), (12.0, 13.0, 12.4), "open; better in 2 of 3 seeds"),
        ((10.0, 10.0, 10.0), (10.1, 20.0, 10.1), "open; better in 3 of 3 seeds"),  # one seed carries it all
    ],
)
def test_an_ordering_holds_where_all_seeds_and_the_spread_agree(a: tuple, b: tuple, outcome: str):
    assert outcome in verdict(Claim("a", "b", ("it2v.fd",)), "it2v.fd", TITLES, {"a": a, "b": b})


def test_the_direction_is_the_measures():
    claim = Claim("a", "b", ("it2v.psnr",))
    higher = verdict(claim, "it2v.psnr", TITLES, {"a": (2.0, 2.1), "b": (1.0, 1.0)})
    assert "A better than B in PSNR dB (the paper's): held" in higher
    assert "open" in verdict(claim, "it2v.psnr", TITLES, {"a": (2.0,), "b": (1.0,)})  # one seed shows nothing


def test_a_table_has_the_measures_that_all_runs_have():
    suite = replace(SUITES["small"], seeds=(0, 1))
    claims = (Claim("rdtf", "simda", ("t2v.body",)), Claim("rdtf", "simda", ("it2v.mmd", "it2v.fd", "it2v.psnr")))
    spec = TableSpec("t", ("rdtf", "simda"), ("it2v.fd", "it2v.psnr", "t2v.body"), claims)
    results = {
        "rdtf": {0: {"it2v.fd": 1.0, "it2v.psnr": 12.0}, 1: {"it2v.fd": 3.0, "it2v.psnr": 12.0}},
        "simda": {0: {"it2v.fd": 5.0, "it2v.psnr": 13.0}, 1: {"it2v.fd": 7.0, "it2v.psnr": 13.0}},
    }
    table = make_table(spec, suite, results)
    assert table.head == ("", "FD-sticker", "PSNR dB")
    assert table.rows == (
        ("RDTF, from scratch", "**2.00 ± 1.41**", "12.0"),
        ("SimDA", "6.00 ± 1.41", "**13.0**"),
    )
    # The first claim's measure was not taken; of the second's the first that was speaks for it.
    assert [" in FD-sticker " in verdict for verdict in table.verdicts] == [True]
    assert "| RDTF, from scratch | **2.00 ± 1.41** | 12.0 |" in table.markdown()


@pytest.mark.parametrize("name", SUITES)
def test_suites_name_what_they_have(name: str):
    suite = SUITES[name]
    assert suite.reference in suite.variants
    assert len(suite.seeds) >= 2
    assert {variant.tune for variant in suite.variants.values()} - {None} in (set(), set(BASELINES))
    assert set(MEASURES) >= LOWER_IS_BETTER
    for table in suite.tables:
        assert set(table.rows) <= set(suite.variants)
        assert set(table.measures) <= set(MEASURES)
        for claim in table.claims:
            assert {claim.better, claim.worse} <= set(table.rows) and set(claim.measures) <= set(table.measures)
        assert set(TITLES_IN.get(table.title, {})) <= set(table.rows)


def test_motion_is_best_where_it_is_as_of_real_stickers():
    suite = replace(SUITES["small"], seeds=(0,))
    results = {"rdtf": {0: {"it2v.motion": 1.5}}, "lora": {0: {"it2v.motion": 0.9}}, "full": {0: {"it2v.motion": 0.2}}}
    table = make_table(TableSpec("t", tuple(results), ("it2v.motion",)), suite, results)
    assert [cells[1] for cells in table.rows] == ["1.50", "**0.90**", "0.20"]
