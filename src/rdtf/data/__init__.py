"""Preparation of datasets: finding stickers, checks, duplicates, splits, and reading the prepared dataset."""
