"""Optimizers of a package that people install where they choose one."""
