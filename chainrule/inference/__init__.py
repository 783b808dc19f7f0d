"""Generated stubs of the Open Inference Protocol, in a descriptor pool of their own: see protos/generate.py."""
