"""What becomes one model of many state dicts, and their ensemble."""
