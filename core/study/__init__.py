"""Studies: many runs from one recipe."""
