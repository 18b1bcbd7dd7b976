"""Reports: one model, rendered as terminal text, JSON, CSV and HTML."""
