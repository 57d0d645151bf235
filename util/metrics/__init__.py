"""Evaluation: metrics are functions, protocols are data, no cache in a measured folder.

``pairs.score_pairs`` scores arrays (validation), ``evaluate.evaluate_folder`` scores folders.
"""
