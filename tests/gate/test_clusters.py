"""Relations that stand for others: the largest p-value decides, at full N only; a line of the matrix loosens nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.baseline.record import digest_record
from harness.core.errors import FileFormatError
from harness.core.records import Cell, CellRun, Item, TaskRun
from harness.core.run_folder import read_run, write_cell
from harness.core.serial import as_mapping
from harness.core.verdicts import CellVerdict, Status
from harness.gate import Dense, Family, Policy, Sibling, judge, undecided
from harness.gate.feasibility import cell_feasibility, feasibility
from harness.gate.policy import DenseFloor
from harness.gate.recorded import Recorded, problem_of
from harness.stats.sequential import round_ends

N, C = 1200, 24
FAMILY = Family(n_cells=5, n_tasks=5)
GROUPS = np.arange(N) % C
RIGHT = np.random.default_rng(0).random(N) < 0.6


def items(name: str = "trex", n_relations: int = C) -> tuple[Item, ...]:
    return tuple(
        Item(f"{name}-{i}", f"P{i % n_relations}", f"fact {i} is [Y]", ("a", "b", "c", "d"), (i % 4,)) for i in range(N)
    )


def loses(share: float, relations: int = C, of: np.ndarray = RIGHT) -> np.ndarray:
    """So large a share of all items, taken from the first relations only; in each the same."""
    now, each = of.copy(), round(share * N / relations)
    for relation in range(relations):
        now[np.flatnonzero(of & (relation == GROUPS))[:each]] = False
    return now


@pytest.fixture
def make(build: Any):
    def run(correct: np.ndarray, weights: str = "w2", *, n_clusters: int | None = C, **changes: Any) -> CellRun:
        asked = changes.pop("items", items())
        task = build.task("trex", correct, items=asked, n_clusters=n_clusters, **changes)
        return build.run({"trex": task}, weights=weights)

    return run


def judged(build: Any, run: CellRun, baseline: CellRun, policy: Policy, **changes: Any) -> CellVerdict:
    return judge(run, build.baseline(baseline), policy, FAMILY, mode="commit", declared_tasks=tuple(run.runs), **changes)


def test_a_loss_in_a_few_relations_is_proven_of_these_facts_and_not_of_others(build: Any, make: Any, policy: Policy) -> None:
    lost = loses(0.03, relations=3)
    strata = judged(build, make(lost, n_clusters=None), make(RIGHT, "w1", n_clusters=None), policy).pooled
    clusters = judged(build, make(lost), make(RIGHT, "w1"), policy).pooled
    assert (strata.status, clusters.status) == (Status.REGRESSED, Status.INCONCLUSIVE)
    assert (strata.evidence.n_clusters, clusters.evidence.n_clusters) == (None, C)
    assert clusters.evidence.loss.method == "cluster bootstrap"
    assert clusters.evidence.loss.low < strata.evidence.loss.low < strata.evidence.loss.high < clusters.evidence.loss.high
    assert f"in {C} relations that stand for others" in clusters.reason
    assert "more items in more such relations would decide" in clusters.reason
    assert clusters.evidence.min_detectable_loss > strata.evidence.min_detectable_loss


def test_so_many_more_relations_would_decide(build: Any, make: Any, policy: Policy) -> None:
    """The promise of the sentence, kept: the same relations twice, three times … turn red where it says so."""
    found = judged(build, make(loses(0.03, relations=3)), make(RIGHT, "w1"), policy).pooled
    times = 1 + found.evidence.items_needed / N
    for copies, status in ((int(times), Status.INCONCLUSIVE), (int(np.ceil(times)), Status.REGRESSED)):
        asked = tuple(
            replace(item, id=f"{copy}-{item.id}", group=f"{item.group}.{copy}") for copy in range(copies) for item in items()
        )
        lost, right = np.tile(loses(0.03, relations=3), copies), np.tile(RIGHT, copies)
        uncapped = replace(policy, pool_cap_items=len(asked))
        run = make(lost, n_clusters=C * copies, items=asked)
        assert judged(build, run, make(right, "w1", n_clusters=C * copies, items=asked), uncapped).pooled.status is status


def test_a_loss_in_every_relation_is_red_and_no_loss_passes(build: Any, make: Any, policy: Policy) -> None:
    before = make(RIGHT, "w1")
    assert judged(build, make(loses(0.05)), before, policy).pooled.status is Status.REGRESSED
    swapped = RIGHT.copy()
    swapped[np.flatnonzero(RIGHT)[:6]], swapped[np.flatnonzero(~RIGHT)[:6]] = False, True
    passed = judged(build, make(swapped), before, policy)
    assert (passed.status, passed.pooled.identical) == (Status.PASS, False)
    assert judged(build, make(RIGHT), before, policy).pooled.identical


def test_there_is_no_early_verdict(build: Any, make: Any, policy: Policy) -> None:
    """Even a cell that lost half is fed whole, where strata would be red after a few percent."""
    ruined, baseline = loses(0.4), build.baseline(make(RIGHT, "w1"))
    for n_clusters, wanted in ((C, {"trex"}), (None, set())):
        run = make(ruined, n_clusters=n_clusters)
        before = build.baseline(make(RIGHT, "w1", n_clusters=n_clusters))
        for index in (3, -2):
            part = build.cut(run, round_ends(N)[index])
            assert undecided(part, before, policy, FAMILY, declared_tasks=("trex",)) == wanted
    assert undecided(make(ruined), baseline, policy, FAMILY, declared_tasks=("trex",)) == frozenset()


def test_fewer_than_ten_relations_are_fixed_strata(build: Any, make: Any, policy: Policy) -> None:
    few, lost = items(n_relations=9), loses(0.03, relations=3)
    said = judged(build, make(lost, items=few, n_clusters=9), make(RIGHT, "w1", items=few, n_clusters=9), policy)
    plain = judged(build, make(lost, items=few, n_clusters=None), make(RIGHT, "w1", items=few, n_clusters=None), policy)
    assert as_mapping(said) == as_mapping(plain)


FEW = np.flatnonzero(GROUPS < 7)
"""What a limited run asks: the items of seven relations."""


def limited(make: Any, correct: np.ndarray, weights: str = "w2", n_clusters: int | None = 7) -> CellRun:
    asked = items()
    return make(correct[FEW], weights, items=tuple(asked[i] for i in FEW), n_clusters=n_clusters, limit=len(FEW))


@pytest.mark.parametrize("now", [7, None])
@pytest.mark.parametrize("correct", [loses(0.4), loses(0.001), RIGHT])
def test_a_limited_run_of_fewer_than_ten_relations_proves_nothing_about_the_others(
    build: Any, make: Any, policy: Policy, now: int | None, correct: np.ndarray
) -> None:
    """Neither red nor passed, whatever it lost, and whether the matrix says still that they stand for others."""
    run, before = limited(make, correct, n_clusters=now), make(RIGHT, "w1")
    found = judged(build, run, before, policy)
    n_lost = int((RIGHT[FEW] & ~correct[FEW]).sum())
    assert [verdict.status for verdict in found.all] == [Status.INCONCLUSIVE] * 2
    assert all(verdict.evidence is None and not verdict.fails for verdict in found.all)
    for verdict in found.all:
        said = f"{n_lost} of 350 items lost, 0 gained, in 7 relations that stand for others: fewer than 10 prove nothing"
        assert said in verdict.reason
    assert judge(run, build.baseline(before), policy, FAMILY, mode="release", declared_tasks=("trex",)).pooled.fails, (
        "a release is not passed by a few relations"
    )
    left = undecided(build.cut(run, round_ends(350)[4]), build.baseline(before), policy, FAMILY, declared_tasks=("trex",))
    assert left == {"trex"}, "no early verdict either"


def test_a_limited_run_is_tested_by_relation_where_it_asks_ten_of_them(build: Any, make: Any, policy: Policy) -> None:
    some, asked = np.flatnonzero(GROUPS < 12), items()
    run = make(loses(0.4)[some], items=tuple(asked[i] for i in some), n_clusters=12, limit=len(some))
    found = judged(build, run, make(RIGHT, "w1"), policy).pooled
    assert (found.status, found.evidence.n_clusters, found.evidence.n_clustered) == (Status.REGRESSED, 12, 600)


def test_a_limited_run_of_a_task_that_has_fewer_than_ten_in_all_is_tested_by_items(
    build: Any, make: Any, policy: Policy
) -> None:
    """Its whole number of relations is the baseline's; where that does not say it, the run may have left out any number."""
    for known, wanted in ((9, Status.REGRESSED), (None, Status.INCONCLUSIVE)):
        found = judged(build, limited(make, loses(0.4)), make(RIGHT, "w1", n_clusters=known), policy)
        assert found.pooled.status is wanted
    plain = limited(make, loses(0.4), n_clusters=None)
    assert judged(build, plain, make(RIGHT, "w1", n_clusters=None), policy).pooled.status is Status.REGRESSED


