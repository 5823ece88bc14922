"""What a person is shown of a data set and of a training: pictures, sheets, numbers."""
