"""Noise paths, prediction targets, guidance."""
