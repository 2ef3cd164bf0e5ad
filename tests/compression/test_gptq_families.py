"""Gptq beyond decoders: better than rounding on every encoder of the registry, and a clear refusal of encoder-decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.compression.calibration import CalibrationText
from harness.compression.gptq import Gptq
from harness.compression.none import NoCompression
from harness.compression.rtn import Rtn
from harness.core.errors import ConfigError
from harness.models import MODELS
from harness.models.digest import digest_weights
from harness.models.tiny import TINY_ENCODERS, make_tiny

SMALL = {"group_size": 16, "n_samples": 24, "sample_tokens": 32}


def states(folder: Path, method: Any, text: CalibrationText) -> Tensor:
    """What an encoder's body puts out on its calibration sample after a method."""
    family = MODELS.load("encoder")()
    model = family.load(folder, device="cpu", dtype="float32")
    method.compress(model, family.linear_layers(model), text)
    settings = {"n_samples": SMALL["n_samples"], "sample_tokens": SMALL["sample_tokens"], "seed": 0}
    sample = text.draw(model.tokenizer, separator_id=model.document_start_id, **settings)
    assert sample.token_ids[0, 0] == model.tokenizer.cls_token_id
    with torch.inference_mode():
        out: Tensor = model.module.base_model(input_ids=torch.from_numpy(sample.token_ids)).last_hidden_state  # type: ignore[operator]
    return out


@pytest.mark.parametrize("architecture", TINY_ENCODERS)
def test_an_encoder_loses_less_than_half_of_what_rounding_costs_it(
    architecture: str, text: CalibrationText, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path, architecture)
    dense = states(folder, NoCompression(), text)
    solved = (states(folder, Gptq(bits=3, **SMALL), text) - dense).square().mean()
    rounded = (states(folder, Rtn(bits=3, group_size=16), text) - dense).square().mean()
    assert solved < rounded / 2


def test_an_encoder_decoder_is_refused_with_what_works_instead(text: CalibrationText, tmp_path: Path) -> None:
    family = MODELS.load("seq2seq")()
    model = family.load(make_tiny(tmp_path, "t5"), device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="can't take a model of family 'seq2seq' block by block: take method 'rtn'"):
        Gptq(bits=4, **SMALL).compress(model, family.linear_layers(model), text)
    assert digest_weights(model.module) == model.weights_digest
