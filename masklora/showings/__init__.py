"""What became of each picture in a training: how often it was shown, and with what loss."""
