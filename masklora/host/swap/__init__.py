"""What waits in main memory while blocks work: weights of other blocks, and inputs that these keep for backward."""
