"""The control of prompt tuning: a prompt of the same size that nobody trained. What it changes is no recovery."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from harness.compression.checks import check_choice, check_count

if TYPE_CHECKING:
    from harness.models.loaded import LoadedModel

_KERNEL = 1


@dataclass(frozen=True, slots=True)
class RandomPrompt:
    """A prompt of ``n_tokens`` rows drawn with ``seed``: ``vocabulary``: the embeddings of tokens, as tuning begins with, or
    ``gaussian``: normal numbers with each dimension's mean and spread over the vocabulary."""

    name: ClassVar[str] = "random_prompt"

    n_tokens: int = 20
    draw: Literal["vocabulary", "gaussian"] = "vocabulary"
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self.name, "n_tokens", self.n_tokens, least=0)
        check_choice(self.name, "draw", self.draw, ("vocabulary", "gaussian"))
        check_count(self.name, "seed", self.seed, least=0)

    def recipe(self) -> dict[str, Any]:
        """The method and its hyper-parameters."""
        return {"method": self.name, "kernel": _KERNEL, **asdict(self)}

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:  # noqa: ARG002 - nothing is trained
        """The model behind the random prompt. Raises RecoveryError."""
        import torch

        from harness.recovery.soft import as_root, behind, known_tokens, seeded, token_rows, vocabulary_rows
        from harness.recovery.trained import check_decoder

        check_decoder(self.name, model)
        generator = seeded(self.seed)
        if self.draw == "vocabulary":
            rows = vocabulary_rows(model, self.n_tokens, generator)
        else:
            known = token_rows(model, list(known_tokens(model))).float().cpu()
            noise = torch.randn((self.n_tokens, known.shape[1]), generator=generator)
            rows = known.mean(0) + noise * known.std(0)
        return behind(self.name, model, as_root(model, rows))
