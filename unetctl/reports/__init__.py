"""HTML pages with pictures."""
