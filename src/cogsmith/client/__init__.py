"""Callers of a served model."""
