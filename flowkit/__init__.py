"""flowkit: flows in notebooks."""
