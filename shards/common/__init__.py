"""What every part needs: errors, the command line, atomic files, locks, signals, limits of the machine, redaction."""
