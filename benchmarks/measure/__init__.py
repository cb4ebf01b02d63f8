"""How figures are taken and stored: turns of contenders, results as JSON, facts of the machine, shared options."""
