"""Knowledge retention: every cell and task of `matrix.toml`, each against its stored baseline.

`pytest suites/ -k llama_4bit` runs the 4-bit cells of llama; the last case of a cell, `<cell>-pooled`, judges it whole.

A case is marked with its task's suite, group and cost: `-m lama`, `-m bear`, `-m lm_eval`, `-m "common_sense and quick"`. One
file, because a cell is measured whole and its pool needs every task, whatever suite that is of.
"""

from __future__ import annotations

from harness.plugin.cases import GateCase


def test_knowledge(harness_case: GateCase) -> None:
    harness_case.check()
