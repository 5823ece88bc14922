"""Does a mask that moves beat a still one: leak, subject and motion, measured on a small world of clips."""
