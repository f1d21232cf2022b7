"""Programs and what one run of them shows: neutral records, and the files that read and run a language."""
