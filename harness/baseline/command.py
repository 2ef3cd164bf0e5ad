"""The command that messages name, in one place, so that it can be pasted as it stands."""

from __future__ import annotations


def propose_command(cell: str, *, replaces: bool = False) -> str:
    """How to make a cell's baseline for review; ``replaces`` where there is one already.

    >>> propose_command("llama_4bit-rtn_none")
    '`harness baseline propose llama_4bit-rtn_none --reason "..."`'
    """
    return f'`harness baseline propose {cell} --reason "..."{" --replace" if replaces else ""}`'
