"""A split of the target's links, with its non-links, as one file that names what it belongs to."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.sort import index_dtype
from graphsparse.utils.atomic_write import atomic_write

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair

FORMAT = "graphsparse-link-split"
VERSION = "1"
#: Names of the tensors, in the order in which they are digested.
PARTS = ("train", "val", "test", "val_neg", "test_neg")


@dataclass(frozen=True, eq=False)
class LinkSplit:
    """Links of a target for training, validation and test, and non-links to rank the latter two against.

    One split serves every method and every derived graph. All pairs are in the target's node numbers.

    Attributes:
        train: Links that are known, int64 ``[2, P]``.
        val: Links held out for validation, ``[2, P]``.
        test: Links held out for the test, ``[2, P]``.
        val_neg: Non-links for validation, ``[2, k * P]``: entries ``i * k`` to ``i * k + k - 1`` are link ``i``'s.
        test_neg: Non-links for the test, in the same way.
        seed: What the split was drawn with.
        fingerprint: Of the pair, see :attr:`SharedNodePair.fingerprint`.
        options: How it was drawn: ``ratios``, ``hold_out``, ``num_neg``, ``directed``, ``edge_type``.
    """

    train: Tensor
    val: Tensor
    test: Tensor
    val_neg: Tensor
    test_neg: Tensor
    seed: int
    fingerprint: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def heldout(self) -> Tensor:
        """Links for validation and test, ``[2, P]``."""
        return torch.cat([self.val, self.test], dim=1)

    @property
    def queries(self) -> Tensor:
        """All pairs for validation and test, links and non-links, ``[2, Q]``."""
        return torch.cat([self.val, self.test, self.val_neg, self.test_neg], dim=1)

    @property
    def num_neg(self) -> int:
        """Number of stored non-links per held-out link."""
        return int(self.options.get("num_neg", 0))

    @property
    def edge_type(self) -> tuple[str, str, str] | None:
        """Type of the links in a heterogeneous target; ``None`` in a homogeneous one."""
        found = self.options.get("edge_type")
        return None if found is None else (found[0], found[1], found[2])

    @property
    def hash(self) -> str:
        """A digest of all pairs and of how they were drawn: equal splits have equal ones."""
        return _digest({name: getattr(self, name) for name in PARTS}, self._header())[:16]

    def check(self, pair: "SharedNodePair") -> None:
        """Refuse a pair that the split was not made for.

        The target must be the same. The sources may differ, so that one split compares them; but where each held-out
        pair has an end that only the target has, it must still have one.

        Raises:
            ValueError: If the split is of another pair.
        """
        if self.fingerprint != pair.fingerprint:
            raise ValueError(
                f"the split is of another pair: its target is {self.fingerprint}, the target here is {pair.fingerprint}"
            )
        if self.options.get("hold_out") == "target_only_end":
            src, dst = pair.relation(self.edge_type).ends
            u, v = self.queries
            if bool((src.shared[u] & dst.shared[v]).any()):
                raise ValueError(
                    "the split is of another pair: its held-out pairs have an end that only the target has, "
                    "but in this pair some are between shared nodes"
                )

    def save(self, path: str | Path) -> None:
        """Write the split to a file, whole or not at all.

        Raises:
            OSError: If the file cannot be written.
        """
        tensors = {}
        for name in PARTS:
            pairs = getattr(self, name)
            largest = int(pairs.max()) if pairs.numel() else 0
            tensors[name] = pairs.to(index_dtype(largest)).contiguous()
        header = self._header()
        metadata = {"format": FORMAT, "version": VERSION, "header": header, "sha256": _digest(tensors, header)}
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: str | Path, pair: "SharedNodePair | None" = None) -> "LinkSplit":
        """Read a split that :meth:`save` wrote.

        Args:
            path: The file.
            pair: The pair that it must belong to; not checked when ``None``.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no split, or damaged, or of another pair.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no split at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a split, or only a part of one: {error}") from error
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise ValueError(f"{path} is a safetensors file, but not a split of version {VERSION}")
        text = metadata.get("header", "")
        if set(tensors) != set(PARTS) or _digest(tensors, text) != metadata.get("sha256"):
            raise ValueError(f"{path} is damaged or was edited: its checksum does not fit")
        header = json.loads(text)
        split = cls(**{name: tensors[name].long() for name in PARTS}, **header)
        if pair is not None:
            split.check(pair)
        return split

    def _header(self) -> str:
        header = {"seed": self.seed, "fingerprint": self.fingerprint, "options": self.options}
        return json.dumps(header, allow_nan=False, sort_keys=True, separators=(",", ":"))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={getattr(self, name).size(1)}" for name in PARTS)
        return f"{type(self).__name__}({sizes}, seed={self.seed}, hash={self.hash!r})"


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """Return a digest of the pairs, whatever their integer type, and the header."""
    digest = hashlib.sha256(header.encode())
    for name in PARTS:
        pairs = tensors[name]
        digest.update(f"{name} {list(pairs.shape)}".encode())
        for row in pairs:
            for start in range(0, row.numel(), BLOCK):
                digest.update(row[start : start + BLOCK].numpy().astype("<i8").tobytes())
    return digest.hexdigest()