def test_a_floor_is_not_proven_by_a_few_relations_either(build: Any, make: Any, policy: Policy) -> None:
    """The dense cell of the same limited run is no whole record: it does not say how many relations there are."""
    ruled = replace(policy, dense_floor=(DenseFloor("*", 0.05),))
    dense = Dense(limited(make, RIGHT, "w0"))
    found = judged(build, limited(make, loses(0.4)), make(loses(0.4), "w1"), ruled, dense=dense).pooled
    assert found.status is Status.INCONCLUSIVE
    plain = Dense(limited(make, RIGHT, "w0", n_clusters=None))
    strata = limited(make, loses(0.4), n_clusters=None)
    assert judged(build, strata, make(loses(0.4), "w1", n_clusters=None), ruled, dense=plain).pooled.status is Status.REGRESSED


def test_a_limited_run_that_took_over_the_baselines_answers_is_identical(build: Any, make: Any, policy: Policy) -> None:
    asked = tuple(items()[i] for i in FEW)
    task = build.task("trex", RIGHT[FEW], items=asked, n_clusters=7, limit=len(FEW), origin="baseline")
    found = judged(build, build.run({"trex": task}, weights="w1"), make(RIGHT, "w1"), policy)
    assert (found.status, found.pooled.identical) == (Status.PASS, True)


