"""The memory of a training: counted before it starts, told, and compared with the card's."""
