"""Reference pictures and pictures to fill in: what networks and text encoders are given of them beside the noise."""
