"""One optimizer step: eager, or captured once, compiled and replayed."""
