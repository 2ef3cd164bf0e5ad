"""What a run's engine tells of the library that multiplies."""

from __future__ import annotations

import pytest

from harness.execution.engine import describe_engine
from harness.scoring import products


def test_products_are_named_where_the_scorers_take_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    assert describe_engine("cpu", "float32")["products"] == "oneDNN"
    assert "products" not in describe_engine("cpu", "float32", scores=False)
    assert "products" not in describe_engine("cpu", "bfloat16")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    assert "products" not in describe_engine("cpu", "float32")
