"""What differs between two measurements: in words, as "could anything change?", and as "was it allowed to?"."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.baseline import compare_provenance, forbidden_differences, identity_differences
from harness.core.digest import digest_text
from harness.core.errors import EXIT_USAGE, UnknownNameError


def test_provenance_is_compared_in_words(build: Any) -> None:
    before = build.one(9, 5, weights="w1").record
    now = build.run({}, weights="w2", engine={"torch": "2.9", "threads": "4", "blas": "mkl"}).record
    compression = replace(now.compression, recipe={"bits": 2, "group": 64}, effective_bits=2.25)
    assert compare_provenance(before.provenance, now.provenance, before.compression, compression) == [
        f"weights: {digest_text('w1')[:12]} -> {digest_text('w2')[:12]}",
        "torch: 1 -> 2.9",
        "threads: 2 -> 4",
        "blas: not recorded -> mkl",
        "effective bits: 4.25 -> 2.25",
        "recipe bits: 4 -> 2",
    ]


def test_threads_do_not_make_another_measurement_but_torch_does(build: Any) -> None:
    before = build.one(9, 5, weights="w1").record.provenance
    threads = build.run({}, engine={"threads": "8"}).record.provenance
    torch = build.run({}, engine={"torch": "2"}).record.provenance
    assert identity_differences(before, threads) == []
    assert identity_differences(before, torch) == ["torch"]
    assert identity_differences(replace(before, engine={}), replace(before, engine={})) != []


def test_only_what_is_required_must_stay_the_same(build: Any) -> None:
    before = build.run({}).record.provenance
    now = build.run({}, engine={"torch": "2.9", "threads": "8", "device": "cuda"}).record.provenance
    assert forbidden_differences(before, now, []) == []
    assert forbidden_differences(before, now, ["dtype", "attention"]) == []
    assert forbidden_differences(before, now, ["threads", "torch"]) == ["threads: 2 -> 8", "torch: 1 -> 2.9"]


def test_a_required_part_that_nobody_recorded_counts_as_different(build: Any) -> None:
    known = build.run({}).record.provenance
    unknown = replace(known, engine={})
    assert forbidden_differences(known, unknown, ["torch"]) == ["torch: 1 -> not recorded"]
    assert forbidden_differences(unknown, known, ["torch"]) == ["torch: not recorded -> 1"]
    assert forbidden_differences(unknown, unknown, ["hardware"]) == ["hardware: not recorded -> not recorded"]


def test_a_name_that_is_no_part_of_an_engine_is_refused_with_the_nearest(build: Any) -> None:
    same = build.run({}).record.provenance
    with pytest.raises(UnknownNameError, match=r"unknown engine part 'hardwear': did you mean 'hardware'\?") as raised:
        forbidden_differences(same, same, ["torch", "hardwear"])
    assert raised.value.exit_code == EXIT_USAGE
