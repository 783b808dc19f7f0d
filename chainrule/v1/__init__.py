"""The contract, generated from protos/chainrule/v1 by protos/generate.py. Never edited by hand."""
