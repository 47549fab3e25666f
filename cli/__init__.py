"""`seal`: a client of the auditor, and the local launcher of all three services."""
