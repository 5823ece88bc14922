"""What `dev.py` is made of: the host environment, a running ComfyUI, the demo. Standard library only."""
