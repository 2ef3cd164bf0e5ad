"""A proposal is made from evidence only, says what it changes and loosens, and touches nothing that is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.baseline import INFORMATIVE_AS_SHIPPED, Repeat, drop_proposal, load_baseline, write_noise_proposal
from harness.baseline.proposal import NO_COMMIT, renew_noise
from harness.core.errors import EXIT_USAGE, ConfigError, EvidenceError
from harness.core.records import Cell, CellFailure, CellRun
from harness.core.verdicts import POOLED, PairedCounts

CELL = Cell("llama", "4bit-rtn", "none")


def test_a_first_proposal_changes_nothing_that_is_accepted(desk: Any, build: Any) -> None:
    made = desk.propose(build.one(200, 120))
    assert desk.files() == {f"proposals/{CELL.id}/{name}" for name in ("proposal.json", "baseline.json", "facts.parquet")}
    assert load_baseline(desk.root, "embedded", CELL) is None
    assert (made.record.replaces, made.record.loosens, made.record.kind) == (None, (), "baseline")
    assert [(unit.name, unit.before) for unit in made.record.changes.units] == [("facts", None), (POOLED, None)]
    found = desk.proposal()
    assert found.record == made.record
    assert found.baseline.record == made.baseline.record


def test_proposing_again_replaces_the_proposal(desk: Any, build: Any) -> None:
    desk.propose(build.one(200, 120))
    desk.propose(build.one(200, 130))
    assert desk.proposal().baseline.record.tasks["facts"].n_correct == 130
    assert {path.name for path in desk.proposed.parent.iterdir()} == {CELL.id}


def test_a_proposal_tells_what_it_would_change(accepted: Any, build: Any) -> None:
    before = {path: path.read_bytes() for path in accepted.home.iterdir()}
    now = build.run(
        {"facts": build.task("facts", build.right(200, 120, lost=2, gained=12))}, weights="w3", engine={"torch": "2"}
    )
    made = accepted.propose(now).record
    assert {path: path.read_bytes() for path in accepted.home.iterdir()} == before
    assert made.replaces == accepted.load().record.digest
    facts = made.changes.units[0]
    assert facts.counts == PairedCounts(2, 12, 186)
    assert (facts.before.accuracy, facts.now.accuracy) == (0.6, 0.65)
    assert facts.loss.method == "tango"
    assert facts.loss.low < -0.05 < facts.loss.high
    assert [word.partition(":")[0] for word in made.changes.differences] == ["weights", "torch"]
    assert made.loosens == ()


def test_the_median_run_is_proposed_with_the_flips_of_the_others(desk: Any, build: Any) -> None:
    base = build.one(200, 120)
    made = desk.propose(build.flipped(base, lost=3), base, build.flipped(base, gained=1)).baseline.record
    assert made.tasks["facts"].n_correct == 120
    assert [(run.label, run.n_flips["facts"]) for run in made.noise.runs] == [
        ("batches of 256 tokens", 0),
        ("as declared", 3),
        ("batches of 512 tokens", 1),
    ]


def test_a_proposal_without_a_known_commit_says_so(desk: Any, build: Any) -> None:
    run = build.one(200, 120)
    unknown = CellRun(replace(run.record, provenance=replace(run.record.provenance, commit="unknown")), run.runs)
    assert desk.propose(run).record.remarks == ()
    assert desk.propose(unknown).record.remarks == (NO_COMMIT,)


def test_over_a_baseline_that_can_not_be_read_everything_may_be_given_up(accepted: Any, build: Any) -> None:
    (accepted.home / "facts.parquet").write_bytes(b"")
    made = accepted.propose(build.one(200, 120, weights="w1")).record
    assert made.replaces is not None
    assert made.loosens == ("the accepted baseline can't be read, so nothing shows what is given up",)


def test_a_dropped_proposal_is_gone_and_leaves_no_empty_folder(accepted: Any, build: Any) -> None:
    accepted.propose(build.one(200, 120))
    assert drop_proposal(accepted.root, "embedded", CELL)
    assert not accepted.proposed.parent.exists()
    assert not drop_proposal(accepted.root, "embedded", CELL)
    assert accepted.load().record.tasks["facts"].n_correct == 120


# ------------------------------------------------------------------------------------------------ evidence


def with_labels(repeats: list[Repeat], *labels: str) -> list[Repeat]:
    return [replace(repeat, label=label) for repeat, label in zip(repeats, labels, strict=True)]


@pytest.mark.parametrize(
    ("make", "said", "words"),
    [
        (lambda b: [b.one(200, 120, origin="baseline")], {}, "no evidence for itself"),
        (lambda b: [b.one(200, 120), b.one(200, 120), b.one(200, 120, origin="baseline")], {}, "no evidence for itself"),
        (lambda b: [b.one(200, 120, limit=200)], {}, "without --harness-limit"),
        (lambda b: [b.one(200, 120, n_items=300)], {}, "a part of its items"),
        (lambda b: [b.one(200, 120)], {"declared_tasks": ("facts", "blank")}, "left out blank"),
        (lambda b: [b.run({})], {"declared_tasks": ()}, "every task"),
        (lambda b: [b.one(200, 120)], {"reason": "  "}, "needs a reason"),
        (lambda b: [b.one(2, 1, items=(b.items("facts", 1) * 2))], {}, "one twice"),
        (lambda b: [CellFailure(CELL, "embedded", "a score is NaN")], {}, "was not measured (a score is NaN)"),
        (
            lambda b: [b.one(200, 120), b.one(200, 120), CellFailure(CELL, "embedded", "out of memory")],
            {},
            "was not measured (out of memory)",
        ),
        (
            lambda b: [b.one(200, 120), b.one(200, 121)],
            {},
            "at least 3 A/A runs to know what it moves by when nothing changes, 2",
        ),
        (lambda b: [b.one(200, 120), b.one(200, 120), b.one(200, 120, tie_rule="first")], {}, "(tasks differ)"),
        (lambda b: [b.one(200, 120), b.one(200, 120), b.one(200, 120, scorer="plain 2")], {}, "(scorers differ)"),
        (lambda b: [b.one(200, 120), b.one(200, 120), b.one(200, 120, weights="w9")], {}, "must declare itself re-compressed"),
    ],
)
def test_no_evidence_no_proposal(
    desk: Any, build: Any, make: Callable[[Any], list[Any]], said: dict[str, Any], words: str
) -> None:
    with pytest.raises(EvidenceError) as raised:
        desk.propose(*make(build), **said)
    assert words in str(raised.value)
    assert raised.value.exit_code == EXIT_USAGE
    assert not desk.root.exists()


def test_the_same_run_three_times_is_no_evidence(desk: Any, build: Any) -> None:
    repeats = with_labels(build.repeats(build.one(200, 120)), "a", "b", "a")
    with pytest.raises(EvidenceError, match="the same run twice is no spread"):
        desk.propose(repeats=repeats)


def test_a_recompressed_cell_may_have_other_weights_and_seeds_but_not_another_recipe(desk: Any, build: Any) -> None:
    tasks = {"facts": build.task("facts", build.right(200, 120))}

    def run(weights: str, **recipe: Any) -> CellRun:
        made = build.run(tasks, weights=weights, stability="re-compressed")
        compression = replace(made.record.compression, recipe={**made.record.compression.recipe, **recipe})
        return CellRun(replace(made.record, compression=compression), made.runs)

    desk.propose(run("a", seed=0), run("b", seed=1), run("c", seed=2))
    with pytest.raises(EvidenceError, match="recipe differ"):
        desk.propose(run("a"), run("b"), run("c", bits=3))


def test_names_that_could_leave_the_folder_are_refused(desk: Any, build: Any) -> None:
    for run in (
        build.run({"facts": build.task("facts", build.right(9, 5))}, profile="../out"),
        build.run({"../facts": build.task("facts", build.right(9, 5))}),
    ):
        with pytest.raises(ConfigError, match="can't name"):
            desk.propose(run, declared_tasks=())


# ------------------------------------------------------------------------------------------------ noise of its own


def repeats_of(build: Any, *runs: CellRun) -> list[Repeat]:
    return [Repeat(f"batches of {512 * i} tokens", None, 1, 512 * i, run) for i, run in enumerate(runs, start=2)]


def test_new_noise_leaves_the_outcomes_and_everything_else_as_they_are(accepted: Any, build: Any) -> None:
    base, before = build.one(200, 120, weights="w1"), accepted.load()
    renewed = renew_noise(before, repeats_of(build, build.flipped(base, lost=1), build.flipped(base, gained=2)))
    made = write_noise_proposal(accepted.root, renewed, informative=INFORMATIVE_AS_SHIPPED)
    assert replace(made.baseline.record, noise=None, digest="") == replace(before.record, noise=None, digest="")
    assert [run.n_flips["facts"] for run in made.baseline.record.noise.runs] == [0, 1, 2]
    assert made.record.kind == "noise"
    assert len(made.record.loosens) == 4  # spread and flip rate of the task and of the pool
    assert made.record.loosens[0].startswith("the A/A spread of facts grows from 0 to ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b.one(200, 120, weights="w9"), "must declare itself re-compressed"),
        (lambda b: b.one(200, 120, weights="w1", items_digest="0"), "(tasks differ)"),
        (lambda b: b.one(200, 120, weights="w1", limit=200), "without --harness-limit"),
        (lambda b: b.one(200, 120, weights="w1", origin="baseline"), "no evidence for itself"),
        (lambda b: b.run({}, weights="w1"), "left out facts"),
    ],
)
def test_noise_of_something_else_is_refused(accepted: Any, build: Any, change: Callable[[Any], CellRun], words: str) -> None:
    with pytest.raises(EvidenceError) as raised:
        renew_noise(accepted.load(), repeats_of(build, build.one(200, 120, weights="w1"), change(build)))
    assert words in str(raised.value)


def test_two_runs_are_not_enough_for_new_noise_and_the_stored_one_counts_once(accepted: Any, build: Any) -> None:
    run = build.one(200, 120, weights="w1")
    with pytest.raises(EvidenceError, match="2 came"):
        renew_noise(accepted.load(), repeats_of(build, run))
    with pytest.raises(EvidenceError, match="same label"):
        renew_noise(accepted.load(), [*repeats_of(build, run), Repeat("as declared", None, 2, None, run)])


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("proposal.json", lambda p: p.write_text(p.read_text().replace('"loosens": []', '"loosens": ["x"]'))),
        ("proposal.json", lambda p: p.write_text(p.read_text().replace('"kind": "baseline"', '"kind": "noise"'))),
        ("proposal.json", lambda p: p.write_bytes(p.read_bytes()[:-30])),
        ("proposal.json", lambda p: p.unlink()),
        ("baseline.json", lambda p: p.write_text(p.read_text().replace('"n_correct": 120', '"n_correct": 121'))),
        ("facts.parquet", lambda p: p.write_bytes(b"")),
    ],
)
def test_an_edited_proposal_is_refused_with_the_commands_that_help(
    desk: Any, build: Any, file: str, damage: Callable[[Path], Any]
) -> None:
    desk.propose(build.one(200, 120))
    damage(desk.proposed / file)
    with pytest.raises(EvidenceError) as raised:
        desk.accept()
    assert str(desk.proposed / file) in str(raised.value)
    assert f"`harness baseline drop {CELL.id}`" in str(raised.value)
    assert not desk.home.exists()


def test_a_proposal_beside_another_baseline_is_refused(desk: Any, build: Any) -> None:
    desk.propose(build.one(200, 120))
    told = (desk.proposed / "proposal.json").read_bytes()
    desk.propose(build.one(200, 130))
    (desk.proposed / "proposal.json").write_bytes(told)
    with pytest.raises(EvidenceError, match="not about the baseline beside it"):
        desk.accept()
