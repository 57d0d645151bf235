"""Command-line options: parsed once, checked once, printed and saved."""
