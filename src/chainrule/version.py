"""The version, stated once: the build reads this line, and `chainrule.__version__` is it."""

__version__ = "0.1.0"
