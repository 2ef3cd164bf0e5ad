"""Baselines on disk: what each cell answered when its state was last accepted, reviewed and versioned with the code.

    baselines/<profile>/<cell id>/baseline.json    BaselineRecord: provenance, tasks, digests, noise, the reason
                                  <task>.parquet   the outcomes by item digest; no data set text
    baselines/<profile>/history.jsonl              one line for every baseline that was ever accepted

``load_baseline`` refuses anything edited or damaged; ``store_baseline`` refuses anything that is not evidence.
"""

from harness.baseline.command import propose_command
from harness.baseline.compare import compare_provenance, identity_differences
from harness.baseline.load import load_baseline
from harness.baseline.record import Baseline, BaselineRecord, BaselineTask, Noise, NoiseRun, recompression_sigma
from harness.baseline.store import WriteMode, Written, store_baseline

__all__ = [
    "Baseline",
    "BaselineRecord",
    "BaselineTask",
    "Noise",
    "NoiseRun",
    "WriteMode",
    "Written",
    "compare_provenance",
    "identity_differences",
    "load_baseline",
    "propose_command",
    "recompression_sigma",
    "store_baseline",
]
