"""Two processes at once, and processes that are killed (SIGKILL) at the worst moments: the records are those of one quiet run.

Children are forks of this process on one thread; `benchmarks/killed_runs.py` kills many more, at random moments.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core import serial
from harness.core.errors import StorageError
from harness.core.run_folder import write_cell
from harness.execution.candidate import Candidate
from harness.execution.local import MeasureOptions, measure_cell
from harness.execution.matrix import Matrix
from harness.execution.progress import Progress
from harness.execution.store import Store

PATIENCE_S = 120


@pytest.fixture
def measure(matrix: Matrix) -> Callable[[Path], None]:
    """Measures a cell into a folder: its store, and its record beside it."""
    plan = matrix.plan("tiny_4bit-rtn_none")

    def run(home: Path) -> None:
        made = measure_cell(
            matrix,
            plan,
            tuple(plan.tasks),
            options=MeasureOptions(limit=12),
            store=Store(home / "store"),
            progress=Progress(write=lambda _: None, is_tty=False),
        )
        write_cell(home, made)

    return run


def fork(work: Callable[[], None]) -> int:
    """Start a child that does some work on one thread, and ends."""
    import torch

    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(PATIENCE_S)
        torch.set_num_threads(1)  # a fork has none of its parent's threads
        work()
        code = 0
    finally:
        os._exit(code)


def parquet(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((home / "records").rglob("*.parquet"))}


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_renaming(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Dies when a file of this name is written and flushed but not yet in its place."""
    flush = serial._flush

    def dying(path: Path) -> None:
        flush(path)
        if name in path.name:
            die()

    return lambda patch: patch.setattr(serial, "_flush", dying)


def amid_a_manifest(patch: pytest.MonkeyPatch) -> None:
    """Dies when half of a manifest is written."""
    write_bytes = Path.write_bytes

    def dying(path: Path, data: bytes) -> int:
        if "manifest.json" not in path.name:
            return write_bytes(path, data)
        write_bytes(path, data[: len(data) // 2])
        return die()

    patch.setattr(Path, "write_bytes", dying)


def amid_compressing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Candidate, "_save", die)


@pytest.mark.parametrize(
    "moment",
    [
        amid_compressing,
        before_renaming("safetensors"),
        amid_a_manifest,
        before_renaming("parquet"),
        before_renaming("outcomes"),
    ],
    ids=["compressing", "weights", "manifest", "answers", "outcomes"],
)
def test_a_killed_run_resumes_to_the_same_bytes(
    measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Callable[[pytest.MonkeyPatch], None]
) -> None:
    measure(tmp_path / "quiet")
    with monkeypatch.context() as patch:
        moment(patch)
        _, status = os.waitpid(fork(lambda: measure(tmp_path / "killed")), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    measure(tmp_path / "killed")
    assert parquet(tmp_path / "killed") == parquet(tmp_path / "quiet")
    assert not list((tmp_path / "killed").rglob("*.part"))


def test_two_processes_on_one_cell_feed_it_once(measure, tmp_path: Path) -> None:
    home, log = tmp_path / "store-of-both", tmp_path / "fed"
    from harness.scoring.decoder import DecoderScorer

    score = DecoderScorer.score

    def told(scorer, groups):
        with log.open("a") as file:
            file.writelines(f"{request.context}|{request.continuation}\n" for group in groups for request in group)
        return score(scorer, groups)

    def work(number: int) -> Callable[[], None]:
        def measured() -> None:
            DecoderScorer.score = told  # in the child only
            (tmp_path / f"run-{number}").mkdir()
            (tmp_path / f"run-{number}" / "store").symlink_to(home)
            measure(tmp_path / f"run-{number}")

        return measured

    home.mkdir()
    children = [fork(work(number)) for number in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    fed = log.read_text().splitlines()
    assert len(fed) == len(set(fed)) == 12 * 4
    assert parquet(tmp_path / "run-0") == parquet(tmp_path / "run-1")


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    store, ready = Store(tmp_path), tmp_path / "ready"

    def hold() -> None:
        with store.lock("k"):
            ready.touch()
            time.sleep(PATIENCE_S)

    child = fork(hold)
    while not ready.exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / "locks" / "k.lock").exists()
    with store.lock("k", wait=False):
        pass


@pytest.mark.filterwarnings("ignore:flock not supported:UserWarning")  # filelock's, before it takes to locks that stay
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_can_not_lock_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"can't lock files.*point HARNESS_CACHE"), Store(tmp_path).lock("k"):
        pytest.fail("went on without a lock")
