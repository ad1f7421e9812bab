"""What sparse attention costs in quality: methods side by side at equal computed blocks."""
