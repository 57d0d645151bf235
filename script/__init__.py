"""One command a file; run them as ``python -m script.NAME``."""
