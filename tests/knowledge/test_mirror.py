"""The offline mirror and the other places that data come from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.core.errors import ConfigError, DownloadError, FileFormatError
from harness.knowledge.data_source import HubData, PlainFiles, Rows, find_source, head_commit
from harness.knowledge.mirror import ParquetFolder

HUB = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[3] / "shared" / "data" / "hub")

FRONT_MATTER = """---
configs:
- config_name: "easy"
  data_files:
  - split: train
    path: "easy/train.parquet"
  - split: test
    path: "easy/part-*.parquet"
---
words
"""


def write(file: Path, *values: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": list(values)}), file)
    return file


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Two data sets: one declares its config, the other only lies there."""
    declared, plain = tmp_path / "owner" / "declared", tmp_path / "owner" / "plain"
    write(declared / "easy" / "train.parquet", "a", "b")
    write(declared / "easy" / "part-1.parquet", "c")
    write(declared / "easy" / "part-2.parquet", "d")
    (declared / "README.md").write_text(FRONT_MATTER, encoding="utf-8")
    write(plain / "test.parquet", "e")
    write(plain / "hard" / "test.parquet", "f")
    return tmp_path


def find(mirror: Path | None, path: str, name: str | None = None, **options: Any) -> Any:
    return find_source(path, name, options, data=mirror, near=Path("/nowhere"))


# ------------------------------------------------------------------------------------------------ what it gives


def test_declared_files_make_the_splits_in_order(mirror: Path) -> None:
    rows = find(mirror, "owner/declared", "easy").load(["train", "test"])
    assert {split: data["text"][:] for split, data in rows.items()} == {"train": ["a", "b"], "test": ["c", "d"]}


def test_without_a_declaration_folders_are_configs_and_files_are_splits(mirror: Path) -> None:
    assert find(mirror, "owner/plain").load(["test"])["test"]["text"][:] == ["e"]
    assert find(mirror, "owner/plain", "hard").load(["test"])["test"]["text"][:] == ["f"]


def test_the_only_config_is_taken_where_a_task_names_none(mirror: Path) -> None:
    assert find(mirror, "owner/declared").config == "easy"


@pytest.mark.parametrize(
    ("path", "name", "split"),
    [
        ("allenai/ai2_arc", "ARC-Easy", "test"),
        ("cais/mmlu", "astronomy", "dev"),
        ("allenai/sciq", None, "validation"),
        ("EleutherAI/race", "high", "test"),
    ],
)
def test_rows_are_those_of_the_librarys_own_loader(path: str, name: str | None, split: str, tmp_path: Path) -> None:
    if not (HUB / path).is_dir():
        pytest.skip(f"no data mirror here ({HUB / path}; HARNESS_DATA names one)")
    theirs = datasets.load_dataset(str(HUB / path), name, split=split, cache_dir=str(tmp_path))
    ours = find(HUB, path, name).load([split])[split]
    assert ours.features == theirs.features
    assert ours.to_list() == theirs.to_list()


# ------------------------------------------------------------------------------------------------ the digest


def test_the_digest_is_of_the_named_splits_content_only(mirror: Path, tmp_path: Path) -> None:
    source = find(mirror, "owner/declared")
    before = source.digest(["test"])
    moved = tmp_path / "elsewhere" / "owner" / "declared"
    shutil.copytree(mirror / "owner" / "declared", moved)
    write(moved / "easy" / "train.parquet", "other")
    assert find(tmp_path / "elsewhere", "owner/declared").digest(["test"]) == before
    write(moved / "easy" / "part-2.parquet", "changed")
    assert find(tmp_path / "elsewhere", "owner/declared").digest(["test"]) != before


def test_a_changed_file_gives_its_new_rows(mirror: Path) -> None:
    find(mirror, "owner/plain").load(["test"])
    write(mirror / "owner" / "plain" / "test.parquet", "new")
    assert find(mirror, "owner/plain").load(["test"])["test"]["text"][:] == ["new"]


# ------------------------------------------------------------------------------------------------ what is not there


