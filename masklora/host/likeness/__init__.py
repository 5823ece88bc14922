"""How sample pictures resemble the pictures that are learned, as DINOv2 sees both."""
