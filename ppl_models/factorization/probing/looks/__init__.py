"""Further looks: at what provenance allows and no probe has seen, at rare values, at copies of large plates."""
