"""A perplexity is measured whole and judged by no test: it is UNINFORMATIVE by design, and no part of the pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.core.records import CellRun
from harness.core.verdicts import Status
from harness.gate import Family, Policy, judge, undecided

TASKS = ("facts", "wikitext")
FAMILY = Family(n_cells=1, n_tasks=2)
N = 400


@pytest.fixture
def make(build: Any):
    def run(lost: int, nats: float, weights: str) -> CellRun:
        texts = build.task("wikitext", np.zeros(60, dtype=np.bool_), score_class="perplexity", pooled=False, chance=0.0)
        worse = replace(texts.outcomes, margins_nats=np.full(60, -nats))
        facts = build.task("facts", build.right(N, 300, lost))
        return build.run({"facts": facts, "wikitext": replace(texts, outcomes=worse)}, weights=weights)

    return run


def test_a_perplexity_has_no_verdict_but_its_sentence_and_the_pool_is_without_it(
    build: Any, make: Any, policy: Policy
) -> None:
    before = build.baseline(make(0, 3.0, "w1"))
    verdict = judge(make(0, 9.0, "w2"), before, policy, FAMILY, mode="commit", declared_tasks=TASKS)
    perplexity = next(one for one in verdict.tasks if one.task == "wikitext")
    assert perplexity.status is Status.UNINFORMATIVE
    assert "a perplexity is reported and not gated" in perplexity.reason
    assert not perplexity.fails
    assert verdict.pooled is not None
    assert verdict.pooled.evidence is not None
    assert verdict.pooled.evidence.counts.n_items == N
    lost = judge(make(120, 3.0, "w2"), before, policy, FAMILY, mode="commit", declared_tasks=TASKS)
    assert lost.status is Status.REGRESSED


def test_every_text_is_fed_though_the_cell_is_decided(build: Any, make: Any, policy: Policy) -> None:
    before = build.baseline(make(0, 3.0, "w1"))
    run = make(0, 3.0, "w2")
    whole_facts = {"facts": run.runs["facts"], "wikitext": build.cut(run, 21).runs["wikitext"]}
    assert undecided(CellRun(run.record, whole_facts), before, policy, FAMILY, declared_tasks=TASKS) == {"wikitext"}
    assert not undecided(run, before, policy, FAMILY, declared_tasks=TASKS)
