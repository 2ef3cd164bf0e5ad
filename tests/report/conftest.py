"""The synthetic runs, for the tests of the report and of the page in a browser."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness.report import RunBundle, report


def _load(stem: str) -> ModuleType:
    """A module beside this file: the test tree is no package, so it is loaded by path."""
    name = f"report_{stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{stem}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return _load("synthetic")


@pytest.fixture(scope="session")
def bundle(synthetic: ModuleType) -> RunBundle:
    made: RunBundle = synthetic.make_bundle(120)
    return made


@pytest.fixture(scope="session")
def files(bundle: RunBundle) -> dict[str, bytes]:
    return report(bundle)


@pytest.fixture(scope="session")
def families(synthetic: ModuleType) -> RunBundle:
    """Three families, generated answers, scores that were not kept, cells decided early, a history."""
    made: RunBundle = _load("families").make_families_bundle(synthetic)
    return made


@pytest.fixture(scope="session")
def families_files(families: RunBundle) -> dict[str, bytes]:
    return report(families)


@pytest.fixture(scope="session")
def large(synthetic: ModuleType) -> ModuleType:
    return _load("large")
