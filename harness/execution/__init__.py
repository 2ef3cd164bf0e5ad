"""Execution: from the matrix to measured cells. ``matrix`` says what exists, ``store`` keeps what was done, ``local``
does the rest on this machine. Importing this package imports no torch."""
