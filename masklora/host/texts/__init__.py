"""ComfyUI's text encoders, trained beside the model: in sessions that leave no trace."""
