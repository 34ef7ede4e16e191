"""Writers of results: one file a format, all behind `base.Sink`."""
