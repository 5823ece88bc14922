"""A listing to samples: pictures with their masks and captions, loaded one at a time."""
