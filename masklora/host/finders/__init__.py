"""ComfyUI's own models borrowed to find masks."""
