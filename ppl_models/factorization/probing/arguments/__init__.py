"""The arguments of a pair: which of their elements each observed value is, and which repeat the data."""
