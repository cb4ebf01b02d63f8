"""What `python -m train` does besides training: --check, --evaluate and --find-lr."""
