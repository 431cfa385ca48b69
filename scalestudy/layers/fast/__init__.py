"""The exact fast algorithms behind the convolutions."""
