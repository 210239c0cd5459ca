"""The studies that ship with Eigentrace, one TOML file each."""