def test_a_single_relation_and_a_pool_cut_by_the_policy_prove_nothing_either(build: Any, make: Any, policy: Policy) -> None:
    one, asked = np.flatnonzero(GROUPS < 1), items()
    run = make(loses(0.4)[one], items=tuple(asked[i] for i in one), n_clusters=1, limit=len(one))
    found = judged(build, run, make(RIGHT, "w1"), policy)
    assert "in 1 relation that stands for others" in found.pooled.reason
    cut = judged(build, make(loses(0.4)), make(RIGHT, "w1"), replace(policy, pool_cap_items=6))
    assert (cut.pooled.status, cut.tasks[0].status) == (Status.INCONCLUSIVE, Status.REGRESSED)
    assert "pool_cap_items" in cut.pooled.reason


def test_what_was_accepted_holds_when_the_matrix_says_less(build: Any, make: Any, policy: Policy) -> None:
    lost = loses(0.03, relations=3)
    for now, known in ((None, C), (C, None)):
        found = judged(build, make(lost, n_clusters=now), make(RIGHT, "w1", n_clusters=known), policy)
        assert found.pooled.evidence.n_clusters == C


def test_a_run_without_its_items_is_invalid(build: Any, make: Any, policy: Policy) -> None:
    run = make(loses(0.03))
    bare = CellRun(run.record, {"trex": replace(run.runs["trex"], items=())})
    found = judged(build, bare, make(RIGHT, "w1"), policy)
    assert found.status is Status.INVALID
    assert "the items that tell which is which" in found.tasks[0].reason


def test_a_pool_may_have_both_kinds_and_one_relation_in_two_tasks_is_one(build: Any, policy: Policy) -> None:
    def run(lost: np.ndarray, weights: str) -> CellRun:
        def task(name: str, correct: np.ndarray, n_clusters: int | None) -> TaskRun:
            return build.task(name, correct, items=items(name), n_clusters=n_clusters)

        tasks = {"trex": task("trex", lost, C), "bear": task("bear", lost, C), "facts": task("facts", RIGHT, None)}
        return build.run(tasks, weights=weights)

    found = judged(build, run(loses(0.05, relations=4), "w2"), run(RIGHT, "w1"), policy)
    assert found.pooled.evidence.n_clusters == C, "not twice as many: P0 of the one is P0 of the other"
    assert [task.evidence.n_clusters for task in found.tasks] == [C, C, None]
    assert found.tasks[2].status is Status.PASS
    assert f"0 gained, 2,400 of the items in {C} relations that stand for others)" in found.pooled.reason
    assert "items of all tasks, in more such relations, would decide" in found.pooled.reason
    assert found.pooled.evidence.n_clustered == 2 * N
    half = build.cut(run(loses(0.05, relations=4), "w2"), round_ends(N)[-3])
    left = undecided(half, build.baseline(run(RIGHT, "w1")), policy, FAMILY, declared_tasks=("trex", "bear", "facts"))
    assert left == {"trex", "bear", "facts"}, "the pool needs all of its tasks"


