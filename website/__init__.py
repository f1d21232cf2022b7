"""The documentation site: pages that are made of the code when `make docs` builds it with MkDocs."""
