"""The longer commands of the command line: their parser lines, and what they do. ``harness/cli.py`` is the door."""
