"""The report in Markdown: for a CI job's summary, and the result table of the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.core.verdicts import POOLED, Estimate
from harness.report import format as fmt
from harness.report.bundle import RunBundle
from harness.report.hints import hints
from harness.report.markdown import escape, table
from harness.report.pairs import Answer, Flip, compared_flips, option_of
from harness.report.sections.banner import Finding, view_banner
from harness.report.sections.choices import view_choices
from harness.report.sections.sizes import fronts

N_FLIPS = 5
"""Lost items shown for each case that lost some; the page has the rest."""

N_TABLES = 12
"""Cases whose lost items are shown; a CI system takes no summary of any length."""

N_HINTS = 10
"""Early warnings shown; the page has the rest."""

NONE = "–"


def summarize(bundle: RunBundle, report_json: Mapping[str, Any]) -> str:
    """The summary of a run: verdict, table, what to look at, and the first items lost."""
    top = view_banner(bundle)
    ran = (
        f"Exit code **{top.exit_code}** ({top.exit_meaning}), policy `{top.policy}` ({top.policy_meaning}), "
        f"started {top.started}, took {top.wall}."
    )
    parts = [f"## {top.status.word}: retention, profile {escape(bundle.profile)}", escape(top.sentence), ran]
    if report_json["run"]["cells"]:
        parts.append(summary_table(report_json))
        parts += [_front(model, cells) for model, cells in fronts(bundle).items() if len(cells) > 1]
    if top.findings:
        parts.append("### To look at")
        parts.append("\n".join(map(_finding, top.findings)))
    parts += _chosen(bundle)
    if found := hints(bundle).warnings:
        parts.append("### Early warnings")
        parts.append("\n".join(f"- {escape(one.sentence)}." for one in found[:N_HINTS]))
        if len(found) > N_HINTS:
            parts.append(f"{fmt.plural(len(found) - N_HINTS, 'more')} in `index.html`.")
    parts += _lost(bundle)
    parts.append("The whole report is `index.html` beside this file; every number is in `report.json`.")
    return "\n\n".join(parts) + "\n"


def summary_table(report_json: Mapping[str, Any]) -> str:
    """The result table of a report.json, in Markdown: one row a cell, in matrix order.

    Accuracy, retention and flips are of the pooled tasks (of the only pooled task where no pool was judged). Retention and
    flips are against the dense model, the loss is against the cell's own baseline.
    """
    header = [
        "Cell",
        "Verdict",
        "Loss against baseline",
        "Accuracy",
        "Kept of dense",
        "Lost / gained of dense",
        "Bits a weight",
        "Size",
    ]
    rows = [_row(cell) for cell in report_json["run"]["cells"]]
    return table(header, rows, [False, False, True, True, True, True, True, True])


def _front(model: str, cells: Sequence[str]) -> str:
    named = ", ".join(f"`{cell}`" for cell in cells)
    return f"Pareto front of {escape(model)}, size against what is kept, by the estimates: {named}."


def _finding(finding: Finding) -> str:
    tasks = f" ({escape(finding.tasks)})" if finding.tasks else ""
    return f"- **{finding.status.word}** `{finding.cell}`{tasks}: {escape(finding.reason)}"


def _row(cell: Mapping[str, Any]) -> list[str]:
    name, status = f"`{cell['id']}`", _bold(cell["status"])
    if cell["record"] is None:
        return [name, status, *([NONE] * 6)]
    pooled = (cell["verdict"] or {}).get("pooled")
    evidence = pooled["evidence"] if pooled else None
    compression = cell["record"]["compression"]
    dense = _pooled(cell["against_dense"], cell)
    is_dense = cell["cell"]["compression"] == "none" and cell["cell"]["recovery"] == "none"
    return [
        name,
        status,
        _with_interval(evidence["loss"], of_loss=True) if evidence else NONE,
        _with_interval(evidence["accuracy_candidate"] if evidence else _pooled(cell["accuracy"], cell)),
        "the reference" if is_dense else _with_interval(dense and dense["retention"]),
        NONE if dense is None else f"{fmt.count(dense['counts']['n_lost'])} / {fmt.count(dense['counts']['n_gained'])}",
        fmt.bits(compression["effective_bits"]),
        fmt.size(compression["size_bytes"]),
    ]


def _pooled(cases: Mapping[str, Any], cell: Mapping[str, Any]) -> Any:
    """A case's entry for the pool, or for the only pooled task, or None."""
    if POOLED in cases:
        return cases[POOLED]
    pooled = [name for name, info in cell["record"]["tasks"].items() if info["pooled"]]
    return cases.get(pooled[0]) if len(pooled) == 1 else None


def _with_interval(value: Mapping[str, Any] | None, of_loss: bool = False) -> str:
    if value is None:
        return NONE
    if "reason" in value:
        return "undefined"
    found = Estimate(**value)
    if of_loss:
        return f"{fmt.points(found.value)} {fmt.points_interval(found.low, found.high)}"
    return f"{fmt.percent(found.value)} {fmt.percent_interval(found.low, found.high)}"


def _bold(status: str) -> str:
    return f"**{status}**" if status in ("REGRESSED", "INVALID", "INCONCLUSIVE") else status


def _chosen(bundle: RunBundle) -> list[str]:
    rows = view_choices(bundle).rows
    if not rows:
        return []
    header = ["Cell and task", "Chosen", "By attention", "Best single", "Random, expected", "Oracle"]
    made = [
        [
            f"`{row.cell}`-{escape(row.task)}",
            "; ".join(f"{bar.prompt} {bar.share}" for bar in row.bars),
            *(f"{one.text} {one.interval}".strip() for one in (row.accuracy, row.best, row.random, row.oracle)),
        ]
        for row in rows
    ]
    warned = [f"- **early warning** `{row.cell}`: {escape(row.warning)}" for row in rows if row.warning]
    told = ["### Prompt choice", table(header, made, [False, False, True, True, True, True])]
    return [*told, "\n".join(warned)] if warned else told


def _lost(bundle: RunBundle) -> list[str]:
    parts = []
    losing = [found for found in compared_flips(bundle) if found.against == "baseline" and found.n_lost]
    for found in losing[:N_TABLES]:
        first = found[: min(N_FLIPS, found.n_lost)]
        title = f"Lost by {escape(f'{found.run.cell}-{found.run.info.name}')} ({found.n_lost}, first {len(first)})"
        header = ["Asked", "Right", "Baseline said", "Candidate said"]
        parts.append(f"### {title}\n\n{table(header, [_flip(flip) for flip in first], [False] * 4)}")
    if len(losing) > N_TABLES:
        parts.append(f"{fmt.plural(len(losing) - N_TABLES, 'more case')} lost items: see `index.html`.")
    return parts


def _flip(flip: Flip) -> list[str]:
    gold = "; ".join(flip.item.options[g] for g in flip.item.gold)
    said = [_said(flip, answer) for answer in (flip.reference, flip.candidate)]
    return [escape(text, 120) for text in (flip.item.prompt, gold, *said)]


def _said(flip: Flip, answer: Answer) -> str:
    if answer.text is not None:
        return answer.text.strip() or "(empty)"
    return option_of(flip.item, answer) or "none of the options"
