"""What the rule for recoveries finds, and how often it errs: red, green, and the share of items that it takes.

    python benchmarks/recovery_rule.py [--commits 20000] [--items 1519] [--seed 0]

Each simulated commit measures a recovered cell and its compressed sibling once more. In either, a share f of the items
flips, half of them each way; the recovered cell loses ``loss`` besides, so that this much less is won back. The gate looks
after every round, at the level of a recovered cell among 24 without other anchors. Exits with 1 when a rate is
significantly above its level: red where no more than m0 is lost, green where m1 is.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from harness.gate import Policy, read_policy
from harness.stats.intervals import wilson
from harness.stats.multiplicity import bonferroni
from harness.stats.recovery import log_e_fail_recovery, log_e_pass_recovery, p_recovery_worse
from harness.stats.sequential import anytime_p, round_ends

POLICY = Path(__file__).parents[1] / "suites" / "policy.toml"
N_CELLS = 24
BLOCK = 2000


@dataclass(frozen=True)
class Found:
    """What the gate said of each commit, and the share of the items that it took."""

    red: Bool[np.ndarray, " commits"]
    green: Bool[np.ndarray, " commits"]
    used: Float[np.ndarray, " commits"]


def main() -> None:
    """Print one row a flip rate and loss; exit 1 when a level is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=20_000, help="simulated commits of each kind (default: 20,000)")
    parser.add_argument("--items", type=int, default=1519, help="items of the pool (default: 1,519)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    options = parser.parse_args()
    rng, policy = np.random.default_rng(options.seed), read_policy(POLICY)
    level, missed = bonferroni(policy.alpha_commit * policy.cell_share, N_CELLS) / 2, []
    print(f"{options.commits:,} commits of each kind, {options.items:,} items, level {level:.2g}")
    print(f"{'flips':>7} {'m1':>8} {'loss':>9} {'red':>9} {'green':>8} {'items used':>11}")
    for flips in (0.005, 0.01, 0.03, 0.1):
        m1 = policy.recovery.m1(options.items, 2 * flips)
        for name, loss in (("0", 0.0), ("m0", policy.recovery.m0), ("m1", m1), ("5 pt", 0.05), ("8 pt", 0.08)):
            found = simulate(rng, policy, options.commits, options.items, flips=flips, loss=loss)
            red, green = int(found.red.sum()), int(found.green.sum())
            shares = f"{red / options.commits:>9.2%} {green / options.commits:>8.1%} {found.used.mean():>11.2f}"
            print(f"{flips:>7.1%} {100 * m1:>5.2f} pt {name:>9} {shares}")
            if loss <= policy.recovery.m0 and wilson(red, options.commits, 0.999).low > level:
                missed.append(f"red at {name}, {flips:.1%} flips")
            if name == "m1" and wilson(green, options.commits, 0.999).low > policy.pass_level:
                missed.append(f"green at {name}, {flips:.1%} flips")
    if missed:
        raise SystemExit(f"a level is missed: {'; '.join(missed)}")


def simulate(rng: np.random.Generator, policy: Policy, n_commits: int, n_items: int, *, flips: float, loss: float) -> Found:
    """The gate's word on so many commits, each looked at after every round."""
    parts = []
    for start in range(0, n_commits, BLOCK):
        parts.append(_block(rng, policy, min(BLOCK, n_commits - start), n_items, flips=flips, loss=loss))
    return Found(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("red", "green", "used")))


def shares_of(flips: float, loss: float) -> Float[np.ndarray, " 5"]:
    """The probabilities of X = -2..2: what the recovered cell loses minus what its sibling does, apart from each other."""
    gained, lost = flips / 2, flips / 2 + loss
    recovered = np.array([gained, 1 - gained - lost, lost])
    return np.convolve(recovered, [flips / 2, 1 - flips, flips / 2])


def _block(rng: np.random.Generator, policy: Policy, n_commits: int, n_items: int, *, flips: float, loss: float) -> Found:
    ends = np.array(round_ends(n_items))
    steps = np.diff(ends, prepend=0)
    rounds = np.stack([rng.multinomial(step, shares_of(flips, loss), size=n_commits).T for step in steps], axis=-1).cumsum(-1)
    m0, m1 = policy.recovery.m0, policy.recovery.m1(n_items, 2 * flips)
    fail = np.maximum.accumulate(log_e_fail_recovery(rounds, m0), axis=-1)
    passed = np.maximum.accumulate(log_e_pass_recovery(rounds, m1), axis=-1)
    level = bonferroni(policy.alpha_commit * policy.cell_share, N_CELLS) / 2
    is_red = anytime_p(fail, policy.early.fail_share) < level
    is_red[:, -1] |= p_recovery_worse(rounds[..., -1], m0) / (1 - policy.early.fail_share) < level
    is_green = anytime_p(passed, 1.0) < policy.pass_level
    decided = is_red | is_green
    first = np.where(decided.any(-1), decided.argmax(-1), len(ends) - 1)
    commit = np.arange(n_commits)
    red = is_red[commit, first]
    return Found(red, is_green[commit, first] & ~red, ends[first] / n_items)


if __name__ == "__main__":
    main()
