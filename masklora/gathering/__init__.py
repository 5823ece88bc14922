"""Folders of pictures to choose from, and pictures that come into them."""
