"""What the workflows promise about secrets, forks and other people's code, read from the files themselves."""

from __future__ import annotations

import re
from typing import Any

Steps = list[tuple[str, dict[str, Any]]]
Jobs = dict[str, dict[str, Any]]

FORKS_STAY_OUT = "github.event_name != 'pull_request' || github.event.pull_request.head.repo.full_name == github.repository"
EXACT_VERSION = re.compile(r"v\d+\.\d+\.\d+")
COMMIT = re.compile(r"[0-9a-f]{40}")


def test_no_workflow_runs_with_the_rights_of_the_base_repository_for_somebody_else(workflows: Jobs) -> None:
    for name, text in workflows.items():
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(text["on"]), name


def test_workflows_start_without_any_right_and_jobs_get_to_read_the_code_at_most(workflows: Jobs, jobs: Jobs) -> None:
    for name, text in workflows.items():
        assert text["permissions"] == {}, name
    for place, job in jobs.items():
        assert job["permissions"] in ({}, {"contents": "read"}), place


def test_every_action_is_pinned_github_s_own_to_a_release_and_others_to_a_commit(steps: Steps) -> None:
    used = {step["uses"] for _, step in steps if "uses" in step}
    assert used
    for action in used:
        owner, _, version = action.partition("/")[0], *action.rpartition("@")[1:]
        is_pinned = COMMIT.fullmatch(version) or (owner == "actions" and EXACT_VERSION.fullmatch(version))
        assert is_pinned, f"{action} can change under our feet"


def test_the_token_of_a_checkout_is_never_left_in_the_folder(steps: Steps) -> None:
    checkouts = [(place, step) for place, step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    for place, step in checkouts:
        assert step["with"]["persist-credentials"] is False, place


def test_scripts_hold_no_expression_so_that_nothing_from_outside_becomes_code(steps: Steps) -> None:
    scripts = [(place, step["run"]) for place, step in steps if "run" in step]
    assert scripts
    for place, script in scripts:
        assert "${{" not in script, f"{place}: hand it over in `env` and quote it"


def test_only_gpu_jobs_leave_hosted_machines_and_these_refuse_forks_and_wait_for_an_environment(jobs: Jobs) -> None:
    on_own_machines = {place: job for place, job in jobs.items() if "self-hosted" in job["runs-on"]}
    assert set(on_own_machines) == {"gate.yml:gate"}
    for job in on_own_machines.values():
        assert job["runs-on"] == ["self-hosted", "linux", "gpu"]
        assert job["if"] == FORKS_STAY_OUT
        main_or_tag = "(github.ref == 'refs/heads/main' || startsWith(github.ref, 'refs/tags/v'))"
        assert job["environment"] == f"${{{{ {main_or_tag} && 'gpu' || 'gpu-review' }}}}"


def test_the_only_secret_is_the_hub_s_token_in_the_one_step_that_may_download(workflows: Jobs, steps: Steps) -> None:
    assert [str(text).count("secrets.") for text in workflows.values()] == [0, 1]
    holders = [(place, step) for place, step in steps if "secrets." in str(step)]
    assert [place.rpartition(":")[0] for place, _ in holders] == ["gate.yml:gate"]
    assert holders[0][1]["env"] == {"HF_TOKEN": "${{ secrets.HF_TOKEN }}"}


def test_every_job_ends_by_itself_and_a_newer_push_ends_pull_requests_only(workflows: Jobs, jobs: Jobs) -> None:
    for place, job in jobs.items():
        assert 1 <= job["timeout-minutes"] <= 360, place
    for name, text in workflows.items():
        assert "github.ref" in text["concurrency"]["group"], name
        assert text["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_one_model_s_failure_stops_no_other_and_its_report_is_kept(workflows: Jobs) -> None:
    gate = workflows["gate.yml"]["jobs"]["gate"]
    assert gate["strategy"]["fail-fast"] is False
    kept = [step for step in gate["steps"] if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert [step["if"] for step in kept] == ["always()"]
    assert kept[0]["with"]["name"] == "gate-${{ matrix.leg.name }}"
