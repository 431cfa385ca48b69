"""Runs and where they are kept: the paper's grids, the run store, and execution."""
