"""A written instruction before every input, as its tokens' embeddings: what words alone bring back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.core.errors import ConfigError

if TYPE_CHECKING:
    from harness.models.loaded import LoadedModel

_KERNEL = 1


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """``text`` before every input, the model's own special tokens (BOS) where its tokenizer puts them; an empty one changes
    nothing."""

    name: ClassVar[str] = "text_prompt"

    text: str = "Answer with the fact that you know."

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise ConfigError(f"text_prompt: text = {self.text!r} is not possible: expected a text in quotes.")

    def recipe(self) -> dict[str, Any]:
        """The method and its text."""
        return {"method": self.name, "kernel": _KERNEL, "text": self.text}

    def recover(self, model: LoadedModel, artifact: Path | None) -> LoadedModel:  # noqa: ARG002 - nothing is trained
        """The model behind the text. Raises RecoveryError."""
        from harness.recovery.soft import as_root, behind, token_rows
        from harness.recovery.trained import check_decoder

        check_decoder(self.name, model)
        ids = model.tokenizer.encode(self.text) if self.text else []
        return behind(self.name, model, as_root(model, token_rows(model, ids)))
