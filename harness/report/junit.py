"""The verdicts as JUnit XML, for CI systems that read nothing else.

One suite a cell, one case a task and one for the pool, named as pytest names them. REGRESSED is a failure and INVALID an
error; INCONCLUSIVE is a failure where the policy fails it and else skipped, as UNINFORMATIVE and what did not run are.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from harness.core.records import CellFailure, CellRun
from harness.core.verdicts import POOLED, Status, Verdict
from harness.report import format as fmt
from harness.report.bundle import RunBundle, cell_of
from harness.report.status import cases_of, view_status

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold, not even escaped."""


def junit_xml(bundle: RunBundle) -> bytes:
    """The run as JUnit XML in UTF-8."""
    root = ET.Element("testsuites", name=_legal(f"retention {bundle.profile}"), time=f"{bundle.wall_s:.3f}")
    for entry in bundle.cells:
        _add_cell(root, bundle, entry)
    for left in bundle.not_run:
        suite = _suite(root, bundle, left.cell.id)
        case = _case(suite, left.cell.id, left.task or POOLED, 0.0)
        ET.SubElement(case, "skipped", message=_legal(f"not run: {left.reason}"))
    for suite in root:
        _count(suite)
    _count(root)
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _add_cell(root: ET.Element, bundle: RunBundle, entry: CellRun | CellFailure) -> None:
    cell = cell_of(entry).id
    suite = _suite(root, bundle, cell)
    verdict = bundle.verdict_of(cell)
    if verdict is None:
        reason = entry.reason if isinstance(entry, CellFailure) else "not judged"
        ET.SubElement(_case(suite, cell, POOLED, 0.0), "error", type="INVALID", message=_legal(reason))
        return
    if verdict.pooled is None:
        skipped = "not run: a task of the cell was left out, so the cell has no verdict of its own"
        ET.SubElement(_case(suite, cell, POOLED, 0.0), "skipped", message=skipped)
    wall_s = entry.record.wall_s if isinstance(entry, CellRun) else {}
    for judged in cases_of(verdict):
        _add_verdict(_case(suite, cell, judged.task, wall_s.get(judged.task, 0.0)), judged)


def _add_verdict(case: ET.Element, verdict: Verdict) -> None:
    word = view_status(verdict).word
    message = _legal(f"{word}: {verdict.reason}")
    if verdict.status is Status.INVALID:
        ET.SubElement(case, "error", type=word, message=message).text = _numbers(verdict)
    elif verdict.fails or verdict.status is Status.REGRESSED:
        ET.SubElement(case, "failure", type=word, message=message).text = _numbers(verdict)
    elif verdict.status in (Status.INCONCLUSIVE, Status.UNINFORMATIVE):
        ET.SubElement(case, "skipped", message=message)
    else:
        ET.SubElement(case, "system-out").text = f"{message}\n{_numbers(verdict)}".strip()
    if verdict.choice is not None and verdict.choice.warning:
        ET.SubElement(case, "system-err").text = _legal(f"early warning: {verdict.choice.warning}")


def _numbers(verdict: Verdict) -> str:
    evidence, gain = verdict.evidence, verdict.gain
    if gain is not None:
        return (
            f"won back {fmt.points(gain.gain_baseline)} in the baseline, {fmt.points(gain.gain_candidate)} now; "
            f"p_fail {fmt.p_value(gain.p_fail)} (level {fmt.level(gain.level_fail)}), "
            f"p_pass {fmt.p_value(gain.p_pass)} (level {fmt.level(gain.level_pass)})"
        )
    if evidence is None:
        return ""
    counts, loss = evidence.counts, evidence.loss
    return (
        f"loss {fmt.points(loss.value)} {fmt.points_interval(loss.low, loss.high)}; "
        f"lost {counts.n_lost}, gained {counts.n_gained} of {counts.n_items}; "
        f"p_fail {fmt.p_value(evidence.p_fail)} (level {fmt.level(evidence.level_fail)}), "
        f"p_pass {fmt.p_value(evidence.p_pass)} (level {fmt.level(evidence.level_pass)})"
    )


def _suite(root: ET.Element, bundle: RunBundle, cell: str) -> ET.Element:
    found = next((suite for suite in root if suite.get("name") == cell), None)
    if found is not None:
        return found
    return ET.SubElement(root, "testsuite", name=cell, timestamp=fmt.parse_moment(bundle.started_at).isoformat())


def _case(suite: ET.Element, cell: str, task: str, wall_s: float) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=cell, name=_legal(f"{cell}-{task}"), time=f"{wall_s:.3f}")


def _count(element: ET.Element) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(case.find(tag) is not None for case in cases)))
    if element.get("time") is None:
        element.set("time", f"{sum(float(case.get('time', 0)) for case in cases):.3f}")


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", text)
