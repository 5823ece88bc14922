"""What is learned: the masked loss, the weights that masks become, noise and its levels. Torch alone."""
