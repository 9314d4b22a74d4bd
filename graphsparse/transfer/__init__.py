"""Transfer: link prediction on a sparse graph, helped by a dense one through the nodes they share."""
