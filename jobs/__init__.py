"""What to measure: studies, cells, their identity, the tables they fill, and the errors."""

__version__ = "0.1.0"
