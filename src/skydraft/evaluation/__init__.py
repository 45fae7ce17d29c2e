"""Captions against labels and references; runs over many clips."""
