"""Reduce: a range of the table folded to counts, sums and extremes, as pure rules of the store."""
