"""Tensors in, numbers out: the mathematics of every measurement."""
