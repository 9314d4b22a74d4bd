"""Graph lottery tickets: sparse graphs and sparse models that belong together."""

from graphsparse.tickets.compare import compare_tickets
from graphsparse.tickets.distillation import Distillation
from graphsparse.tickets.find import find_ticket, find_tickets
from graphsparse.tickets.methods import L0, METHODS, Channels, Fixed, Magnitude, OneShot, Untrained
from graphsparse.tickets.run import Found, PruningMethod, TicketRun
from graphsparse.tickets.ticket import Ticket

__all__ = [
    "L0",
    "METHODS",
    "Channels",
    "Distillation",
    "Fixed",
    "Found",
    "Magnitude",
    "OneShot",
    "PruningMethod",
    "Ticket",
    "TicketRun",
    "Untrained",
    "compare_tickets",
    "find_ticket",
    "find_tickets",
]
