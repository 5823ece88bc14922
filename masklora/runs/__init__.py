"""What a training leaves: its folder, checkpoints, records, sample pictures and LoRA files."""
