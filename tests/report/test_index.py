"""One page over many runs: newest first, followed cell by cell, and not to be led astray by any file."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from harness.report import write_index, write_report
from harness.report.index import MOST_RED, view_index
from harness.report.runs import MOST_CELLS, PastRun, Unreadable, find_runs, read_past_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory, synthetic, families):
    """Three runs of one profile, one of another."""
    root = tmp_path_factory.mktemp("runs")
    green = synthetic.make_green_bundle(60)
    for day in (1, 3):
        at = {"started_at": f"2031-05-0{day}T07:00:00Z", "ended_at": f"2031-05-0{day}T07:01:00Z"}
        write_report(root / f"day-{day}", replace(green, **at))
    full = replace(synthetic.make_bundle(60), started_at="2031-05-02T07:00:00Z", ended_at="2031-05-02T08:00:00Z")
    write_report(root / "nested" / "day-2", full)
    write_report(root / "hub #1?", families)
    return root


def rows_of(root, at=None):
    found = list(find_runs(root))
    good = [run for run in found if isinstance(run, PastRun)]
    bad = [run for run in found if isinstance(run, Unreadable)]
    return view_index(good, bad, at or root)


def write_run(home, change):
    """A report.json that is right but for ``change``."""
    home.mkdir(parents=True, exist_ok=True)
    plain = {
        "schema_version": 1,
        "run": {
            "profile": "p",
            "policy": "commit",
            "status": "PASS",
            "exit_code": 0,
            "started_at": "2031-05-01T07:00:00Z",
            "ended_at": "2031-05-01T07:00:00Z",
            "cells": [],
        },
    }
    change(plain)
    (home / "report.json").write_text(json.dumps(plain), encoding="utf-8")


def test_runs_are_listed_newest_first_with_what_they_found(runs):
    view = rows_of(runs)
    assert [row.name for row in view.runs] == ["hub #1?", "day-3", "nested/day-2", "day-1"]
    full = view.runs[2]
    assert (full.status.word, full.exit_code, full.policy, full.wall) == ("REGRESSED", "1", "commit", "1\u00a0h 0\u00a0min")
    assert full.red == ("llama_3bit-rtn_none",)
    assert {tally.status.word: tally.n for tally in full.tallies} == {
        "PASS identical": "2",
        "IMPROVED": "1",
        "REGRESSED": "1",
        "INCONCLUSIVE": "1",
        "INVALID": "2",
    }
    assert full.commit == "3f2a9c1"


def test_a_cell_is_followed_through_the_runs_of_its_profile(runs):
    view = rows_of(runs)
    embedded = next(profile for profile in view.profiles if profile.profile == "embedded")
    cells = {row.cell: row for row in embedded.cells}
    four = cells["llama_4bit-rtn_none"]
    assert (four.of, four.n_runs, len(four.trend.dots)) == ("kept of dense", "3", 3)
    plain = json.loads((runs / "day-3" / "report.json").read_text())
    kept = next(c for c in plain["run"]["cells"] if c["id"] == "llama_4bit-rtn_none")["against_dense"]["pooled"]["retention"]
    assert four.latest.text == f"{100 * kept['value']:.1f}\u00a0%"
    assert cells["llama_none_none"].of == "accuracy"
    assert cells["llama_2bit-rtn_none"].trend is None


def test_values_of_other_items_are_not_joined(tmp_path, synthetic):
    for day, n in ((1, 60), (2, 60), (3, 80)):
        at = {"started_at": f"2031-05-0{day}T07:00:00Z", "ended_at": f"2031-05-0{day}T07:01:00Z"}
        write_report(tmp_path / str(day), replace(synthetic.make_green_bundle(n), **at))
    row = rows_of(tmp_path).profiles[0].cells[1]
    assert len(row.trend.dots) == 3
    assert row.trend.line.count("M") == 1


def test_what_was_decided_early_is_no_part_of_a_trend(runs):
    hub = next(profile for profile in rows_of(runs).profiles if profile.profile.startswith("hub"))
    early = next(row for row in hub.cells if row.cell == "t5_4bit-rtn_none")
    assert early.trend is None
    assert early.status.word == "REGRESSED"
    assert hub.summary.endswith("what 1 run measured on a part of the items is not drawn")


def test_links_are_relative_and_lead_to_the_files(runs, tmp_path):
    for out in (runs / "index.html", runs / "nested" / "all.html", tmp_path / "elsewhere" / "index.html"):
        text = write_index(runs, out).read_text(encoding="utf-8")
        links = [link for link in re.findall(r'href="([^"]*)"', text) if not link.startswith(("#", "data:"))]
        assert len(links) == 8
        assert all(link.startswith("./") for link in links)
        assert all((out.parent / unquote(link)).is_file() for link in links)
    (runs / "index.html").unlink()
    (runs / "nested" / "all.html").unlink()


def test_the_same_files_give_the_same_bytes(runs, tmp_path):
    assert write_index(runs, tmp_path / "a.html").read_bytes() == write_index(runs, tmp_path / "b.html").read_bytes()


def test_no_run_at_all_is_a_page_too(tmp_path):
    text = write_index(tmp_path, tmp_path / "index.html").read_text(encoding="utf-8")
    assert "No report.json was found here." in text
    missing = write_index(tmp_path / "nowhere", tmp_path / "index.html").read_text(encoding="utf-8")
    assert "the folder can’t be read" in missing


def _drop(key):
    return lambda plain: plain["run"].pop(key)


def _set(key, value):
    return lambda plain: plain["run"].update({key: value})


HOSTILE_CELL = {"id": "x", "status": "PASS", "cell": {"model": "m", "compression": "c", "recovery": "r"}, "record": 3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.update(schema_version=2), "schema version 2"),
        (lambda plain: plain.update(schema_version=True), "schema version True"),
        (lambda plain: plain.update(schema_version=[1]), r"schema version \[1\]"),
        (lambda plain: plain.pop("schema_version"), "no schema version"),
        (lambda plain: plain.update(run=[]), "key 'run' is not a record"),
        (_drop("started_at"), "key 'started_at' is missing"),
        (_set("started_at", "soon"), "no instant"),
        (_set("started_at", "0001-01-01T00:00:00+14:00"), "no instant"),
        (_set("exit_code", True), "key 'exit_code' is not a whole number"),
        (_set("cells", {}), "key 'cells' is not a list"),
        (_set("cells", [None]), "something else than a record"),
        (_set("cells", [HOSTILE_CELL]), "key 'record' is not a record"),
        (_set("cells", [{}] * (MOST_CELLS + 1)), "more than any matrix has"),
    ],
)
def test_a_report_that_is_none_is_told_with_its_reason(tmp_path, change, said):
    write_run(tmp_path / "bad", change)
    write_run(tmp_path / "good", lambda plain: None)
    found = {run.home.name: run for run in find_runs(tmp_path)}
    assert isinstance(found["good"], PastRun)
    assert isinstance(found["bad"], Unreadable)
    assert re.search(said, found["bad"].reason)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"NaN", b'{"a": NaN}', b"\xff\xfe\x00", b"[" * 200_000, b'{"a":' * 100_000, b"9" * 5000],
)
def test_bytes_that_are_no_report_are_told_with_a_reason(tmp_path, data):
    (tmp_path / "report.json").write_bytes(data)
    found = read_past_run(tmp_path)
    assert isinstance(found, Unreadable)
    assert found.reason.startswith("report.json ")


@pytest.mark.parametrize("value", [1e300, -1e9, "0.5", None, True, [0.5]])
def test_an_estimate_that_is_no_usable_number_is_refused(tmp_path, runs, value):
    plain = json.loads((runs / "day-1" / "report.json").read_text())
    plain["run"]["cells"][1]["against_dense"]["pooled"]["retention"]["value"] = value
    (tmp_path / "report.json").write_text(json.dumps(plain))
    found = read_past_run(tmp_path)
    assert isinstance(found, Unreadable)
    assert "'value' is no usable number" in found.reason


def test_links_pipes_and_locked_files_are_not_followed(tmp_path):
    write_run(tmp_path / "real", lambda plain: None)
    for name in ("linked", "pipe", "folder"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked" / "report.json").symlink_to(tmp_path / "real" / "report.json")
    os.mkfifo(tmp_path / "pipe" / "report.json")
    (tmp_path / "folder" / "report.json").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = {run.home.name: run for run in find_runs(tmp_path)}
    assert set(found) == {"real", "linked", "pipe"}
    assert {name for name, run in found.items() if isinstance(run, Unreadable)} == {"linked", "pipe"}


def test_foreign_names_are_inert(tmp_path):
    names = (
        "<script>alert(1)</script>",
        "javascript:alert(1)",
        "//evil.example",
        "a\u202eb",
        'q" onclick="x',
        "%2e%2e",
        "a?b#c",
    )
    for name in names:
        home = tmp_path.joinpath(*name.split("/"))
        write_run(home, _set("profile", "<b>profile</b>\u202e"))
        (home / "index.html").touch()
    text = write_index(tmp_path, tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<b>profile" not in text
    assert "\u202e" not in text

    class Page(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert not any(name.startswith("on") for name, _ in attrs)
            for name, value in attrs:
                if name == "href" and tag == "a" and not value.startswith("#"):
                    assert re.fullmatch(r"\./[A-Za-z0-9_.~/%-]+", value)

    Page().feed(text)


def test_a_foreign_status_word_is_shown_and_counts_as_invalid(tmp_path):
    write_run(tmp_path, _set("status", "GREEN!\u0000"))
    row = rows_of(tmp_path).runs[0]
    assert (row.status.key, row.status.word) == ("invalid", "GREEN!⟨U+0000⟩")


def test_many_red_cells_are_cut_and_counted(tmp_path):
    cell = {"status": "REGRESSED", "cell": {"model": "m", "compression": "c", "recovery": "r"}, "record": None}
    write_run(tmp_path, _set("cells", [{"id": f"m_{i}_r", **cell} for i in range(20)]))
    row = rows_of(tmp_path).runs[0]
    assert len(row.red) == MOST_RED
    assert row.n_red_hidden == str(20 - MOST_RED)


def test_an_unreadable_folder_does_not_hide_the_others(tmp_path):
    write_run(tmp_path / "good", lambda plain: None)
    (tmp_path / "locked").mkdir(mode=0o000)
    try:
        found = list(find_runs(tmp_path))
    finally:
        (tmp_path / "locked").chmod(0o755)
    assert any(isinstance(run, PastRun) for run in found)
