"""Helpers without knowledge of options, models or data sets."""
