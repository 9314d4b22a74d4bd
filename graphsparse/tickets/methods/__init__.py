"""Ways to find tickets, each a small frozen dataclass."""

from graphsparse.tickets.method import PruningMethod
from graphsparse.tickets.methods.at_init import AtInit
from graphsparse.tickets.methods.channels import Channels
from graphsparse.tickets.methods.fast_glt import FastGLT
from graphsparse.tickets.methods.free_tickets import FreeTickets
from graphsparse.tickets.methods.instant_soup import InstantSoup
from graphsparse.tickets.methods.magnitude import Magnitude
from graphsparse.tickets.methods.one_shot import OneShot
from graphsparse.tickets.methods.sup_tickets import SupTickets
from graphsparse.tickets.methods.ugs import UGS
from graphsparse.tickets.methods.untrained import Untrained
from graphsparse.tickets.methods.wd_glt import WDGLT
from graphsparse.tickets.rules import L0, SET, Fixed, Gradual, RigL

#: The methods that can be named in place of an object.
METHODS: dict[str, PruningMethod] = {
    "teddy": OneShot("teddy", L0()),
    "random": OneShot("random", Fixed()),
    "gmp": OneShot(None, Gradual()),
    "set": OneShot(None, SET()),
    "rigl": OneShot(None, RigL()),
    "magnitude": Magnitude(),
    "iterative_magnitude": Magnitude(per_round=0.2),
    "channels": Channels(),
    "channels_lasso": Channels("lasso"),
    "ugs": UGS(),
    "wd-glt": WDGLT(),
    "fastglt": FastGLT(),
    "snip": AtInit("snip"),
    "grasp": AtInit("grasp"),
    "synflow": AtInit("synflow"),
    "magnitude_at_init": AtInit("magnitude"),
    "instant_soup": InstantSoup(),
    "untrained": Untrained(),
    "random_untrained": Untrained(epochs=1, lr=0.0),
}

__all__ = [
    "METHODS",
    "UGS",
    "WDGLT",
    "AtInit",
    "Channels",
    "FastGLT",
    "FreeTickets",
    "InstantSoup",
    "Magnitude",
    "OneShot",
    "SupTickets",
    "Untrained",
]
