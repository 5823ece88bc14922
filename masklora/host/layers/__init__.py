"""What ComfyUI's layers compute while they are trained on top of, and not themselves."""
