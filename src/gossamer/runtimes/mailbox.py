"""Messages on their way and in inboxes, on the device, for a population whose schedule is not lockstep.

What happens (who adapts, which message arrives, what it weighs) was decided by ``schedules``; here it is done to
arrays. Everything is written for one seed; ``vmap`` adds that axis.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gossamer.schedules import Links, Wave
from gossamer.types import Message


class Delivery(NamedTuple):
    """The part of a ``Wave`` that the device needs; arrays of numpy until they are sent there."""

    adapts: Bool[Any, "*batch agent"]
    combines: Bool[Any, "*batch agent"]
    slot: Int[Any, "*batch agent"]
    take: Int[Any, "*batch edge"]
    weight: Float[Any, "*batch edge"]
    own: Float[Any, "*batch agent"]
    sent: Bool[Any, "*batch edge"]

    @classmethod
    def of(cls, wave: Wave) -> "Delivery":
        """On the host still, in the device's types."""
        kinds = {"slot": np.int32, "take": np.int32, "weight": np.float32, "own": np.float32}
        return cls(*(getattr(wave, name).astype(kinds.get(name, bool)) for name in cls._fields))


class Mail(NamedTuple):
    """The newest messages of every agent, by slot of its ring, and the message each edge delivered last."""

    ring: Message  # [slot, agent, ...]
    inbox: Message  # [edge, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Mailbox:
    """Edges, and where in them each agent finds what it hears: for the rules that average what was received.

    ``heard[i, k]`` is the k-th edge into agent i; where agents differ much in how many they hear it is None, and
    messages are added edge by edge, so that a star of 10,000 does not become a square.
    """

    receiver: Any  # Int[Array, " edge"]
    sender: Any  # Int[Array, " edge"]
    heard: Any  # Int[Array, "agent slot"], or None
    filled: Any  # Bool[Array, "agent slot"], or None
    agents: int = field(metadata={"static": True})
    slots: int = field(metadata={"static": True})

    @classmethod
    def of(cls, links: Links, in_flight: int) -> "Mailbox":
        """The mailbox of a graph; a ring holds the newest message of an agent and ``in_flight`` older ones."""
        heard, filled = _edges_of(links)
        receiver, sender = (jax.device_put(ends.astype(np.int32)) for ends in (links.receiver, links.sender))
        return cls(receiver, sender, heard, filled, links.agents, in_flight + 1)

    def init(self, message: Message) -> Mail:
        """Nothing was sent yet.

        Args:
            message: the initial messages, with leaves ``[agent, ...]``.
        """

        def empty(count: int) -> Message:
            return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), message)

        ring = jax.tree.map(lambda leaf: jnp.zeros((self.slots, *leaf.shape), leaf.dtype), message)
        return Mail(ring, empty(len(self.receiver)))

    def exchange(self, mail: Mail, before: Message, message: Message, now: Delivery) -> tuple[Mail, Message]:
        """Send, receive, combine.

        Args:
            mail: what is under way.
            before: the agents' messages before they adapted; unused here.
            message: their messages now, with leaves ``[agent, ...]``.
            now: what happens.

        Returns:
            The mail, and what every agent's message becomes: Σ of its own and what it heard, each times its weight.
        """
        del before
        ring = self._written(mail.ring, message, now)
        inbox = self._taken(mail.inbox, ring, self.sender, now)
        return Mail(ring, inbox), self._combined(message, inbox, now)

    def _written(self, ring: Message, message: Message, now: Delivery) -> Message:
        """The ring with the messages of those that adapted."""
        return _written(ring, message, now.adapts, now.slot)

    def _taken(self, inbox: Message, ring: Message, row: Array, now: Delivery) -> Message:
        """The inboxes with the messages that arrived; ``row`` is where in a slot the sender of an edge writes."""
        slot = jnp.maximum(now.take, 0)
        return jax.tree.map(
            lambda old, sent: jnp.where(_to(now.take >= 0, old), sent[slot, row], old), inbox, ring
        )

    def _combined(self, message: Message, inbox: Message, now: Delivery) -> Message:
        if self.heard is None:
            return jax.tree.map(lambda own, heard: self._added(own, heard, now), message, inbox)
        weight = jnp.where(self.filled, now.weight[self.heard], 0.0)

        def leaf(own: Array, heard: Array) -> Array:
            total = _to(now.own, own) * own
            for k in range(self.heard.shape[1]):
                total += _to(weight[:, k], own) * heard[self.heard[:, k]]
            return total

        return jax.tree.map(leaf, message, inbox)

    def _added(self, own: Array, heard: Array, now: Delivery) -> Array:
        terms = _to(now.weight, heard) * heard
        total = jax.ops.segment_sum(terms, self.receiver, self.agents, indices_are_sorted=True)
        return _to(now.own, own) * own + total

    def _increased(self, own: Array, heard: Array) -> Array:
        """What every agent has and what its edges bring, added up."""
        if self.heard is None:
            return own + jax.ops.segment_sum(heard, self.receiver, self.agents, indices_are_sorted=True)
        for k in range(self.heard.shape[1]):
            own += jnp.where(_to(self.filled[:, k], own), heard[self.heard[:, k]], 0.0)
        return own


