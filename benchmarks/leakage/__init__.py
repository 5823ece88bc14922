"""Does masked training work, and what works best: subject, background and other prompts, measured on a small world."""