def test_a_recovery_is_judged_by_relation_too(build: Any, policy: Policy) -> None:
    recovered, compressed = Cell("llama", "4bit-rtn", "idp"), Cell("llama", "4bit-rtn", "none")
    compressed_right = RIGHT & (np.random.default_rng(2).random(N) < 0.8)

    def judge_recovery(now: np.ndarray, n_clusters: int | None) -> Any:
        def cell(which: Cell, correct: np.ndarray, weights: str) -> CellRun:
            task = build.task("trex", correct, cell=which, items=items(), n_clusters=n_clusters)
            return build.run({"trex": task}, cell=which, weights=weights)

        sibling = Sibling(cell(compressed, compressed_right, "w2"), build.baseline(cell(compressed, compressed_right, "w1")))
        run, before = cell(recovered, now, "w2"), cell(recovered, RIGHT, "w1")
        return judged(build, run, before, policy, sibling=sibling).recovery

    few = loses(0.04, relations=3)
    strata, clusters = judge_recovery(few, None), judge_recovery(few, C)
    assert (strata.status, clusters.status) == (Status.REGRESSED, Status.INCONCLUSIVE)
    assert clusters.gain.n_clusters == C
    assert clusters.gain.loss.low < strata.gain.loss.low
    assert clusters.gain.items_needed > 0
    assert judge_recovery(loses(0.10), C).status is Status.REGRESSED
    assert judge_recovery(loses(0.001, relations=1), C).status is Status.PASS


def test_a_recovery_of_fewer_than_ten_relations_proves_nothing(build: Any, make: Any, policy: Policy) -> None:
    recovered, compressed = Cell("llama", "4bit-rtn", "idp"), Cell("llama", "4bit-rtn", "none")
    asked = items()
    known = RIGHT & (np.random.default_rng(2).random(N) < 0.8)

    def cell(which: Cell, correct: np.ndarray, weights: str, part: np.ndarray, **changes: Any) -> CellRun:
        task = build.task("trex", correct[part], cell=which, items=tuple(asked[i] for i in part), **changes)
        return build.run({"trex": task}, cell=which, weights=weights)

    whole, cut = {"n_clusters": C}, {"n_clusters": 7, "limit": len(FEW)}
    everything = np.arange(N)
    for now in (loses(0.4), loses(0.001), RIGHT):
        sibling = Sibling(
            cell(compressed, known, "w2", FEW, **cut), build.baseline(cell(compressed, known, "w1", everything, **whole))
        )
        run, before = cell(recovered, now, "w2", FEW, **cut), cell(recovered, RIGHT, "w1", everything, **whole)
        found = judged(build, run, before, policy, sibling=sibling).recovery
        assert (found.status, found.gain) == (Status.INCONCLUSIVE, None)
        assert "350 items, in 7 relations that stand for others: fewer than 10 prove nothing" in found.reason


def test_a_recompressed_cell_has_both_spreads(build: Any, policy: Policy) -> None:
    def run(correct: np.ndarray, weights: str) -> CellRun:
        task = build.task("trex", correct, items=items(), n_clusters=C)
        return build.run({"trex": task}, weights=weights, stability="re-compressed")

    noise = build.noise((0.590, 0.595, 0.600, 0.605, 0.610), tasks=("trex",))
    lost = loses(0.05)
    found = judge(
        run(lost, "w2"),
        build.baseline(run(RIGHT, "w1"), noise),
        policy,
        FAMILY,
        mode="commit",
        declared_tasks=("trex",),
    ).pooled
    still = judged(build, build.run({"trex": run(lost, "w2").runs["trex"]}, weights="w2"), run(RIGHT, "w1"), policy)
    assert found.evidence.sigma_recompression > 0
    assert found.evidence.n_clusters == C
    assert found.evidence.loss.low < 0.05 < found.evidence.loss.high
    assert still.pooled.status is Status.INVALID, "without measured noise a cell that moves can't be compared"


