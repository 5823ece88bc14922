"""Samples to what training reads: latents, masks and caption embeddings, made once."""
