"""The command line. Only what is in here prints."""
