"""Sources: picture files behind one contract (`base.Source`), one module a format; `open_source` picks the format."""
