"""Where a task's data come from: the mirror, a local folder, plain files, the hub at one commit, or a function of the task's.

A source knows the digest of what it will give before anything is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from harness.core.digest import digest_file, digest_json, digest_named
from harness.core.errors import ConfigError, DownloadError, FileFormatError
from harness.knowledge.json_lines import read_json_lines
from harness.knowledge.mirror import IRRELEVANT, MissingSplitError, ParquetFolder, listed

BUILDERS = ("arrow", "csv", "json", "parquet", "text")
"""The loader's own names for plain files; such a ``dataset_path`` goes with ``data_files``."""


class Source(Protocol):
    """One data set: what it is called, which splits it has, the digest of some of them, and their rows."""

    @property
    def version(self) -> str:
        """What the reader of a report is told."""

    def digest(self, splits: Iterable[str]) -> str:
        """The digest of these splits' content. Raises ConfigError for a split that is not there."""

    def load(self, splits: Iterable[str]) -> Mapping[str, Any]:
        """These splits as ``datasets.Dataset``, in memory."""


def find_source(path: str, name: str | None, options: Mapping[str, Any], *, data: Path | None, near: Path) -> Source:
    """The source of a task's ``dataset_path``, ``dataset_name`` and ``dataset_kwargs``.

    ``data`` is the mirror; ``near`` the folder of the task file, where paths of local files start. Raises ConfigError,
    and DownloadError where only the hub has the data and can't be asked.
    """
    if path in BUILDERS:
        return _files_of(path, options, near)
    if path.startswith((".", "/", "~")):
        folder = near / Path(path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"the data folder {folder} is not there: correct dataset_path in the task file.")
        return ParquetFolder.of(folder, str(folder.name), name, options)
    if data is not None and (data / path).is_dir():
        return ParquetFolder.of(data / path, path, name, options)
    looked_for = f"there is no folder {data / path}" if data is not None else "no mirror was given"
    return HubData.at_head(path, name, options, looked_for)


# ------------------------------------------------------------------------------------------------ plain files


