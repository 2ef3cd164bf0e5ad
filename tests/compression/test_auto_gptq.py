"""auto-gptq in an environment of its own: refused without CUDA, told what it needs as files, never believed blindly.

There is no CUDA device here: the worker runs in a real child process, with a stand-in for the package that rounds to nearest
and packs as auto-gptq does.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.cli import main
from harness.compression import environment
from harness.compression.auto_gptq import AutoGptq, older_config, write_back
from harness.compression.calibration import CalibrationText
from harness.compression.child import run_job
from harness.compression.environment import ENVIRONMENTS, make_environment, ready
from harness.compression.scopes import Scoped
from harness.core.errors import CompressionError, ConfigError, DownloadError, MissingDependencyError
from harness.core.serial import write_json
from harness.models.artifact import Artifact
from harness.models.digest import digest_weights
from harness.models.folders import block_layers
from harness.models.loaded import LoadedModel

AUTO = ENVIRONMENTS["auto-gptq"]
RECIPE = AutoGptq(bits=4, group_size=16, n_samples=4, sample_tokens=24)

PACKAGE = """
import json
from pathlib import Path
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

__version__ = "0.7.1"


def pack(codes):  # 4 bits, eight codes a word, down the columns
    words = torch.zeros(codes.shape[0], codes.shape[1] // 8, dtype=torch.int64)
    for place in range(8):
        words |= codes[:, place::8].long() << (4 * place)
    return torch.where(words >= 2**31, words - 2**32, words).int()


class BaseQuantizeConfig:
    def __init__(self, bits, group_size, sym, desc_act, damp_percent):
        assert (bits, group_size, sym, desc_act, damp_percent) == (4, 16, True, True, 0.01)


class AutoGPTQForCausalLM:
    @classmethod
    def from_pretrained(cls, folder, config, torch_dtype, trust_remote_code):
        assert torch_dtype == torch.float16 and trust_remote_code is False
        made = cls()
        made.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return made

    def quantize(self, examples):
        assert len(examples) == 4 and all(one["input_ids"].shape == (24,) for one in examples)

    def save_quantized(self, folder, use_safetensors):
        Path(folder).mkdir()
        tensors = {}
        for name, module in self.model.named_modules():
            if not name.endswith("_proj"):
                continue
            groups = module.weight.detach().unflatten(1, (-1, 16))
            scales = (groups.abs().amax(-1) / 7).half()
            codes = (groups / scales.float()[..., None]).round().clamp(-8, 7).flatten(1).long() + 8
            tensors[f"{name}.qweight"] = pack(codes).t().contiguous()
            tensors[f"{name}.qzeros"] = pack(torch.full(scales.t().shape, 7))
            tensors[f"{name}.scales"] = scales.t().contiguous()
            tensors[f"{name}.g_idx"] = (torch.arange(codes.shape[1]) // 16).int()
        save_file(tensors, Path(folder) / "gptq_model-4bit-16g.safetensors")
        said = {"bits": 4, "group_size": 16, "desc_act": True, "sym": True, "quant_method": "gptq"}
        (Path(folder) / "config.json").write_text(json.dumps({"quantization_config": said}))
"""

INTERPRETER = """\
#!{python}
import runpy, sys
assert sys.argv[1] == "-I"
sys.path.insert(0, {packages!r})
import torch
torch.cuda.is_available = lambda: True
moved = torch.nn.Module.to
torch.nn.Module.to = lambda self, *args, **kwargs: self if args in (("cuda",), ("cpu",)) else moved(self, *args, **kwargs)
{before}
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose driver lists a device, and a cache of its own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    script(tmp_path / "driver" / "nvidia-smi", "echo 'GPU 0: A card (UUID: 1)'")
    monkeypatch.setenv("PATH", str(tmp_path / "driver"), prepend=":")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a driver; gives the cache's place, where nothing may come to lie."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "cuda_devices", lambda: ())
    return tmp_path / "cache"


@pytest.fixture
def stand_in(with_cuda: None, tmp_path: Path) -> Callable[..., Path]:
    """A maker of an environment that holds the stand-in: ``before`` runs ahead of the worker."""

    def make(*, before: str = "", package: str = PACKAGE) -> Path:
        packages = tmp_path / "packages"
        packages.mkdir(exist_ok=True)
        (packages / "auto_gptq.py").write_text(package)
        python = AUTO.folder / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        text = INTERPRETER.format(python=sys.executable, packages=str(packages), before=before)
        python.write_text(text)
        python.chmod(0o755)
        write_json(AUTO.folder / "environment.json", environment._Manifest(AUTO.requirements, sys.executable))
        return python

    return make


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(body)}\n")
    path.chmod(0o755)
    return path


def test_the_childs_checkpoint_becomes_the_layers_weights_and_nothing_else_changes(
    stand_in: Callable[..., Path], tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    stand_in()
    before = {name: one.clone() for name, one in tiny.module.state_dict().items()}
    made = RECIPE.compress(tiny, layers, text)
    for name, one in tiny.module.state_dict().items():
        if name.removesuffix(".weight") not in layers:
            assert torch.equal(one, before[name]), name
            continue
        groups = before[name].unflatten(1, (-1, 16))
        scales = (groups.abs().amax(-1, keepdim=True) / 7).half()
        codes = (groups / scales.float()).round().clamp(-8, 7)
        torch.testing.assert_close(one, (codes.half() * scales).float().flatten(1), rtol=0, atol=0)
    assert 4 < made.effective_bits < 8
    assert made.recipe == RECIPE.recipe(text)
    assert made.recipe["libraries"]["auto-gptq"] == "0.7.1"
    assert made.n_weights_compressed == sum(layer.weight.numel() for layer in layers.values())


def test_a_child_that_lacks_its_package_says_so_and_leaves_the_model_as_it_was(
    stand_in: Callable[..., Path], tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    stand_in(package="raise ImportError('no such thing')")
    before = digest_weights(tiny.module)
    with pytest.raises(MissingDependencyError, match=r"(?s)lacks packages: remove .*auto-gptq-.*no such thing"):
        RECIPE.compress(tiny, layers, text)
    assert digest_weights(tiny.module) == before


@pytest.mark.slow
def test_a_child_that_reads_another_model_out_of_the_files_is_not_believed(
    stand_in: Callable[..., Path], tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    stand_in(before="from transformers.models.llama import modeling_llama as m\nm.rotate_half = lambda x: x")
    before = digest_weights(tiny.module)
    with pytest.raises(CompressionError, match=r"reads the dense model otherwise than ours \(\d+\.\d+ nats a token there, \d"):
        RECIPE.compress(tiny, layers, text)
    assert digest_weights(tiny.module) == before


def test_a_checkpoint_with_other_layers_is_refused_whole(tiny: LoadedModel, layers: dict[str, nn.Linear]) -> None:
    before = digest_weights(tiny.module)
    tensors = {f"{name}.weight": torch.zeros_like(layer.weight) for name, layer in layers.items()}
    first = next(iter(layers))
    fewer = {name: 4 for name in layers if name != first}
    with pytest.raises(CompressionError, match=rf"packed 13 layers of 14 \('{first}'"):
        write_back(Artifact("gptq", tensors, fewer, 1), layers)
    tensors[f"{first}.weight"] = torch.zeros(2, 2)
    with pytest.raises(CompressionError, match=f"packed '{first}' in another shape"):
        write_back(Artifact("gptq", tensors, dict.fromkeys(layers, 4), 1), layers)
    assert digest_weights(tiny.module) == before


def test_a_child_that_fails_is_told_by_its_code_and_what_it_said_last(tmp_path: Path) -> None:
    python = script(tmp_path / "bin" / "python", "echo 'out of memory: asked for 3 GiB' >&2; exit 7")
    with pytest.raises(
        CompressionError, match=r"\(exit code 7\): nothing was changed\. It said:\n  out of memory: asked for 3 GiB$"
    ):
        run_job("auto-gptq", python, tmp_path / "worker.py", tmp_path)
    script(python, "exit 21")
    with pytest.raises(MissingDependencyError, match=rf"finds no CUDA device: remove {tmp_path}, and make it again"):
        run_job("auto-gptq", python, tmp_path / "worker.py", tmp_path)
    script(python, "kill -9 $$")
    with pytest.raises(CompressionError, match=r"(?s)\(signal 9\).*\(it wrote nothing to stderr\)"):
        run_job("auto-gptq", python, tmp_path / "worker.py", tmp_path)
    python.unlink()
    with pytest.raises(MissingDependencyError, match=r"can't be run .* again with `harness env auto-gptq`"):
        run_job("auto-gptq", python, tmp_path / "worker.py", tmp_path)


def test_a_child_gets_its_job_and_neither_our_packages_nor_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    python = script(tmp_path / "bin" / "python", 'env > "$3/env"; echo "$1 $2" > "$3/called"')
    run_job("auto-gptq", python, Path("/w.py"), tmp_path, {"CUDA_VISIBLE_DEVICES": "1"})
    seen = (tmp_path / "env").read_text().splitlines()
    assert {"HF_HUB_OFFLINE=1", "CUDA_VISIBLE_DEVICES=1"} <= set(seen)
    assert not [line for line in seen if line.startswith("PYTHONPATH=")]
    assert (tmp_path / "called").read_text() == "-I /w.py\n"


# ------------------------------------------------------------------------------------------------ refused before it begins


def test_without_cuda_nothing_is_installed_and_nothing_compressed(
    without_cuda: Path, tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText, capsys: Any
) -> None:
    with pytest.raises(
        ConfigError, match=r"CUDA device, and this machine has none .*: nothing was installed or changed; run it"
    ):
        RECIPE.compress(tiny, layers, text)
    assert main(["env", "auto-gptq"]) == 4
    told = capsys.readouterr().err
    assert told.startswith("harness: auto-gptq quantizes on a CUDA device")
    assert told.count("\n") == 1
    assert not without_cuda.exists()


def test_a_driver_without_a_device_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.cuda_devices() == ()
    script(tmp_path / "nvidia-smi", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert environment.cuda_devices() == ()
    script(tmp_path / "nvidia-smi", "echo 'GPU 0: A card'; echo 'GPU 1: A card'")
    assert len(environment.cuda_devices()) == 2


def test_without_its_environment_the_command_that_makes_it_is_named(with_cuda: None) -> None:
    with pytest.raises(MissingDependencyError, match="is not made yet: `harness env auto-gptq` makes it"):
        ready("auto-gptq")


def test_widths_that_leave_a_word_unfilled_are_refused(
    stand_in: Callable[..., Path], tiny: LoadedModel, text: CalibrationText
) -> None:
    stand_in()
    tiny.module.model.layers[1].self_attn.k_proj = nn.Linear(64, 16, bias=False)  # type: ignore[union-attr]
    with pytest.raises(
        CompressionError, match=r"multiples of 32, and 'model\.layers\.1\.self_attn\.k_proj' has 64 inputs and 16"
    ):
        RECIPE.compress(tiny, block_layers(tiny), text)


def test_a_scope_and_other_families_are_refused(
    tiny: LoadedModel, layers: dict[str, nn.Linear], text: CalibrationText
) -> None:
    with pytest.raises(ConfigError, match="packs all layers of a model's blocks: take scope = 'all'"):
        Scoped(RECIPE, "attention").compress(tiny, layers, text)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"bits": 5}, "bits = 5"),
        ({"bits": 4, "group_size": -1}, "group_size = -1"),
        ({"bits": 4, "dampening": 1.0}, "dampening"),
    ],
)
def test_a_recipe_that_cant_be_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"auto_gptq: {sentence}"):
        AutoGptq(**fields)


