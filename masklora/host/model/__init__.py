"""ComfyUI's MODEL, VAE and CLIP as something that can be trained, in sessions that leave no trace."""
