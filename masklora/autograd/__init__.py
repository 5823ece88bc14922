"""Gradients that stay correct: recomputing, containers, saved tensors, replaced forwards."""
