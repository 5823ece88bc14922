"""A folder to a listing: which of its files are pictures, masks and captions, and which are none."""
