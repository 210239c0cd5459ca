"""Data and hyperparameters of post-training that were published, as TOML files."""
