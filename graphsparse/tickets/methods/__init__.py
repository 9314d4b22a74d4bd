"""Ways to find tickets, each a small frozen dataclass."""

from graphsparse.tickets.methods.channels import Channels
from graphsparse.tickets.methods.magnitude import Magnitude
from graphsparse.tickets.methods.one_shot import L0, Fixed, OneShot
from graphsparse.tickets.methods.untrained import Untrained
from graphsparse.tickets.run import PruningMethod

#: The methods that can be named in place of an object.
METHODS: dict[str, PruningMethod] = {
    "teddy": OneShot("teddy", L0()),
    "random": OneShot("random", Fixed()),
    "magnitude": Magnitude(),
    "iterative_magnitude": Magnitude(per_round=0.2),
    "channels": Channels(),
    "channels_lasso": Channels("lasso"),
    "untrained": Untrained(),
    "random_untrained": Untrained(epochs=1, lr=0.0),
}

__all__ = ["L0", "METHODS", "Channels", "Fixed", "Magnitude", "OneShot", "Untrained"]
