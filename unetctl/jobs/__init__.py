"""One function a subcommand; nothing here prints."""
