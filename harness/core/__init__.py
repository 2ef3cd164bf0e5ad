"""The floor of the house: frozen records, errors, files, digests. Imports nothing of the project but itself."""
