"""Samples: where their numbers lie, how they are read, scaled, divided and put into batches."""
