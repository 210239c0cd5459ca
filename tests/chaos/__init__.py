"""Chaos: a study of all kinds of work on a cluster to which everything happens, from a seed."""
