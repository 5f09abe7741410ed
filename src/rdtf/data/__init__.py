"""Sticker files in and out, the built-in world, preparation, and the prepared dataset."""
