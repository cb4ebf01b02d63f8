"""The rows of the published table: what each measures, the data that it measures on, and how documents show them."""
