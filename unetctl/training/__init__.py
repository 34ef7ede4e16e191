"""From pictures with labels to weights."""
