"""Engines that attend by a plan: a folder each."""
