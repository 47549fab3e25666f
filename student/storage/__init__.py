"""Where versions, edits and aliases lie: a folder, or a bucket behind the S3 API. All replicas share it."""
