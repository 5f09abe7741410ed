"""Reading and writing of sticker files: all formats, archives and tables."""
