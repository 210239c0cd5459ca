"""Ratios against a peer or a limit, both sides in one run on one machine."""
