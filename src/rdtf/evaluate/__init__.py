"""Evaluation: filled-in frames, generated stickers, the judge and the namer, and external networks."""
