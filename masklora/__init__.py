"""Masked LoRA: everything about masked training that can be numerically wrong, without ComfyUI."""
