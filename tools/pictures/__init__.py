"""Pictures for the manuals, from a real run that a real Prometheus watched: `python -m tools.pictures`.

What is drawn is asked for with the queries of deploy/monitoring/dashboards; Grafana itself is not needed.
"""
