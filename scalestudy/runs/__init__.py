"""Many runs: what is missing, made here or on a cluster."""
