"""Accuracy, calibration and label shift of classifiers; quality of generated rows."""
