"""Our GPTQ leaves in every layer the error that llm-compressor's leaves, called plainly, as its own documentation does.

The plain call shares nothing with ours but the model, the tokens and how many samples are fed at once: it calibrates on a data
set, over all ``Linear`` layers but the head. Left to itself it keeps scales in the model's float32, where ours are rounded to
float16 as files store them: then few weights are quite the same, and a layer's error may fall either way. Told to store
float16, too, it gives our weights, bit for bit. (Fed sample by sample it sums in another order, and a few weights fall on the
other side of a half step, other ones on every kind of processor.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from harness.compression.calibrated import sample_of
from harness.compression.calibration import CalibrationText
from harness.compression.gptq import Gptq
from harness.compression.oneshot import BATCH_SAMPLES
from harness.compression.quiet import sealed
from harness.compression.spent import Peak, cost_of, relative_error
from harness.models.decoder import Decoder
from harness.models.tiny import make_tiny

N_SAMPLES, SAMPLE_TOKENS = 12, 32

RECIPES: dict[str, dict[str, Any]] = {
    "8 bits": {"bits": 8, "group_size": 32},
    "4 bits": {"bits": 4, "group_size": 32},
    "3 bits": {"bits": 3, "group_size": 32},
    "2 bits": {"bits": 2, "group_size": 32},
    "4 bits, rows": {"bits": 4, "group_size": 0},
    "4 bits, asymmetric": {"bits": 4, "group_size": 32, "symmetric": False},
    "4 bits, in order": {"bits": 4, "group_size": 32, "act_order": False},
}

OF_A_LAYER, OF_ALL = 0.06, 0.015
"""How much larger or smaller our error may be where the library is left to itself, as a share of its own: a layer's, and the
mean over layers (seen: 0.05 and 0.011)."""


def by_the_library(folder: Path, token_ids: list[list[int]], recipe: dict[str, Any], scales: str) -> dict[str, Tensor]:
    """The weights of all layers but the head after llm-compressor's own GPTQ."""
    from datasets import Dataset

    module: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = {"num_bits": recipe["bits"], "type": "int", "symmetric": recipe.get("symmetric", True)}
    size = {"strategy": "group", "group_size": recipe["group_size"]} if recipe["group_size"] else {"strategy": "channel"}
    stored = {"scale_dtype": torch.float16} if scales == "float16" else {}
    order = {} if recipe.get("act_order", True) else {"actorder": None}  # the library's default is "static"
    with sealed():
        from llmcompressor import oneshot
        from llmcompressor.modifiers.gptq import GPTQModifier

        groups = {"group_0": {"targets": ["Linear"], "weights": {**weights, **size, **stored}}}
        oneshot(
            model=module,
            dataset=Dataset.from_dict({"input_ids": token_ids, "attention_mask": [[1] * len(ids) for ids in token_ids]}),
            recipe=GPTQModifier(config_groups=groups, ignore=["lm_head"], **order),
            num_calibration_samples=len(token_ids),
            batch_size=BATCH_SAMPLES,
            max_seq_length=len(token_ids[0]),
            shuffle_calibration_samples=False,
        )
    return {
        name: one.weight.detach() for name, one in module.named_modules() if isinstance(one, nn.Linear) and name != "lm_head"
    }


@pytest.mark.parametrize("scales", ["float16", "left to itself"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_layers_error_is_that_of_the_library_called_plainly(
    text: CalibrationText, name: str, scales: str, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path, hidden_size=64, intermediate_size=96)
    model = Decoder().load(folder, device="cpu", dtype="float32")
    layers = Decoder().linear_layers(model)
    dense = {name: layer.weight.clone() for name, layer in layers.items()}
    method = Gptq(n_samples=N_SAMPLES, sample_tokens=SAMPLE_TOKENS, **RECIPES[name])
    theirs = by_the_library(folder, sample_of(method, model, text).token_ids.tolist(), RECIPES[name], scales)
    assert set(theirs) == set(layers)
    method.compress(model, layers, text)
    if scales == "float16":
        assert [name for name, layer in layers.items() if not torch.equal(layer.weight, theirs[name])] == []
    expected = {name: relative_error(theirs[name], dense[name]) for name in layers}
    came = {name: relative_error(layer.weight.detach(), dense[name]) for name, layer in layers.items()}
    assert min(expected.values()) > 0
    assert came == {name: pytest.approx(error, rel=OF_A_LAYER) for name, error in expected.items()}
    cost = cost_of(model.module, layers, folder, Peak())
    assert cost.error_mean == pytest.approx(sum(expected.values()) / len(expected), rel=OF_ALL)
