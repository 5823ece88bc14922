"""Does a mask keep a pair's unwanted change out of a LoRA that edits: measured on a small world of pairs."""
