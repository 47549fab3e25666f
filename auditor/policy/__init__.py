"""What an operator demands of every edit and of every version: rules in a file, and a model that reads edits."""
