"""Masks and captions to files again, by hand or by a node, so that nothing is lost."""
