"""A page in the browser to make stickers and to train (``rdtf studio``); docs/studio.md."""