def test_a_record_without_clusters_has_the_digest_that_it_always_had(build: Any, make: Any) -> None:
    made = build.baseline(make(RIGHT, n_clusters=None)).record
    fields = as_mapping(made)
    del fields["tasks"]["trex"]["info"]["n_clusters"]
    assert digest_record(made) == made.digest == digest_record(fields)
    assert digest_record(build.baseline(make(RIGHT)).record) != made.digest


def test_an_unchanged_cell_stays_identical_when_its_relations_come_to_stand_for_others(build: Any, make: Any) -> None:
    known, now = build.baseline(make(RIGHT, "w1", n_clusters=None)), make(RIGHT, "w1")
    info = now.runs["trex"].info
    assert known.outcomes_if_identical(now.record.provenance, info, "plain 1") is not None


def test_students_quantile_and_no_early_share_enter_the_warning(build: Any, make: Any, policy: Policy) -> None:
    strata, clusters = (feasibility(policy, policy.cell, 725, flip_rate=0.01, n_clusters=c) for c in (None, 200))
    assert strata.feasible, "725 items were the fewest that could pass, half of the level being kept for early verdicts"
    assert clusters.feasible
    few = feasibility(policy, policy.cell, 300, flip_rate=0.01, n_clusters=10)
    assert "300 items in 10 relations that stand for others can hardly prove" in few.sentence("cell")
    assert cell_feasibility(policy, build.baseline(make(RIGHT))).n_clusters == C


def test_the_warning_counts_no_relation_twice_and_says_which_items_are_in_them(build: Any, policy: Policy) -> None:
    """A baseline does not hold which relations its tasks share: those of the task with the most are sure to be there."""
    tasks = {
        "trex": build.task("trex", RIGHT, items=items(), n_clusters=C),
        "bear": build.task("bear", RIGHT, items=items("bear", 20), n_clusters=20),
        "nine": build.task("nine", RIGHT, items=items("nine", 9), n_clusters=9),
        "facts": build.task("facts", RIGHT, items=items("facts"), n_clusters=None),
    }
    before = build.baseline(build.run(tasks))
    found = cell_feasibility(policy, before)
    assert (found.n_items, found.n_clusters, found.n_clustered) == (4 * N, C, 2 * N)
    few = cell_feasibility(policy, before, limit=30)
    assert "120 items, 60 of the items in 24 relations that stand for others, can hardly prove" in few.sentence("cell")
    wide = replace(policy, cell=replace(policy.cell, m1_floor=0.9, m1_cap=0.9))
    assert feasibility(wide, wide.cell, 12, flip_rate=0.01, n_clusters=41).feasible
    nine = feasibility(wide, wide.cell, 9, flip_rate=0.01, n_clusters=41)
    assert (nine.feasible, nine.n_needed) == (False, 10), "nine items are no ten relations"
    assert "9 items in 9 relations that stand for others" in nine.sentence("cell")


def test_the_selftest_says_that_it_can_not_inject_into_relations(build: Any, make: Any, policy: Policy) -> None:
    run = make(RIGHT)
    assert "stand for others" in problem_of(Recorded(run, build.baseline(run), None, policy, FAMILY), ("trex",))


@pytest.mark.parametrize("is_sealed", [True, False])
def test_relations_that_were_relabelled_on_disk_are_refused(
    build: Any, make: Any, policy: Policy, tmp_path: Path, is_sealed: bool
) -> None:
    write_cell(tmp_path, make(loses(0.03)))
    home = next((tmp_path / "records").iterdir())
    if not is_sealed:  # as records were before their items had a digest
        sealed = json.loads((home / "digests.json").read_text("utf-8"))
        del sealed["files"]["trex.items.parquet"]
        (home / "digests.json").write_text(json.dumps(sealed), "utf-8")
    (run,) = read_run(tmp_path)
    assert judged(build, run, make(RIGHT, "w1"), policy).pooled.evidence.n_clusters == C

    file = home / "trex.items.parquet"
    table = pq.read_table(file)
    place = table.schema.get_field_index("group")
    pq.write_table(table.set_column(place, "group", pa.array([f"own {i}" for i in range(N)])), file)
    with pytest.raises(FileFormatError, match="measure it again"):
        judged(build, *read_run(tmp_path), make(RIGHT, "w1"), policy)
