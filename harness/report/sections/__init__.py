"""The shelf of report sections, in page order.

A section is a module with one pure function ``RunBundle -> view``: the view is a frozen dataclass with a ``title``, everything
in it already formatted. Its template has the section's name as its stem (``templates/<name>.html`` in the package above
``sections``) and sees it as ``view``. Being listed here puts a section on the page, into the contents and report.json.
Another distribution lists its own under the entry point group ``harness.sections`` and keeps its template in its own package.
"""

from __future__ import annotations

from harness.core.shelf import Shelf

SECTIONS = Shelf(
    "sections",
    {
        "banner": "harness.report.sections.banner:view_banner",
        "matrix": "harness.report.sections.matrix:view_matrix",
        "sizes": "harness.report.sections.sizes:view_sizes",
        "answer": "harness.report.sections.answer:view_answer",
        "choices": "harness.report.sections.choices:view_choices",
        "cost": "harness.report.sections.cost:view_cost",
        "cells": "harness.report.sections.cells:view_cells",
        "flips": "harness.report.sections.flips:view_flips",
        "perplexity": "harness.report.sections.perplexity:view_perplexity",
        "hints": "harness.report.sections.hints:view_hints",
        "relations": "harness.report.sections.relations:view_relations",
        "regimes": "harness.report.sections.regimes:view_regimes",
        "history": "harness.report.sections.history:view_history",
        "provenance": "harness.report.sections.provenance:view_provenance",
        "not_measured": "harness.report.sections.not_measured:view_not_measured",
    },
)
