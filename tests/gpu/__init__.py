"""What needs a GPU: `make test-gpu` collects this folder alone, so that nothing else need be installed for it."""
