"""The package's version, in a module of its own so that nothing loads the public face for it."""

__version__ = "0.1.0"
