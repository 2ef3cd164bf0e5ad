"""The child of ``auto_gptq``: runs in that package's own environment, imports nothing of this project.

    python -I auto_gptq_worker.py FOLDER

``FOLDER`` has ``job.json``, the dense model as a folder ``dense`` and token ids in ``samples.safetensors``. It leaves
``packed``, the checkpoint as auto-gptq saves it, and ``report.json``: versions, and how well the dense model, as read here,
predicts the samples, so that a config that these older libraries understand otherwise is found out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NOT_INSTALLED = 20
NO_CUDA = 21


def main(folder: Path) -> int:
    """Quantize the job's model; the exit code (``compression.child``)."""
    try:
        import auto_gptq
        import torch
        import transformers
        from safetensors.torch import load_file
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return NOT_INSTALLED
    if not torch.cuda.is_available():
        sys.stderr.write(f"torch {torch.__version__} finds no CUDA device\n")
        return NO_CUDA
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    samples = load_file(str(folder / "samples.safetensors"))["token_ids"]
    config = auto_gptq.BaseQuantizeConfig(**job["quantize_config"])
    model = auto_gptq.AutoGPTQForCausalLM.from_pretrained(
        str(folder / "dense"), config, torch_dtype=torch.float16, trust_remote_code=False
    )
    report = {
        "nats_per_token": nats_per_token(model.model.to("cuda"), samples[: job["n_checked"]]),
        "versions": {module.__name__: module.__version__ for module in (auto_gptq, transformers, torch)},
    }
    model.model.to("cpu")  # it takes block after block to the device itself
    model.quantize([{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in samples])
    model.save_quantized(str(folder / "packed"), use_safetensors=True)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return 0


def nats_per_token(module: Any, samples: Any) -> float:
    """The mean negative log-likelihood of the samples' tokens but their first."""
    import torch

    device = next(module.parameters()).device
    total = 0.0
    with torch.inference_mode():
        for ids in samples.to(device):
            logits = module(ids[None]).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
    return total / int(samples.shape[0] * (samples.shape[1] - 1))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
