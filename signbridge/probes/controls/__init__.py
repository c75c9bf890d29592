"""What tells whether a score means anything: one file a control."""