class Mass(NamedTuple):
    """The state of running-sum push-sum: what agents hold, and what has flowed over each edge so far.

    A sum is kept as two numbers, the second holding what the first rounds away: sums grow with every round while
    their differences do not.
    """

    holding: Any  # {"parameters": message, "mass": [agent]}
    sums: tuple[Any, Any]  # [edge, ...]: given away since the start
    ring: tuple[Any, Any]  # [slot, edge, ...]: the newest values of the sums that were sent
    inbox: tuple[Any, Any]  # [edge, ...]: how much of them the receiver has


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PushSumMailbox:
    """Push-sum over links that lose messages, by running sums (Hadjicostis, Vaidya and Domínguez-García 2016).

    Agent i holds a numerator x_i and a mass w_i, at first its parameters and 1. When it adapts by Δ_i, it adds Δ_i
    to x_i, keeps 1/(1 + d_i) of both and adds as much to the running sum σ of each of its d_i outgoing edges; what is
    sent is σ, so that a message makes up for all that were lost before it. A receiver adds by how much σ has grown
    since it heard last. Parameters are x_i / w_i. Σ_i x_i plus what the sums are ahead of the inboxes never changes,
    whatever is lost: the mean is kept under one-sided loss, where rows that sum to one would let it drift.
    """

    mailbox: Mailbox

    def init(self, message: Message) -> Mass:
        """Everybody holds its own parameters, and mass 1."""
        holding = {"parameters": message, "mass": jnp.ones(self.mailbox.agents)}
        edges, slots = len(self.mailbox.sender), self.mailbox.slots
        zero = jax.tree.map(lambda leaf: jnp.zeros((edges, *leaf.shape[1:]), leaf.dtype), holding)
        ring = jax.tree.map(lambda leaf: jnp.zeros((slots, *leaf.shape), leaf.dtype), zero)
        return Mass(holding, (zero, zero), (ring, ring), (zero, zero))

    def exchange(self, mass: Mass, before: Message, message: Message, now: Delivery) -> tuple[Mass, Message]:
        """As ``Mailbox.exchange``; those that do not combine keep their message."""
        box = self.mailbox
        parameters = jax.tree.map(
            lambda x, new, old: x + (new - old), mass.holding["parameters"], message, before
        )
        holding = {"parameters": parameters, "mass": mass.holding["mass"]}
        share = jax.tree.map(lambda leaf: _to(now.own, leaf) * leaf, holding)
        given = jax.tree.map(lambda leaf: jnp.where(_to(now.sent, leaf), leaf[box.sender], 0.0), share)
        shares = jax.ops.segment_sum(now.sent.astype(now.own.dtype), box.sender, box.agents)
        # What is left after giving and not a share of one's own: shares that are rounded do not sum to one.
        kept = jax.tree.map(lambda leaf, part: leaf - _to(shares, leaf) * part, holding, share)
        sums = _add(mass.sums, given)
        ring = tuple(self._written(old, new, now) for old, new in zip(mass.ring, sums, strict=True))
        every = jnp.arange(len(box.sender))
        inbox = tuple(box._taken(old, new, every, now) for old, new in zip(mass.inbox, ring, strict=True))
        grown = jax.tree.map(
            lambda a, b, c, d: (a - b) + (c - d), inbox[0], mass.inbox[0], inbox[1], mass.inbox[1]
        )
        holding = jax.tree.map(box._increased, kept, grown)
        mixed = jax.tree.map(
            lambda x, own: jnp.where(_to(now.combines, x), x / _to(holding["mass"], x), own),
            holding["parameters"],
            message,
        )
        return Mass(holding, sums, ring, inbox), mixed

    def _written(self, ring: Any, sums: Any, now: Delivery) -> Any:
        sender = self.mailbox.sender
        return _written(ring, sums, now.adapts[sender], now.slot[sender])


