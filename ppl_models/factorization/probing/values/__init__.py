"""Values of sites: those at which probes start, and others to change them to."""
