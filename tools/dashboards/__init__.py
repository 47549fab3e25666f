"""Grafana's dashboards as code: `python -m tools.dashboards` writes deploy/monitoring/dashboards/*.json anew.

One module a dashboard, in terms of tools/dashboards/panels.py. Every metric in them stands in docs/metrics.md, and a
test asks every query of a Prometheus that watched a real run.
"""
