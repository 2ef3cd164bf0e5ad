"""The commands that messages name, in one place, so that they can be pasted as they stand."""

from __future__ import annotations


def propose_command(cell: str, *, replaces: bool = False, loosens: bool = False) -> str:
    """How to make a cell's baseline for review; ``replaces`` where there is one already: then accepting it is named too.

    ``loosens``: later runs will have to keep less than now.

    >>> propose_command("llama_4bit-rtn_none")
    '`harness baseline propose llama_4bit-rtn_none --reason "..."`'
    """
    proposing = f'`harness baseline propose {cell} --reason "..."`'
    return f"{proposing}, then {accept_command(cell, loosens=loosens)}" if replaces or loosens else proposing


def accept_command(cell: str, *, loosens: bool = False) -> str:
    """How to accept what was proposed for a cell.

    >>> accept_command("llama_4bit-rtn_none", loosens=True)
    '`harness baseline accept llama_4bit-rtn_none --allow-loosening "why"`'
    """
    why = ' --allow-loosening "why"' if loosens else ""
    return f"`harness baseline accept {cell}{why}`"


def diff_command(cell: str) -> str:
    """How to see what a proposal changes."""
    return f"`harness baseline diff {cell}`"
