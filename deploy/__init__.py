"""What a deployment brings beside the service. Not part of the package."""
