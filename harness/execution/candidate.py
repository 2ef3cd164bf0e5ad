"""A candidate: one cell's model, brought into being as late as possible and only once.

Digests come from manifests; the dense model is loaded, compressed or restored from the store only when something must
be compressed or scored that is not stored yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from harness.compression import COMPRESSION, CompressionMethod
from harness.compression.calibration import CalibrationText, load_text, shipped_text
from harness.compression.scopes import Scoped
from harness.core.digest import digest_file, digest_json
from harness.core.errors import ConfigError, StorageError
from harness.core.probes import ProbeIndex
from harness.core.records import SCHEMA_VERSION
from harness.core.serial import atomic_path
from harness.core.shelf import construct
from harness.execution.engine import limit_threads
from harness.execution.matrix import CellPlan
from harness.execution.store import Store, WeightsManifest, sweep
from harness.models import MODELS
from harness.models.download import hub_text
from harness.models.loaded import LoadedModel, ModelFamily
from harness.models.sources import ResolvedModel, anchored_artifact, artifact_folder
from harness.recovery import RECOVERY, RecoveryMethod, TrainedRecovery, is_trained, recipe_digest
from harness.recovery.artifact import TENSORS, ArtifactRecord, TrainedFor, find_artifact

log = logging.getLogger(__name__)

_WEIGHTS = "weights.safetensors"
_TRAINING_TEXT = "training_text"
"""The key of a recovery in the matrix that names the file it is trained on."""

_CALIBRATION = "calibration"
"""The key of a compression in the matrix that names the file it is calibrated on."""

_LEFT_OUT = "leave_out_documents"
"""The key of either that lists documents of its text, counted from 1, that are left out."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A deliberate variation that should change nothing, to measure what it changes all the same.

    ``seed``: compress again with this calibration sample (None: the weights stay). ``threads`` and ``batch_tokens`` (None:
    the scorer's own) vary how the model is run.
    """

    label: str
    seed: int | None
    threads: int
    batch_tokens: int | None = None


@dataclass(slots=True)
class Candidate:
    """One cell's model. ``base`` is the folder that relative paths of the matrix start from, ``artifacts`` that of trained
    recoveries; ``fresh``: compress again even when the store has the weights."""

    plan: CellPlan
    dense: ResolvedModel
    config_digest: str
    store: Store
    device: str
    dtype: str
    probes: Callable[[], ProbeIndex]
    base: Path
    artifacts: Path
    fresh: bool = False
    variant: Variant | None = None
    _manifest: WeightsManifest | None = field(default=None)
    _model: LoadedModel | None = field(default=None)
    _recovered: LoadedModel | None = field(default=None)
    _artifact: tuple[Path, ArtifactRecord] | None = field(default=None)

    def weights(self) -> WeightsManifest:
        """What the cell's weights are and what making them cost; compresses when they are not stored."""
        if self._manifest is None:
            method, text = self._method()
            key = self._weights_key(method, text)
            self._manifest = None if self.fresh else self.store.find_weights(key)
            if self._manifest is None:
                with self.store.lock(key):
                    found = None if self.fresh else self.store.find_weights(key)  # another process may have made them
                    self._manifest = found or self._compress(method, text, key)
        return self._manifest

    def model(self) -> LoadedModel:
        """The model to score: dense weights, compressed, recovered. Raises RecoveryError, ContaminationError."""
        if self._recovered is None:
            method = self.recovery()
            artifact = self._checked_artifact(method) if is_trained(method) else None
            self._recovered = method.recover(self.compressed(), artifact)
        return self._recovered

    def compressed(self) -> LoadedModel:
        """The model before its recovery: dense weights, compressed."""
        manifest = self.weights()
        if self._model is None:
            self._model = self.dense_model()
            self._restore(self._model, manifest)
        return self._model

    def tokenizer(self) -> Any:
        """The model's tokenizer, without loading the model. Its ``model_max_length`` is the window that scorers keep to: what
        its own files say may be unset, or more than the model takes. Raises ModelError."""
        from harness.models.folders import config_of
        from harness.scoring.encoder import window_of_config

        tokenizer, config = self.family().load_tokenizer(self.dense.folder), config_of(self.dense.folder)
        tokenizer.model_max_length = window_of_config(config, tokenizer, self.plan.model.family)
        return tokenizer

    def recovery(self) -> RecoveryMethod:
        """The cell's recovery method, made from its recipe."""
        name, given = self.plan.recovery
        fields = {key: value for key, value in given.items() if key not in (_TRAINING_TEXT, _LEFT_OUT)}
        method = cast(RecoveryMethod, construct("recovery", self.plan.cell.recovery, RECOVERY.load(name), fields))
        if len(fields) < len(given) and not is_trained(method):
            raise ConfigError(
                f"recovery {self.plan.cell.recovery!r} of the matrix: {name!r} is not trained, so it has no text."
            )
        return method

    def recovery_digest(self) -> str:
        """The digest of the recovery's recipe and, where it was trained, of the trained tensors. Raises RecoveryError."""
        recipe, tensors = recipe_digest(self.recovery()), self.recovery_tensors()
        return digest_json([recipe, tensors]) if tensors else recipe

    def recovery_tensors(self) -> str:
        """The digest of the tensors that were trained for the recovery, "" where nothing is. Raises RecoveryError."""
        method = self.recovery()
        return self._found_artifact(method)[1].files[TENSORS] if is_trained(method) else ""

    def training_text(self) -> CalibrationText:
        """What a recovery is trained on: the shipped text, or the file that the matrix names, but for what it leaves out."""
        given = self.plan.recovery[1]
        return self._text(f"recovery {self.plan.cell.recovery!r}", given.get(_TRAINING_TEXT), given.get(_LEFT_OUT, []))

    def _text(self, entry: str, source: Any, left_out: Any) -> CalibrationText:
        """The shipped text, or the file that an entry of the matrix names, but for the documents that it leaves out."""
        if not isinstance(left_out, list) or not all(type(number) is int for number in left_out):
            raise ConfigError(
                f"{entry} of the matrix: {_LEFT_OUT} = {left_out!r} is not possible: expected the numbers of documents, "
                "counted from 1."
            )
        if source is not None and not isinstance(source, str):
            raise ConfigError(f"{entry} of the matrix: its text is {source!r}: expected the path of a file, or hub:….")
        if source is None:
            return shipped_text().without(left_out)
        path = hub_text(source, log.info) if source.startswith("hub:") else self.base / source
        return load_text(path).without(left_out)

    def trained_for(self, method: TrainedRecovery) -> TrainedFor:
        """What an artifact must have been trained for to fit this cell. Versions of libraries may differ."""
        compression, text = self._method(as_declared=True)
        recipe = {key: value for key, value in compression.recipe(text).items() if key != "libraries"}
        return TrainedFor(
            dense_digest=self.dense.weights_digest,
            config_digest=self.config_digest,
            tokenizer_digest=self.dense.tokenizer_digest,
            compression_digest=digest_json(recipe),
            recipe=method.training_recipe(),
            text_digest=self.training_text().digest,
        )

    def _found_artifact(self, method: TrainedRecovery) -> tuple[Path, ArtifactRecord]:
        if self._artifact is None:
            self._artifact = find_artifact(self.artifacts, self.plan.cell.id, self.trained_for(method))
        return self._artifact

    def _checked_artifact(self, method: TrainedRecovery) -> Path:
        """The artifact's folder, its text checked against the cell's probes: tasks may have come since it was trained."""
        folder, made = self._found_artifact(method)
        self.training_text().refuse_probes(self.probes(), "training")
        if made.weights_digest != self.weights().weights_digest:
            log.info("%s: its recovery was trained on weights compressed elsewhere, which differ in bits", self.plan.cell.id)
        return folder

    # -------------------------------------------------------------------------------------------- compressing

    def _method(self, *, as_declared: bool = False) -> tuple[CompressionMethod, CalibrationText | None]:
        name, given = self.plan.compression
        fields = dict(given)
        source, left_out = fields.pop(_CALIBRATION, None), fields.pop(_LEFT_OUT, [])
        scope = fields.pop("scope", "all")
        if name == "artifact" and isinstance(where := fields.get("folder"), str) and where:
            spec = f"artifact:{where}"
            fields["folder"] = str(artifact_folder(anchored_artifact(where, self.base), spec, log.info))
        if self.variant is not None and self.variant.seed is not None and not as_declared:
            fields["seed"] = self.variant.seed
        method = Scoped(construct("compression", self.plan.cell.compression, COMPRESSION.load(name), fields), scope)
        entry = f"compression {self.plan.cell.compression!r}"
        if method.needs_text:
            return method, self._text(entry, source, left_out)
        if source is not None or left_out:
            raise ConfigError(f"{entry} of the matrix: {name!r} is not calibrated, so it has no text.")
        return method, None

    def _weights_key(self, method: CompressionMethod, text: CalibrationText | None) -> str:
        variant = self.variant
        variation = None if variant is None or variant.seed is None else [variant.label, variant.threads]
        made_from = [self.dense.weights_digest, self.config_digest, self.dtype, method.recipe(text), variation]
        if text is not None:
            made_from.append(self.dense.tokenizer_digest)  # which tokens the text is calibrated on as
        return digest_json(made_from)

    def _compress(self, method: CompressionMethod, text: CalibrationText | None, key: str) -> WeightsManifest:
        from harness.compression.inputs import attached
        from harness.compression.spent import cost_of, peak_memory
        from harness.models.digest import digest_parameters, digest_weights

        if text is not None:
            text.refuse_probes(self.probes())
        model = self.dense_model()
        layers = self.family().linear_layers(model)
        weights = {f"{name}.weight" for name in layers}
        changed = method.name != "none"
        rest = digest_parameters(model.module, without=weights) if changed else {}
        if changed:
            log.info("%s: compressing %d layers (%s)", self.plan.cell.id, len(layers), self.plan.cell.compression)
        with limit_threads(self.variant.threads if self.variant else None), peak_memory(model.device) as peak:
            made = method.compress(model, layers, text)
        if changed:
            made = replace(made, cost=cost_of(model.module, layers, self.dense.folder, peak))
        after = digest_parameters(model.module, without=weights) if changed else {}
        weights |= {name for name in rest if rest[name] != after[name]}  # an artifact brings norms and embeddings of its own
        inputs = attached(model.module)
        digest = digest_weights(model.module) if changed else self.dense.weights_digest
        manifest = WeightsManifest(
            schema_version=SCHEMA_VERSION,
            weights_digest=digest_json([digest, inputs]) if inputs else digest,
            compression=made,
            files={_WEIGHTS: self._save(key, model.module, weights)} if changed else {},
            inputs=inputs,
        )
        self.store.put_weights(key, manifest)
        self._model = model
        return manifest

    def _save(self, key: str, module: Any, names: Collection[str]) -> str:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self.store.weights_folder(key) / _WEIGHTS
        sweep(path.parent)
        parameters = {name: one for name, one in module.named_parameters() if name in names}
        tensors = {name: one.detach().cpu().contiguous() for name, one in parameters.items()}
        try:
            with atomic_path(path) as neighbour:
                save_file(tensors, neighbour)
        except SafetensorError as error:
            raise StorageError(
                f"{path} can't be written ({error}): free some space, or point HARNESS_CACHE elsewhere."
            ) from error
        return digest_file(path)

    def _restore(self, model: LoadedModel, manifest: WeightsManifest) -> None:
        if not manifest.files:
            return
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from harness.compression.inputs import RoundInputs, attach

        method, text = self._method()
        path = self.store.weights_folder(self._weights_key(method, text)) / _WEIGHTS
        parameters = dict(model.module.named_parameters())
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"{path} was removed or changed since this run looked at it ({error}): run again, and prune the store when "
                "nothing is measured."
            ) from error
        for name, tensor in tensors.items():
            parameters[name].data.copy_(tensor)
        for name, label in manifest.inputs.items():
            attach({name: model.module.get_submodule(name)}, RoundInputs.parse(label))

    def dense_model(self) -> LoadedModel:
        """The dense model, loaded anew."""
        return self.family().load(self.dense.folder, device=self.device, dtype=self.dtype)

    def family(self) -> ModelFamily:
        """The model's family."""
        return cast(ModelFamily, MODELS.load(self.plan.model.family)())
