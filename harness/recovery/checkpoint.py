"""Where a training stands, on disk: what it takes to go on after a kill as if nothing had happened."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn, optim, tensor

from harness.core.digest import digest_file
from harness.core.errors import FileFormatError, StorageError
from harness.core.records import record
from harness.core.serial import atomic_path, read_json, write_json

log = logging.getLogger(__name__)

_STATE = "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@record
class Progressed:
    """How far a training is: the last step and the best one, the perplexities without recovery, at the first values and at
    the best step, how many validations were not better since, and the seconds that it took so far."""

    step: int
    best_step: int
    perplexity_before: float
    perplexity_first: float
    perplexity_best: float
    n_worse: int
    wall_s: float


@record
class _State:
    progressed: Progressed
    file: str
    digest: str


def write_checkpoint(
    folder: Path,
    progressed: Progressed,
    parameters: Mapping[str, nn.Parameter],
    best: Mapping[str, Tensor],
    optimizer: optim.Optimizer,
) -> None:
    """Store it all; an older checkpoint stays valid until this one is whole. Raises StorageError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {f"best/{name}": value for name, value in best.items()}
    for name, parameter in parameters.items():
        tensors[f"now/{name}"] = parameter.detach()
        state = optimizer.state[parameter]
        tensors |= {f"{moment}/{name}": state[moment] for moment in _MOMENTS}
    path = folder / f"step-{progressed.step:06d}.safetensors"
    try:
        with atomic_path(path) as neighbour:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, neighbour)
    except SafetensorError as error:
        raise StorageError(f"{path} can't be written ({error}): free some space and run again.") from error
    write_json(folder / _STATE, _State(progressed, path.name, digest_file(path)))
    for old in folder.glob("step-*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)


def read_checkpoint(
    folder: Path, parameters: Mapping[str, nn.Parameter], optimizer: optim.Optimizer
) -> tuple[Progressed, dict[str, Tensor]] | None:
    """Where the training stands and its best tensors; parameters and optimizer are put back as they were.

    None where there is no checkpoint, or a broken one (said in the log): then training begins anew.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / _STATE).exists():
        return None
    try:
        state = read_json(folder / _STATE, _State)
        path = folder / state.file
        if not path.is_file() or digest_file(path) != state.digest:
            raise FileFormatError(f"{path} is not the file that was stored.")
        tensors = load_file(path)
    except (FileFormatError, SafetensorError) as error:
        log.warning("the checkpoint in %s is broken, training begins anew: %s", folder, error)
        return None
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[f"now/{name}"])
        optimizer.state[parameter] = {
            "step": tensor(float(state.progressed.step)),
            **{moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in _MOMENTS},
        }
    device = next(iter(parameters.values())).device
    return state.progressed, {name: tensors[f"best/{name}"].to(device) for name in parameters}
