"""What the page asks of the frames of clips."""
