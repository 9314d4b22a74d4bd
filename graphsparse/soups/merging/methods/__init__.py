"""The methods of merging, a file each; importing this registers them."""

from graphsparse.soups.merging.methods import condense as condense
from graphsparse.soups.merging.methods import gnnmerge as gnnmerge
from graphsparse.soups.merging.methods import rounds as rounds
