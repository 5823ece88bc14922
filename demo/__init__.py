"""The demo's own small world: its pictures, its base model, and the judge of what the model paints."""
