"""Losses: small callables, tensors in, scalar out."""
