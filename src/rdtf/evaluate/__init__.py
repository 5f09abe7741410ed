"""Measuring: the patterns that are measured, frames filled in, sets of stickers, the judge, external networks."""