@pytest.mark.parametrize(
    ("path", "name", "splits", "words"),
    [
        ("owner/declared", "hard", ["test"], r"has no config 'hard': it has easy; add the config there"),
        ("owner/declared", "easy", ["dev"], r"has no split 'dev' in its config 'easy': it has test, train"),
        ("owner/plain", "none", ["test"], r"it has default, hard"),
    ],
)
def test_a_missing_config_or_split_is_told_with_what_is_there(
    path: str, name: str, splits: list[str], words: str, mirror: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        find(mirror, path, name).load(splits)


def test_several_configs_and_no_name_are_told(mirror: Path) -> None:
    (mirror / "owner" / "plain" / "test.parquet").unlink()
    write(mirror / "owner" / "plain" / "soft" / "test.parquet", "g")
    with pytest.raises(ConfigError, match="several configs and the task names none: it has hard, soft"):
        find(mirror, "owner/plain")


def test_arguments_that_a_folder_cannot_honour_are_refused(mirror: Path) -> None:
    with pytest.raises(ConfigError, match="can't honour dataset_kwargs data_files"):
        find(mirror, "owner/plain", data_files="x.json")
    assert find(mirror, "owner/plain", trust_remote_code=True).config == "default"


def test_a_broken_or_missing_file_is_named(mirror: Path) -> None:
    file = mirror / "owner" / "plain" / "test.parquet"
    file.write_bytes(b"PAR1")
    with pytest.raises(FileFormatError, match=r"test\.parquet can't be read as parquet"):
        find(mirror, "owner/plain").load(["test"])
    (mirror / "owner" / "declared" / "easy" / "train.parquet").unlink()
    with pytest.raises(FileFormatError, match=r"train\.parquet can't be read \(No such file"):
        find(mirror, "owner/declared").digest(["train"])


@pytest.mark.parametrize(
    "matter",
    [
        "configs: [",
        "configs: [{config_name: a}]",
        "configs: [7]",
        "- configs",
        "configs: [{config_name: a, data_files: [{split: test, path: ../../other/plain/test.parquet}]}]",
        "configs: [{config_name: a, data_files: [{split: test, path: /etc/*}]}]",
        "configs: \xff",
    ],
)
def test_front_matter_that_says_nothing_or_leads_elsewhere_is_named(matter: str, mirror: Path) -> None:
    (mirror / "owner" / "plain" / "README.md").write_bytes(f"---\n{matter}\n---\n".encode("latin-1"))
    with pytest.raises(FileFormatError, match=r"README\.md has front matter that can't be used"):
        find(mirror, "owner/plain")


# ------------------------------------------------------------------------------------------------ the hub


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("given", [True, False])
def test_without_network_the_error_names_the_mirror_and_where_it_looked(given: bool, mirror: Path) -> None:
    looked = rf"there is no folder {mirror / 'owner' / 'absent'}" if given else "no mirror was given"
    with pytest.raises(DownloadError, match=rf"owner/absent could not be fetched .*no route.*{looked}.*--harness-data"):
        find(mirror if given else None, "owner/absent", "config")


def test_a_data_set_of_the_hub_is_loaded_at_one_commit_and_digested_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    head_commit.cache_clear()
    heads, asked = iter(["c1", "c2"]), []

    class Info:
        def __init__(self) -> None:
            self.sha = next(heads)

    def load(path: str, name: str | None, **options: Any) -> dict[str, Any]:
        asked.append((path, name, options))
        return {"test": ["row"], "train": []}

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: Info())
    monkeypatch.setattr(datasets, "load_dataset", load)
    first, same = (find(None, "owner/remote", "config", trust_remote_code=True) for _ in range(2))
    head_commit.cache_clear()  # another run
    later = find(None, "owner/remote", "config")
    assert isinstance(first, HubData)
    assert first.digest(["test"]) == same.digest(["test"]) != later.digest(["test"])
    assert first.load(["test"]) == {"test": ["row"]}
    assert asked == [("owner/remote", "config", {"revision": "c1"})]
    with pytest.raises(ConfigError, match="has no split 'dev': it has test, train"):
        first.load(["dev"])


# ------------------------------------------------------------------------------------------------ files and functions


@pytest.fixture
def in_folder(tmp_path: Path) -> Callable[..., Any]:
    return lambda builder, **options: find_source(builder, None, options, data=None, near=tmp_path)


def test_plain_files_start_at_the_task_file(in_folder: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "one"}\n{"q": "two"}\n', encoding="utf-8")
    source = in_folder("json", data_files={"test": "a.jsonl"})
    assert isinstance(source, PlainFiles)
    assert source.load(["test"])["test"]["q"][:] == ["one", "two"]
    before = source.digest(["test"])
    (tmp_path / "a.jsonl").write_text('{"q": "other"}\n', encoding="utf-8")
    assert source.digest(["test"]) != before
    assert source.load(["test"])["test"]["q"][:] == ["other"]


def test_a_plain_file_that_is_not_there_or_not_in_its_format_is_named(in_folder: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data_files names 'b\.jsonl' for the split 'test'"):
        in_folder("json", data_files={"test": "b.jsonl"})
    with pytest.raises(ConfigError, match="data_files names None"):
        in_folder("json")
    (tmp_path / "a.jsonl").write_text("{not json", encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"a\.jsonl can't be read as json"):
        in_folder("json", data_files={"test": "a.jsonl"}).load(["test"])


def test_a_local_folder_is_read_like_the_mirror(mirror: Path) -> None:
    source = find_source("./plain", None, {}, data=None, near=mirror / "owner")
    assert isinstance(source, ParquetFolder)
    assert source.load(["test"])["test"]["text"][:] == ["e"]
    with pytest.raises(ConfigError, match="absent is not there"):
        find_source("./absent", None, {}, data=None, near=mirror)


def test_rows_of_a_function_are_digested_by_what_they_say() -> None:
    one, same, other = (Rows("f", {"test": [{"q": [text]}]}) for text in ("a", "a", "b"))
    assert one.digest(["test"]) == same.digest(["test"]) != other.digest(["test"])
    with pytest.raises(ConfigError, match="f made no split 'dev': it made test"):
        one.load(["dev"])
