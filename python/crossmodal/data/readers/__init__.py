"""One module per format of file, for training and for prediction alike."""
