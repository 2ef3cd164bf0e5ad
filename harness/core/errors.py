"""Every deliberate exception, one tree.

An error message is one sentence that says what was expected, what came, and what to do next.
``exit_code`` is what the command line and pytest end with when the error reaches them:
4 (pytest's own usage error) for what the user asked for, 11 (INVALID) for what could not be measured or judged.
"""

from __future__ import annotations

EXIT_PASS = 0
EXIT_REGRESSED = 1
EXIT_USAGE = 4
EXIT_INCONCLUSIVE = 10
EXIT_INVALID = 11


class HarnessError(Exception):
    """The root: catch it at a door (pytest, command line), print it, exit with its code."""

    exit_code: int = EXIT_INVALID


class ConfigError(HarnessError):
    """A matrix, policy, option or name that the user gave can't be used."""

    exit_code = EXIT_USAGE


class UnknownNameError(ConfigError):
    """A name that is on no shelf or in no matrix; the message says which names are near."""


class CellIdError(ConfigError):
    """A cell id, or a part of one, with characters that ids don't have."""


class FileFormatError(HarnessError):
    """A file that can't be read as what it should be: broken, of another schema version, or edited."""


class StorageError(HarnessError):
    """A file that can't be written: no space, no permission, a lock held by another process."""


class DownloadError(HarnessError):
    """A download that failed or brought something else than was pinned."""


class ModelError(HarnessError):
    """A model or tokenizer that can't be loaded or must not be scored."""


class CompressionError(HarnessError):
    """A compression recipe that does not fit its model, or a compression that went wrong."""


class RecoveryError(HarnessError):
    """A recovery that does not fit its model, a training that went wrong, or a stored artifact that can't be used."""


class AnalysisError(HarnessError):
    """A model whose inside can't be looked at."""


class ContaminationError(HarnessError):
    """Calibration or training text that holds the probes' own text."""


class ScoreError(HarnessError):
    """A score that is not a finite number."""


class BaselineError(HarnessError):
    """A baseline that is missing, edited, or not comparable with the run."""


class EvidenceError(HarnessError):
    """A baseline proposal without the evidence that accepting it needs."""

    exit_code = EXIT_USAGE


class MissingDependencyError(HarnessError):
    """A package of an extra that is not installed; the message names the extra."""

    exit_code = EXIT_USAGE
