"""The words that all of some models write as one token: the candidates that LAMA's compared models share, one a line.

    python scripts/shared_words.py MODEL_FOLDER [MODEL_FOLDER …] > words.txt

Only the tokenizers are loaded. Name the file as `vocabulary` of a lama task.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.knowledge.words import shared_words


def main() -> None:
    """Print the words in alphabetical order."""
    from transformers import AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="MODEL_FOLDER")
    tokenizers = [AutoTokenizer.from_pretrained(folder, local_files_only=True) for folder in parser.parse_args().folders]
    print(*shared_words(tokenizers), sep="\n")


if __name__ == "__main__":
    main()
