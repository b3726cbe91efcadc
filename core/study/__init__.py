"""Many runs from one recipe: `distk study`. docs/studies.md says how to write one, and what its verdicts mean."""
