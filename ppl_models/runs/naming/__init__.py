"""The words of a command line or a file: models, guides, objectives, options; and who may be named."""
