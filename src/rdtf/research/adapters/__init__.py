"""The adapters that the paper compares with, each an entry point of :mod:`rdtf.model.adapter`."""
