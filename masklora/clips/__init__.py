"""Moving pictures as they are stored: headers, times of frames, frames and masks; and which frames are learned."""
