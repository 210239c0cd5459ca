"""Fine-tuning of loaded checkpoints: what is learned, by which adapters, and what it changes."""
