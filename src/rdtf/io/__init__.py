"""Sticker files in and out: every format, archive and table that can be read, and every one that can be written."""
