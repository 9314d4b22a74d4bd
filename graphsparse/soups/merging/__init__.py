"""Networks that were trained apart, on different nodes and from different weights, made one without training."""
