"""The methods of merging, a file each; importing this registers them."""

from graphsparse.soups.merging.methods import gnnmerge as gnnmerge
from graphsparse.soups.merging.methods import repair as repair
