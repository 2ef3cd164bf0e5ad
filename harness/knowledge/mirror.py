"""The offline mirror: data sets as folders of parquet files, laid out as on the hub, read into memory.

    <mirror>/<owner>/<name>/README.md                       front matter that declares configs and splits, where there is one
    <mirror>/<owner>/<name>/[<config>/]<split>.parquet

Nothing is cached: the hub's own loader keeps what it read by names, and would give yesterday's file for today's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from harness.core.digest import digest_file, digest_json
from harness.core.errors import ConfigError, FileFormatError

IRRELEVANT = ("trust_remote_code", "revision", "streaming", "verification_mode", "token")
"""Arguments of the hub's loader that say nothing about files that are here."""


class MissingSplitError(ConfigError):
    """A split that a task names and its data do not have; whoever knows the task file says where it is named."""

    def __init__(self, split: str, sentence: str) -> None:
        super().__init__(sentence)
        self.split = split


@dataclass(frozen=True, slots=True)
class ParquetFolder:
    """One config of a data set in the mirror: its splits' parquet files, as the front matter of its README.md declares them,
    or else as they lie there (``[<config>/]<split>.parquet``)."""

    folder: Path
    path: str
    config: str
    files: Mapping[str, tuple[Path, ...]]

    @classmethod
    def of(cls, folder: Path, path: str, name: str | None, options: Mapping[str, Any]) -> ParquetFolder:
        """The config that ``load_dataset`` would take. Raises ConfigError naming what is there."""
        unknown = sorted(key for key in options if key not in IRRELEVANT)
        if unknown:
            raise ConfigError(
                f"{path} is in the mirror {folder}, which can't honour dataset_kwargs {', '.join(unknown)}: leave them out."
            )
        configs = _declared(folder) or _as_they_lie(folder)
        chosen = name if name is not None else "default" if "default" in configs else None
        if chosen is None and len(configs) == 1:
            chosen = next(iter(configs))
        if chosen not in configs:
            asked = f"no config {chosen!r}" if chosen is not None else "several configs and the task names none"
            raise ConfigError(
                f"the data set {path} in the mirror {folder} has {asked}: it has {listed(configs)}; add the config there, or "
                "run without the mirror to load from the hub."
            )
        return cls(folder, path, chosen, configs[chosen])

    @property
    def version(self) -> str:
        """Path, config and the digest of all splits, cut short."""
        return f"{self.path}/{self.config} {self.digest(self.files)[:12]}"

    def digest(self, splits: Iterable[str]) -> str:
        """The digest of the splits' files, whatever they are called."""
        return digest_json({split: [_digest(file) for file in self._split(split)] for split in splits})

    def load(self, splits: Iterable[str]) -> Mapping[str, Any]:
        """The splits' rows. Raises FileFormatError for a file that is no parquet."""
        from datasets import Dataset

        return {split: Dataset(pa.concat_tables([_table(file) for file in self._split(split)])) for split in splits}

    def _split(self, split: str) -> tuple[Path, ...]:
        if split not in self.files:
            raise MissingSplitError(
                split,
                f"the data set {self.path} in the mirror {self.folder} has no split {split!r} in its config {self.config!r}: "
                f"it has {listed(self.files)}; add the split there, or run without the mirror to load from the hub.",
            )
        return self.files[split]


def _declared(folder: Path) -> dict[str, dict[str, tuple[Path, ...]]]:
    """Configs and splits out of the front matter of README.md; empty where it declares none."""
    readme = folder / "README.md"
    try:
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        start, _, rest = text.partition("---\n")
        if start.strip() or "\n---" not in rest:
            return {}
        declared = _front_matter(rest.partition("\n---")[0])
        return {
            config["config_name"]: {entry["split"]: _matching(folder, entry["path"]) for entry in config["data_files"]}
            for config in declared
        }
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise FileFormatError(
            f"{readme} has front matter that can't be used ({type(error).__name__}: {error}): expected `configs`, each with "
            "`config_name` and `data_files`, a list of `split` and `path`; correct it."
        ) from error


@lru_cache(maxsize=64)
def _front_matter(text: str) -> list[dict[str, Any]]:
    """The declared configs; remembered by the text, because 57 tasks may read the same long one."""
    matter = yaml.safe_load(text) or {}
    return list(matter.get("configs") or [])


def _matching(folder: Path, patterns: str | list[str]) -> tuple[Path, ...]:
    """The files of a split; a declared file that is missing shows when its split is asked for. Raises ValueError for a pattern
    that leads out of the folder."""
    wanted = [patterns] if isinstance(patterns, str) else patterns
    for pattern in wanted:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ValueError(f"the path {pattern!r} leads out of the folder")
    return tuple(file for pattern in wanted for file in sorted(folder.glob(pattern)) or [folder / pattern])


def _as_they_lie(folder: Path) -> dict[str, dict[str, tuple[Path, ...]]]:
    configs: dict[str, dict[str, tuple[Path, ...]]] = {}
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]):
        config = "default" if file.parent == folder else file.parent.name
        configs.setdefault(config, {})[file.stem] = (file,)
    return configs


def _digest(file: Path) -> str:
    try:
        return digest_file(file)
    except OSError as error:
        raise FileFormatError(
            f"{file} can't be read ({error.strerror}): restore it, or correct README.md beside it."
        ) from error


def _table(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise FileFormatError(f"{file} can't be read as parquet ({error}): restore it.") from error


def listed(names: Iterable[str]) -> str:
    """Some names for a sentence.

    >>> listed(["b", "a"]), listed([])
    ('a, b', 'nothing')
    """
    found = sorted(names)
    if not found:
        return "nothing"
    return ", ".join(found[:20]) + (f" and {len(found) - 20} more" if len(found) > 20 else "")