# ------------------------------------------------------------------------------------------------ making the environment


def test_an_environment_is_made_once_with_pinned_versions(with_cuda: None, tmp_path: Path) -> None:
    log = tmp_path / "log"
    inner = f'echo "pip $*" >> {log}'
    python = script(
        tmp_path / "py" / "python",
        f"""
        if [ "$1" = --version ]; then echo "Python 3.11.7"; exit 0; fi
        echo "venv $*" >> {log}; mkdir -p "$3/bin"
        printf '#!/bin/sh\\n%s\\n' '{inner}' > "$3/bin/python"
        chmod +x "$3/bin/python"
        """,
    )
    told: list[str] = []
    folder = make_environment("auto-gptq", told.append, python=str(python))
    ran = log.read_text().splitlines()
    assert [line.split()[0] for line in ran] == ["venv", "pip"]
    assert {"auto-gptq==0.7.1", "transformers==4.46.3", "datasets==3.1.0", "peft==0.13.2", "accelerate==1.1.1"} <= set(
        ran[1].split()
    )
    assert ready("auto-gptq") == folder / "bin" / "python"
    assert make_environment("auto-gptq", told.append, python=str(python)) == folder
    assert len(log.read_text().splitlines()) == 2
    assert "is there already" in told[-1]


def test_an_environment_that_could_not_be_installed_is_none(with_cuda: None, tmp_path: Path) -> None:
    python = script(
        tmp_path / "py" / "python",
        """
        if [ "$1" = --version ]; then echo "Python 3.10.1"; exit 0; fi
        mkdir -p "$3/bin"; printf '#!/bin/sh\\necho "ERROR: No matching distribution" >&2; exit 1\\n' > "$3/bin/python"
        chmod +x "$3/bin/python"
        """,
    )
    with pytest.raises(
        DownloadError, match=r"pip could not install auto-gptq .*\(ERROR: No matching distribution\): check the"
    ):
        make_environment("auto-gptq", lambda _: None, python=str(python))
    with pytest.raises(MissingDependencyError, match="is not made yet"):
        ready("auto-gptq")


