"""The methods of merging, a file each; importing this registers them."""

from graphsparse.soups.merging.methods import averages as averages
from graphsparse.soups.merging.methods import condense as condense
from graphsparse.soups.merging.methods import distil as distil
from graphsparse.soups.merging.methods import fisher as fisher
from graphsparse.soups.merging.methods import gnnmerge as gnnmerge
from graphsparse.soups.merging.methods import regmean as regmean
from graphsparse.soups.merging.methods import repair as repair
from graphsparse.soups.merging.methods import rounds as rounds
from graphsparse.soups.merging.methods import task_vectors as task_vectors
