"""Checks and measurements on a GPU, with torch, Triton and the standard library alone.

The front door is `run_all.sh`; README.md says what it writes and what to do with it.
"""
