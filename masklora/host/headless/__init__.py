"""A graph executed without a page and without a server: ComfyUI as a library, and a terminal instead of the browser."""
