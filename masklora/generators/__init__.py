"""Masks made from pictures: one file per method; `run` applies any of them to a data set or to pictures."""
