"""Data sets of the hub that only a script of their own could load: the hub's own conversion to parquet, at one commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.core.digest import digest_json
from harness.core.errors import DownloadError
from harness.knowledge.data_source import head_commit, unreachable

REVISION = "refs/convert/parquet"
"""The branch that the hub keeps its conversions on, laid out as <config>/<split>/<number>.parquet."""


@dataclass(frozen=True, slots=True)
class ConvertedParquet:
    """One config of a data set, as converted."""

    path: str
    name: str
    commit: str

    @classmethod
    def at_head(cls, path: str, name: str, looked_for: str) -> ConvertedParquet:
        """The newest conversion. Raises DownloadError; ``looked_for`` says where the data were looked for before."""
        import httpx
        from huggingface_hub.errors import HFValidationError

        try:
            commit = head_commit(path, REVISION)
        except (OSError, httpx.HTTPError, HFValidationError) as error:  # the hub's own errors are OSErrors
            raise DownloadError(unreachable(path, looked_for, error)) from error
        if commit is None:
            raise DownloadError(f"the hub tells no commit of {path} at {REVISION}: nothing was loaded; try again.")
        return cls(path, name, commit)

    @property
    def version(self) -> str:
        """Path, config and commit, cut short."""
        return f"hub:{self.path}/{self.name}@{self.commit[:12]} (converted)"

    def digest(self, splits: Iterable[str]) -> str:
        """The digest of path, config, commit and splits: a commit never changes."""
        return digest_json([self.path, self.name, self.commit, sorted(splits)])

    def load(self, splits: Iterable[str]) -> Mapping[str, Any]:
        """The splits' rows. Raises DownloadError."""
        import datasets
        import httpx

        folder = f"hf://datasets/{self.path}@{self.commit}/{self.name}"
        files = {split: f"{folder}/{split}/*.parquet" for split in splits}
        try:
            return dict(datasets.load_dataset("parquet", data_files=files))
        except (OSError, httpx.HTTPError) as error:
            raise DownloadError(unreachable(self.path, "it is not in the mirror", error)) from error
