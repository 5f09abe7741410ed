"""Training: the generator's loop, the codec's, and what they share."""