def total_mass(mailbox: PushSumMailbox, mass: Mass) -> Any:
    """What all agents hold, and what is in flight or lost and still owed, together: a constant but for adaptations."""
    ahead = jax.tree.map(
        lambda a, b, c, d: ((a - b) + (c - d)).sum(0),
        mass.sums[0],
        mass.inbox[0],
        mass.sums[1],
        mass.inbox[1],
    )
    return jax.tree.map(lambda x, more: x.sum(0) + more, mass.holding, ahead)


def _add(sums: tuple[Any, Any], more: Any) -> tuple[Any, Any]:
    """The sums grown, with what is rounded away kept aside (Knuth's two-sum)."""

    def high(total: Array, small: Array, term: Array) -> Array:
        return total + (term + small)

    def low(total: Array, small: Array, term: Array) -> Array:
        term = term + small
        grown = total + term
        back = grown - total
        return (total - (grown - back)) + (term - back)

    return jax.tree.map(high, *sums, more), jax.tree.map(low, *sums, more)


def _written(ring: Any, rows: Any, adapts: Array, slot: Array) -> Any:
    """The ring with a row in its slot for each that adapts; the other slots are not touched.

    Args:
        ring: leaves ``[slot, row, ...]``.
        rows: leaves ``[row, ...]``.
        adapts: which rows are written.
        slot: where.
    """
    row = jnp.arange(len(slot))

    def leaf(old: Array, new: Array) -> Array:
        if len(old) == 1:
            return jnp.where(_to(adapts, new), new, old[0])[None]
        # A slot behind the last stands for none. Choosing between old and new everywhere reads and writes the
        # whole ring: 2.4 times the time with 5 slots of 25 messages, 3.7 times if networks are 2×400.
        return old.at[jnp.where(adapts, slot, len(old)), row].set(new, mode="drop", unique_indices=True)

    return jax.tree.map(leaf, ring, rows)


def _edges_of(links: Links) -> tuple[Any, Any]:
    """The edges into each agent side by side, or nothing where most places would stay empty."""
    counts = np.bincount(links.receiver, minlength=links.agents)
    most = int(counts.max(initial=0))
    if links.agents * most > _MOST_PADDING * max(links.edges, 1):
        return None, None
    place = np.arange(most)[None]
    filled = place < counts[:, None]
    first = np.cumsum(counts) - counts
    heard = np.where(filled, first[:, None] + place, 0)
    return jax.device_put(heard.astype(np.int32)), jax.device_put(filled)


def _to(values: Array, leaf: Array) -> Array:
    """With axes of length one behind, so that it broadcasts against a leaf; numbers in the leaf's type."""
    shaped = values.reshape(values.shape + (1,) * (leaf.ndim - values.ndim))
    return shaped if shaped.dtype == bool else shaped.astype(leaf.dtype)


_MOST_PADDING = 4  # places for each edge; above, adding edge by edge is cheaper than carrying empty places
