"""The family's data sets."""
