"""The content-addressed run store: compressed weights, answers and task results, keyed by what they were made from.

    <cache>/models/…                    converted models (``harness.models.sources``)
    <cache>/weights/<key>/              weights.safetensors + manifest.json, of one recipe on one dense model
    <cache>/training/<key>/             checkpoints of a recovery's training, until its artifact is written
    <cache>/answers/<scope>/            what one model answered, request by request (``harness.execution.answers``)
    <cache>/results/<key>/              items, outcomes and manifest.json of a task that was asked whole

A key is the digest of everything that a result depends on, never a name. Weights and results are there when their manifest
is; manifests hold the SHA-256 of their files, so a truncated or edited entry is found out, re-made, and never served.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from harness.core.answer_block import Circumstances
from harness.core.columns import read_items, read_outcomes, write_items, write_outcomes
from harness.core.digest import digest_file, digest_json
from harness.core.errors import FileFormatError, StorageError
from harness.core.outcomes import Outcomes
from harness.core.records import SCHEMA_VERSION, CompressionRecord, Item, TaskInfo, record
from harness.core.serial import as_mapping, read_json, storage_errors, write_json
from harness.execution.answers import Answers
from harness.models.cache import cache_root

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"

_CANT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@record
class WeightsManifest:
    """Compressed weights in the store. ``weights_digest`` is of the whole model after compression, and of ``inputs``: what
    the layers round their inputs to (``compression.inputs``), by module name."""

    schema_version: int
    weights_digest: str
    compression: CompressionRecord
    files: dict[str, str]
    inputs: dict[str, str] = field(default_factory=dict)
    digest: str = ""


@record
class ResultManifest:
    """A finished task result in the store."""

    schema_version: int
    info: TaskInfo
    scorer: str
    circumstances: Circumstances
    files: dict[str, str]
    digest: str = ""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A finished task result read back."""

    info: TaskInfo
    items: tuple[Item, ...]
    outcomes: Outcomes
    circumstances: Circumstances


@dataclass(frozen=True, slots=True)
class Store:
    """The store under one cache folder."""

    root: Path

    @classmethod
    def default(cls) -> Store:
        """That of ``models.cache.cache_root``."""
        return cls(cache_root())

    def weights_folder(self, key: str) -> Path:
        """Where the compressed weights of a key lie."""
        return self.root / "weights" / key

    def result_folder(self, key: str) -> Path:
        """Where the task result of a key lies."""
        return self.root / "results" / key

    def training_folder(self, key: str) -> Path:
        """Where the checkpoints of an artifact's training lie."""
        return self.root / "training" / key

    def find_weights(self, key: str) -> WeightsManifest | None:
        """The manifest of stored weights, or None where there are none or they are broken (said in the log)."""
        return _checked(self.weights_folder(key), WeightsManifest)

    def put_weights(self, key: str, manifest: WeightsManifest) -> None:
        """Store the manifest of weights whose files are written."""
        write_json(self.weights_folder(key) / MANIFEST, _sealed(manifest))

    def find_result(self, key: str) -> StoredResult | None:
        """A stored task result, or None where there is none or it is broken (said in the log)."""
        folder = self.result_folder(key)
        manifest = _checked(folder, ResultManifest)
        if manifest is None:
            return None
        try:
            items, outcomes = read_items(folder / "items.parquet"), read_outcomes(folder / "outcomes.parquet")
        except FileFormatError as error:  # removed by another process in this moment
            log.warning("stored entry is broken and is made again: %s", error)
            return None
        return StoredResult(manifest.info, items, outcomes, manifest.circumstances)

    def put_result(self, key: str, result: StoredResult, scorer: str) -> None:
        """Store a finished result."""
        folder = self.result_folder(key)
        with self.lock(key):
            sweep(folder)
            write_items(folder / "items.parquet", result.items)
            write_outcomes(folder / "outcomes.parquet", result.outcomes)
            files = {name: digest_file(folder / name) for name in ("items.parquet", "outcomes.parquet")}
            made = ResultManifest(SCHEMA_VERSION, result.info, scorer, result.circumstances, files)
            write_json(folder / MANIFEST, _sealed(made))

    def drop_result(self, key: str) -> None:
        """Forget a result."""
        (self.result_folder(key) / MANIFEST).unlink(missing_ok=True)

    def answers(self, scope: str) -> Answers:
        """The answers of a scope, read whole; to be called by who holds the scope's lock."""
        folder = self.root / "answers" / scope
        sweep(folder)
        return Answers.load(folder)

    @contextmanager
    def lock(self, key: str, *, wait: bool = True) -> Iterator[None]:
        """Keep other processes away from one key; says so while it waits, or raises filelock's Timeout where it must not."""
        path = self.root / "locks" / f"{key}.lock"
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        lock: BaseFileLock = FileLock(path)
        with storage_errors(path), _lock_errors(path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not wait:
                    raise
                log.info("another process is working on the same thing: waiting for it")
                lock.acquire()
        try:
            if isinstance(lock, SoftFileLock):  # filelock's own way out: it would outlive a killed process
                raise _no_locks(path)
            yield
        finally:
            lock.release()


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written in a folder; to be called by who holds its lock."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


@contextmanager
def _lock_errors(path: Path) -> Iterator[None]:
    """Turn a file system's refusal to lock into one sentence."""
    try:
        yield
    except NotImplementedError as error:  # filelock's, for ENOSYS
        raise _no_locks(path) from error
    except OSError as error:
        if error.errno in _CANT_LOCK:
            raise _no_locks(path) from error
        raise


def _no_locks(path: Path) -> StorageError:
    return StorageError(
        f"the file system of {path} can't lock files, so two runs could disturb each other: point HARNESS_CACHE at a folder "
        "on a local disk."
    )


M = TypeVar("M", WeightsManifest, ResultManifest)


def _sealed(manifest: M) -> M:
    """The manifest with the digest of its other fields; without a number of clusters that says nothing, so that entries older
    than that field keep theirs."""
    fields = dict(as_mapping(replace(manifest, digest="")))
    if isinstance(info := fields.get("info"), dict) and info.get("n_clusters", ...) is None:
        fields["info"] = {key: value for key, value in info.items() if key != "n_clusters"}
    return replace(manifest, digest=digest_json(fields))


def check_entry(folder: Path, kind: type[M]) -> M:
    """The manifest of an entry. Raises FileFormatError when there is none or the files are not those that were stored."""
    path = folder / MANIFEST
    manifest = read_json(path, kind)
    if _sealed(manifest) != manifest:
        raise FileFormatError(f"{path} does not have the digest that it states.")
    for name, digest in manifest.files.items():
        if not (folder / name).exists() or digest_file(folder / name) != digest:
            raise FileFormatError(f"{folder / name} is not the file that was stored.")
    return manifest


def _checked(folder: Path, kind: type[M]) -> M | None:
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = check_entry(folder, kind)
    except FileFormatError as error:
        log.warning("stored entry is broken and is made again: %s", error)
        path.unlink(missing_ok=True)
        return None
    try:
        os.utime(path)  # when it was last asked for: what nobody asks for can be pruned
    except OSError as error:  # a store that is only read
        log.debug("the time of use of %s can't be noted: %s", path, error)
    return manifest
