"""Ways to find tickets, each a small frozen dataclass."""

from graphsparse.tickets.methods.at_init import AtInit
from graphsparse.tickets.methods.instant_soup import InstantSoup
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
    "snip": AtInit("snip"),
    "grasp": AtInit("grasp"),
    "synflow": AtInit("synflow"),
    "magnitude_at_init": AtInit("magnitude"),
    "instant_soup": InstantSoup(),
    "untrained": Untrained(),
    "random_untrained": Untrained(epochs=1, lr=0.0),
}

__all__ = ["L0", "METHODS", "AtInit", "Fixed", "InstantSoup", "Magnitude", "OneShot", "Untrained"]
