"""Baselines on disk: what each cell answered when its state was last accepted, reviewed and versioned with the code.

    baselines/<profile>/<cell id>/baseline.json    BaselineRecord: provenance, tasks, digests, noise, the reason
                                  <task>.parquet   the outcomes by item digest; no data set text, no generated one
    baselines/<profile>/proposals/<cell id>/       the same of a state that is proposed, and proposal.json: what it changes
    baselines/<profile>/release/<cell id>/         the same of a state that was frozen, and release.json: its tag
    baselines/<profile>/history.jsonl              one line for every baseline that was ever accepted

``write_proposal`` refuses anything that is not evidence; ``accept`` anything that loosens the gate without saying why;
``load_baseline`` anything edited or damaged.
"""

from harness.baseline.accept import Accepted, accept
from harness.baseline.changes import (
    INFORMATIVE_AS_SHIPPED,
    Changes,
    Informative,
    UnitChange,
    UnitState,
    compare_baselines,
    loosened,
)
from harness.baseline.compare import ENGINE_PARTS, compare_provenance, forbidden_differences, identity_differences
from harness.baseline.evidence import require_reason
from harness.baseline.load import load_baseline, load_release, load_release_tag, read_present
from harness.baseline.noise import MIN_NOISE_RUNS, Noise, NoiseRun, Repeat, pooled_differences
from harness.baseline.proposal import (
    Proposal,
    ProposalRecord,
    drop_proposal,
    load_proposal,
    loosened_by,
    proposal_home,
    renew_noise,
    write_noise_proposal,
    write_proposal,
)
from harness.baseline.record import Baseline, BaselineRecord, BaselineTask
from harness.baseline.release import freeze
from harness.baseline.store import WriteMode, Written
from harness.baseline.unused import Unused, find_unused, remove_unused
from harness.baseline.words import describe_baseline, describe_diff, describe_noise

__all__ = [
    "ENGINE_PARTS",
    "INFORMATIVE_AS_SHIPPED",
    "MIN_NOISE_RUNS",
    "Accepted",
    "Baseline",
    "BaselineRecord",
    "BaselineTask",
    "Changes",
    "Informative",
    "Noise",
    "NoiseRun",
    "Proposal",
    "ProposalRecord",
    "Repeat",
    "UnitChange",
    "UnitState",
    "Unused",
    "WriteMode",
    "Written",
    "accept",
    "compare_baselines",
    "compare_provenance",
    "describe_baseline",
    "describe_diff",
    "describe_noise",
    "drop_proposal",
    "find_unused",
    "forbidden_differences",
    "freeze",
    "identity_differences",
    "load_baseline",
    "load_proposal",
    "load_release",
    "load_release_tag",
    "loosened",
    "loosened_by",
    "pooled_differences",
    "proposal_home",
    "read_present",
    "remove_unused",
    "renew_noise",
    "require_reason",
    "write_noise_proposal",
    "write_proposal",
]
