"""Graph lottery tickets: sparse graphs and sparse models that belong together."""

from graphsparse.tickets.compare import compare_tickets
from graphsparse.tickets.distillation import Distillation
from graphsparse.tickets.find import find_ticket, find_tickets
from graphsparse.tickets.method import Found, PruningMethod, WeightRule
from graphsparse.tickets.methods import (
    METHODS,
    UGS,
    WDGLT,
    AtInit,
    Channels,
    FastGLT,
    FreeTickets,
    InstantSoup,
    Magnitude,
    OneShot,
    SupTickets,
    Untrained,
)
from graphsparse.tickets.rules import L0, NM, SET, Fixed, Gradual, RigL
from graphsparse.tickets.run import TicketRun
from graphsparse.tickets.ticket import Ticket

__all__ = [
    "L0",
    "METHODS",
    "NM",
    "SET",
    "UGS",
    "WDGLT",
    "AtInit",
    "Channels",
    "Distillation",
    "FastGLT",
    "Fixed",
    "Found",
    "FreeTickets",
    "Gradual",
    "InstantSoup",
    "Magnitude",
    "OneShot",
    "PruningMethod",
    "RigL",
    "SupTickets",
    "Ticket",
    "TicketRun",
    "Untrained",
    "WeightRule",
    "compare_tickets",
    "find_ticket",
    "find_tickets",
]
