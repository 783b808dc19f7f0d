"""Models as ONNX graphs, for runtimes that know nothing of Chainrule. A row of exporters.py for every layer."""
