"""Tables and verdicts from made-up results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rdtf.model.adapter import adapter_names
from rdtf.research.compare.results import make_table, outcome
from rdtf.research.compare.suites import LOWER_IS_BETTER, MEASURES, SUITES, TITLES_IN, Claim, TableSpec


@pytest.mark.parametrize(
    ("a", "b", "found", "figures"),
    [
        ((10.0, 11.0, 10.5), (12.0, 13.1, 12.4), "held", "by 2.00 ± 0.100, 3 of 3 seeds"),
        ((12.0, 13.1, 12.4), (10.0, 11.0, 10.5), "the reverse held", "by -2.00 ± 0.100, 0 of 3 seeds"),
        ((10.0, 14.0, 10.5), (12.0, 13.0, 12.4), "open", "2 of 3 seeds"),
        ((10.0, 10.0, 10.0), (10.1, 20.0, 10.1), "open", "3 of 3 seeds"),  # one seed carries it all
        ((10.0,), (12.0,), "open", "by 2.00, 1 of 1 seeds"),  # one seed shows nothing
    ],
)
def test_an_ordering_holds_where_all_seeds_and_the_spread_agree(a: tuple, b: tuple, found: str, figures: str):
    name, told = outcome(Claim("a", "b", ("it2v.fd",)), "it2v.fd", {"a": a, "b": b})
    assert name == found and figures in told


def test_few_claims_without_an_effect_hold():
    """Of claims without an effect, 5 % are significant with any number of seeds."""
    rng = np.random.default_rng(0)
    for seeds in (2, 3):
        draws = rng.normal(size=(2, 300, seeds)).tolist()
        found = [
            outcome(Claim("a", "b", ("it2v.psnr",)), "it2v.psnr", {"a": a, "b": b})[0]
            for a, b in zip(*draws, strict=True)
        ]
        assert 0.01 < 1 - found.count("open") / len(found) < 0.1, seeds


def test_the_direction_is_the_measures():
    column = {"a": (2.0, 2.1), "b": (1.0, 1.0)}
    assert outcome(Claim("a", "b", ("it2v.psnr",)), "it2v.psnr", column)[0] == "held"
    assert outcome(Claim("a", "b", ("it2v.mmd",)), "it2v.mmd", column)[0] == "the reverse held"


def test_a_table_has_the_measures_that_all_runs_have():
    suite = replace(SUITES["small"], seeds=(0, 1))
    claims = (
        Claim("rdtf", "simda", ("t2v.body",)),
        Claim("rdtf", "simda", ("it2v.psnr",)),
        Claim("rdtf", "simda", ("it2v.mmd", "it2v.fd", "it2v.psnr")),
    )
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
    # The first claim's measure was not taken; of the second's the first that was speaks for it. One sentence a pair.
    assert table.verdicts == (
        "RDTF, from scratch better than SimDA (the paper's): held in FD-sticker (by 4.00 ± 0.000, 2 of 2 seeds); "
        "the reverse held in PSNR dB (by -1.00 ± 0.000, 0 of 2 seeds).",
    )
    assert "| RDTF, from scratch | **2.00 ± 1.41** | 12.0 |" in table.markdown()


@pytest.mark.parametrize("name", SUITES)
def test_suites_name_what_they_have(name: str):
    suite = SUITES[name]
    assert suite.reference in suite.variants
    assert len(suite.seeds) >= 2
    assert {variant.tune for variant in suite.variants.values()} - {None} in (set(), {*adapter_names(), "full"})
    assert set(MEASURES) >= LOWER_IS_BETTER
    for table in suite.tables:
        assert set(table.rows) <= set(suite.variants)
        assert set(table.measures) <= set(MEASURES)
        for claim in table.claims:
            assert {claim.better, claim.worse} <= set(table.rows) and set(claim.measures) <= set(table.measures)
        assert set(TITLES_IN.get(table.title, {})) <= set(table.rows)


def test_a_part_of_a_suite_has_its_rows_and_orderings():
    part = SUITES["small"].part(["lora", "sti"], steps=1000, seeds=1)
    assert set(part.variants) == {"rdtf", "lora", "sti"} and part.steps == 1000 and part.seeds == (0,)
    assert {table.title: table.rows for table in part.tables} == {
        "Image and text to video": ("lora", "rdtf"),
        "In-between and prediction": ("lora", "rdtf"),
        "Modules": ("sti", "rdtf"),
        "Size and time": ("lora", "rdtf", "sti"),
    }
    assert {(claim.better, claim.worse) for table in part.tables for claim in table.claims} == {("rdtf", "lora")}
    assert SUITES["small"].part() == SUITES["small"]
    with pytest.raises(ValueError, match="the suite small has no variant loar; choose of untrained, lora, "):
        SUITES["small"].part(["loar"])


def test_settings_of_a_part_are_those_of_all_its_trainings():
    part = SUITES["small"].part(["lora"], pixels=48, settings={"size": "small", "model": {}})
    assert part.pixels == 48 and part.training == {**SUITES["small"].training, "size": "small", "model": {}}
    with pytest.raises(ValueError, match="steps, tune cannot be set for all runs of a comparison; seeds, compute and"):
        SUITES["small"].part(settings={"tune": "lora", "steps": 3, "lr": 1e-3})


def test_motion_is_best_where_it_is_as_of_real_stickers():
    suite = replace(SUITES["small"], seeds=(0,))
    results = {"rdtf": {0: {"it2v.motion": 1.5}}, "lora": {0: {"it2v.motion": 0.9}}, "full": {0: {"it2v.motion": 0.2}}}
    table = make_table(TableSpec("t", tuple(results), ("it2v.motion",)), suite, results)
    assert [cells[1] for cells in table.rows] == ["1.50", "**0.90**", "0.20"]
