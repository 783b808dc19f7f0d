"""The dashboards of Grafana, from Python, so that a change of them can be read.

    python -m deploy.grafana            writes dashboards/*.json
    python -m deploy.grafana --check    compares, and exits with 1 if any differs

Built with Grafana's own Foundation SDK, whose types are generated from Grafana's schemas: what it doesn't know, mypy
finds. panels.py says how ours look, fleet.py, job.py and runbooks.py what is on them.
"""