@pytest.mark.parametrize(
    ("body", "came"), [('echo "Python 3.13.1"', "is Python 3.13.1"), ("exit 3", "is no version, and exit code 3")]
)
def test_an_interpreter_that_it_has_no_files_for_is_refused(body: str, came: str, with_cuda: None, tmp_path: Path) -> None:
    python = script(tmp_path / "py" / "python", body)
    with pytest.raises(ConfigError, match=rf"{came}: expected Python 3\.9 to 3\.11, .* name one with --python"):
        make_environment("auto-gptq", lambda _: None, python=str(python))
    with pytest.raises(ConfigError, match="can't be run"):
        make_environment("auto-gptq", lambda _: None, python=str(tmp_path / "gone"))
    assert not AUTO.folder.exists()


def test_an_unknown_environment_is_answered_with_the_known_ones(with_cuda: None) -> None:
    with pytest.raises(ConfigError, match=r"unknown environment 'auto-gtpq': did you mean 'auto-gptq'\?"):
        make_environment("auto-gtpq", lambda _: None)


def test_a_config_is_put_into_the_older_words() -> None:
    said = {"dtype": "float16", "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}, "a": 1}
    assert json.loads(json.dumps(older_config(said))) == {
        "torch_dtype": "float16",
        "rope_theta": 5e5,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
        "a": 1,
    }
