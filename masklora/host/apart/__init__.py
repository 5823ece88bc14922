"""The page's graph trained by processes of its own, which leave ComfyUI's queue free."""
