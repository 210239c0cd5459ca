"""How: plain functions that make and measure checkpoints. Nothing here knows Ray."""
