"""Files to pixels: pictures and masks read from files, and masks written to them."""
