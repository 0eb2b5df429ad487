"""Writes the weight files and the files beside them to a folder that is put in place when complete."""
