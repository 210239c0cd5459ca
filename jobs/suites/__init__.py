"""The suites of published checkpoints that ship with Eigentrace, a file for each family."""
