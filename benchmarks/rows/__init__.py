"""The rows of the published table: what each measures, and the data that it measures on."""
