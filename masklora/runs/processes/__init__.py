"""What the process that trains a run, and others that look at it, tell each other through the run's folder."""
