"""Statistics: one pure NumPy/SciPy function family per file, each with its unit, range, edge cases and source.

Signs are everywhere the same: *lost* items were right before and are wrong now, *gained* ones the reverse; a loss is
(lost - gained) / items, positive when the candidate is worse, in fractions of all items (0.01 is one point).
"""
