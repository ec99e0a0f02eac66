"""Detecting in files and folders, for tools/infer.py."""
