"""Data sets: what is found on disk, how it is read, matched, captioned, filled and cached."""
