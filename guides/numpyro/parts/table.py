"""`Table`: a mapping that is hashable, as all has to be that is static in an Equinox module."""


class Table(dict):
    """A mapping that is not written to."""

    def __hash__(self) -> int:
        return hash(tuple(self.items()))
