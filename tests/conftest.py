"""What tests of several rooms share: the embedded real model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from harness.core.errors import DownloadError
from harness.execution.matrix import read_matrix
from harness.execution.store import Store

if not settings().derandomize:  # in CI hypothesis has a profile of its own; a busy machine is no mistake either way
    settings.register_profile("desk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("desk")

MATRIX = Path(__file__).parents[1] / "suites" / "matrix.toml"


@pytest.fixture(scope="session")
def embedded_model():  # type: ignore[no-untyped-def]
    """The embedded profile's model on disk (a ResolvedModel); skips with the reason where it can't be had."""
    pytest.importorskip("torch")
    from harness.models.sources import resolve

    entry = read_matrix(MATRIX, "embedded").plan("llama_none_none").model
    try:
        return resolve(entry.source, entry.sha256, Store.default().root)
    except DownloadError as error:
        pytest.skip(f"the embedded model can't be had here: {error}")
