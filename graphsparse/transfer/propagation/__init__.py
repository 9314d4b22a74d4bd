"""Labels of pairs carried along the target graph."""
