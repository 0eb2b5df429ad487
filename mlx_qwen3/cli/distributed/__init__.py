"""`--distributed` and `--hosts`: commands over several machines."""
