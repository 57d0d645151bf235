"""What a person sees of a run: console, logs, pages and pictures."""
