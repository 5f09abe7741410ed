"""Files that messengers accept: the limits of each, the search for the best quality below them, checks, and packs."""
