"""Gradients of several processes are added up while the backward pass still computes: the last layers' come first.

Parameters are divided into buckets, from the last parameter to the first. When the gradients of a bucket are complete,
a thread adds up those of all processes, one bucket after the other in this order, which is the same in all of them. The
sum of each number is made along the same tree as it would be later, so that not a bit changes.
"""

import concurrent.futures
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinyseg.autograd import Array, Tensor
from tinyseg.backend import xp_of
from tinyseg.training.parallel import Group

BUCKET = 1 << 20  # numbers in a bucket, at least: 4 MiB, which take longer to send than to announce


class Gradient:
    """The gradient of one microbatch, times the number of its images, and the sum of it over the processes.

    Parameters
    ----------
    parameters : sequence of Tensor
    images : int
    group : Group
        The processes whose gradients are added up.
    before : sequence of Array
        Sums over earlier microbatches, flat as the result; what is added last comes first.
    sender : Sender, optional
        What adds them up meanwhile. Without it, it is done in between.
    """

    def __init__(
        self, parameters: Sequence[Tensor], images: int, group: Group, before: Sequence[Array] = (),
        sender: "Sender | None" = None,
    ) -> None:  # fmt: skip
        self.parameters, self.images, self.group, self.before, self.sender = parameters, images, group, before, sender
        self.ends = np.cumsum([p.size for p in parameters]).tolist()
        self.flat = xp_of(parameters[0].data).empty(self.ends[-1], parameters[0].dtype)
        self.waiting = list(_buckets(self.ends))  # the first parameter of each, and the one after its last
        self.complete, self.number = [False] * len(parameters), {id(p): k for k, p in enumerate(parameters)}
        self.sent: list[concurrent.futures.Future] = []

    def note(self, leaf: Tensor) -> None:
        """Note that the gradient of a leaf of the graph is complete, and send the buckets that now are."""
        if id(leaf) in self.number:
            self.complete[self.number[id(leaf)]] = True
            while self.waiting and all(self.complete[slice(*self.waiting[0])]):
                self._send()

    def finish(self) -> Array:
        """Send the rest, and return the sum, flat in the order of the parameters, when it is there."""
        while self.waiting:
            self._send()
        for future in self.sent:
            future.result()
        return self.flat

    def _send(self):
        first, last = self.waiting.pop(0)
        begin = self.ends[first - 1] if first else 0
        for p, end in zip(self.parameters[first:last], self.ends[first:last], strict=True):
            part = self.flat[end - p.size : end]
            if p.grad is None:
                part[...] = 0
            else:
                np.multiply(p.grad.reshape(-1), self.images, out=part)
        bucket = self.flat[begin : self.ends[last - 1]]
        for earlier in self.before:
            bucket += earlier[begin : self.ends[last - 1]]
        if self.sender is None:
            self.group.sum([bucket])
        else:
            self.sent.append(self.sender.submit(self.group.sum, [bucket]))


class Sender:
    """A thread that makes calls one after the other, and does not keep the process from its end."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=_make_calls, args=(self._calls,), name="tinyseg-exchange", daemon=True).start()

    def __del__(self) -> None:
        self._calls.put(None)

    def submit(self, function: Callable, *arguments: Any) -> concurrent.futures.Future:
        """Call a function; return the future."""
        future: concurrent.futures.Future = concurrent.futures.Future()
        self._calls.put((future, function, arguments))
        return future


def _make_calls(calls):
    while (call := calls.get()) is not None:
        future, function, arguments = call
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)


def _buckets(ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    last, size = len(ends), 0
    for k in range(len(ends) - 1, -1, -1):
        size += ends[k] - (ends[k - 1] if k else 0)
        if size >= BUCKET or k == 0:
            yield k, last
            last, size = k, 0
