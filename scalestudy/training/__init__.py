"""One run: spec in, record out."""
