"""Graph lottery tickets: sparse graphs and sparse models that belong together."""

from graphsparse.tickets.random import find_random_ticket
from graphsparse.tickets.recipe import train_teacher
from graphsparse.tickets.teddy import find_teddy_ticket
from graphsparse.tickets.ticket import Ticket
from graphsparse.tickets.untrained import find_untrained_ticket

__all__ = ["Ticket", "find_random_ticket", "find_teddy_ticket", "find_untrained_ticket", "train_teacher"]