@dataclass(frozen=True, slots=True)
class PlainFiles:
    """Local files in a format of the loader's own: JSON lines, CSV, parquet, text."""

    builder: str
    files: Mapping[str, tuple[Path, ...]]
    options: Mapping[str, Any]

    @property
    def version(self) -> str:
        """The files' names and the digest of all, cut short."""
        names = ", ".join(file.name for files in self.files.values() for file in files)
        return f"{names} {self.digest(self.files)[:12]}"

    def digest(self, splits: Iterable[str]) -> str:
        """The digest of the splits' files and of how they are read."""
        parts = {split: [digest_file(file) for file in self._split(split)] for split in splits}
        return digest_json([self.builder, parts, {key: repr(value) for key, value in self.options.items()}])

    def load(self, splits: Iterable[str]) -> Mapping[str, Any]:
        """The splits' rows. Raises FileFormatError for a file that is not in the format, or not UTF-8."""
        import datasets
        import pyarrow as pa

        files = {split: [str(file) for file in self._split(split)] for split in splits}
        with tempfile.TemporaryDirectory() as cache:
            try:
                made = datasets.load_dataset(
                    self.builder, data_files=files, cache_dir=cache, keep_in_memory=True, **self.options
                )
            except (datasets.exceptions.DatasetGenerationError, ValueError, OSError, StopIteration) as error:
                why = "no rows in it" if isinstance(error, StopIteration) else _first_line(error.__cause__ or error)
                raise FileFormatError(
                    f"{listed(name for names in files.values() for name in names)} can't be read as {self.builder} ({why}): "
                    "correct the file, or what names it."
                ) from error
        for split, rows in made.items():
            try:
                rows.data.table.validate(full=True)  # the reader lets through what is no text
            except pa.ArrowInvalid as error:
                raise FileFormatError(
                    f"{listed(files[split])} holds bytes that are not UTF-8 text ({_first_line(error)}): save it as UTF-8."
                ) from error
        read = self.builder == "json" and {
            split for split, rows in made.items() if any(map(_has_times, rows.data.schema.types))
        }
        return {split: self._as_written(split) if read and split in read else rows for split, rows in made.items()}

    def _as_written(self, split: str) -> Any:
        """The rows of JSON lines whose texts look like dates: the loader makes times of them, and questions and answers would
        end in hours. Raises FileFormatError."""
        import datasets
        import pyarrow as pa

        files = [str(file) for file in self._split(split)]
        try:
            rows = [row for file in self._split(split) for _, row in read_json_lines(file)]
            names = list(dict.fromkeys(name for row in rows for name in row))
            return datasets.Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
        except (FileFormatError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise FileFormatError(
                f"{listed(files)} holds texts like dates, which are read as times unless each line is an object of its own "
                f"with values of one type in a column ({_first_line(error)}): write it so."
            ) from error

    def _split(self, split: str) -> tuple[Path, ...]:
        if split not in self.files:
            raise MissingSplitError(split, f"data_files have no split {split!r}: they have {listed(self.files)}; add it.")
        return self.files[split]


def _has_times(kind: Any) -> bool:
    """Whether a column's type is of times, or holds some."""
    import pyarrow as pa

    return pa.types.is_temporal(kind) or any(_has_times(kind.field(i).type) for i in range(kind.num_fields))


def _files_of(builder: str, options: Mapping[str, Any], near: Path) -> PlainFiles:
    """Paths start at the task file's folder, else at the working directory, as lm-eval has it."""
    given = options.get("data_files")
    by_split = given if isinstance(given, Mapping) else {"train": given}
    files: dict[str, tuple[Path, ...]] = {}
    for split, names in by_split.items():
        found = []
        for name in names if isinstance(names, list) else [names]:
            places = [near / Path(str(name)).expanduser(), Path(str(name)).expanduser()]
            here = next((place for place in places if place.is_file()), None)
            if name is None or here is None:
                raise ConfigError(
                    f"a task with dataset_path {builder!r} reads local files, and data_files names {name!r} for the split "
                    f"{split!r}: expected a file there (looked for {places[0]}); correct dataset_kwargs."
                )
            found.append(here)
        files[str(split)] = tuple(found)
    rest = {key: value for key, value in options.items() if key not in (*IRRELEVANT, "data_files")}
    return PlainFiles(builder, files, rest)


# ------------------------------------------------------------------------------------------------ the hub


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set on the hub at one commit; the loader's cache is keyed by it."""

    path: str
    name: str | None
    commit: str
    options: Mapping[str, Any]

    @classmethod
    def at_head(cls, path: str, name: str | None, options: Mapping[str, Any], looked_for: str) -> HubData:
        """The commit that the task's revision (or the main branch) stands for now. Raises DownloadError."""
        import httpx
        from huggingface_hub.errors import HFValidationError

        try:
            commit = head_commit(path, options.get("revision"))
        except (OSError, httpx.HTTPError, HFValidationError) as error:  # the hub's own errors are OSErrors
            raise DownloadError(unreachable(path, looked_for, error)) from error
        if commit is None:
            raise DownloadError(f"the hub tells no commit of the data set {path}: nothing was loaded; try again.")
        kept = {key: value for key, value in options.items() if key not in ("trust_remote_code", "revision", "streaming")}
        return cls(path, name, commit, kept)

    @property
    def version(self) -> str:
        """Path, config and commit, cut short."""
        return f"hub:{self.path}{'/' + self.name if self.name else ''}@{self.commit[:12]}"

    def digest(self, splits: Iterable[str]) -> str:
        """The digest of path, config, commit and splits: a commit never changes."""
        rest = {key: repr(value) for key, value in self.options.items()}
        return digest_json([self.path, self.name, self.commit, sorted(splits), rest])

    def load(self, splits: Iterable[str]) -> Mapping[str, Any]:
        """The splits' rows. Raises DownloadError, ConfigError for a config or split that is not there."""
        import datasets
        import httpx

        try:
            made = datasets.load_dataset(self.path, self.name, revision=self.commit, **self.options)
        except (OSError, httpx.HTTPError) as error:
            raise DownloadError(unreachable(self.path, "it is not in the mirror", error)) from error
        except (ValueError, RuntimeError) as error:  # an unknown config; a data set that only a script of its own can load
            raise ConfigError(f"the data set {self.path} can't be loaded from the hub ({_first_line(error)}).") from error
        missing = [split for split in splits if split not in made]
        if missing:
            raise MissingSplitError(
                missing[0], f"the data set {self.path} has no split {missing[0]!r}: it has {listed(made)}."
            )
        return {split: made[split] for split in splits}


@cache
def head_commit(path: str, revision: str | None) -> str | None:
    """Asked once a process, so that every cell of a run gets the same rows."""
    from huggingface_hub import HfApi

    return HfApi().dataset_info(path, revision=revision, timeout=20).sha


def unreachable(path: str, looked_for: str, error: Exception) -> str:
    """The sentence for data that the hub did not give."""
    return (
        f"the data set {path} could not be fetched from the hub ({_first_line(error)}), and {looked_for}: check the network, "
        f"or put it into a folder as <mirror>/{path}/[<config>/]<split>.parquet and name the mirror with --harness-data "
        "(pytest), --data (command line) or HARNESS_DATA."
    )


# ------------------------------------------------------------------------------------------------ a function of the task's


@dataclass(frozen=True, slots=True)
class Rows:
    """Splits that a function of the task's made."""

    made_by: str
    splits: Mapping[str, Any]

    @property
    def version(self) -> str:
        """The function and the digest of all rows, cut short."""
        return f"{self.made_by} {self.digest(self.splits)[:12]}"

    def digest(self, splits: Iterable[str]) -> str:
        """The digest of the splits' rows."""
        return digest_named({split: digest_json([_plain(row) for row in self._split(split)]) for split in splits})

    def load(self, splits: Iterable[str]) -> Mapping[str, Any]:
        """The splits as they were made."""
        return {split: self._split(split) for split in splits}

    def _split(self, split: str) -> Any:
        if split not in self.splits:
            raise MissingSplitError(split, f"{self.made_by} made no split {split!r}: it made {listed(self.splits)}.")
        return self.splits[split]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")
