"""Captions in the page: one by hand, many at once, and the tags that they hold."""
