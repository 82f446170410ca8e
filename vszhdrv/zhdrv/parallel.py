"""One training by several processes, one for each device: each computes its share of every step's pictures.

Apart from the loop because it is about processes, and nothing of the method. All processes draw the same crops and see
the predictions of all; only the network's own work, forward and back, is divided. So every step is that of one process,
whatever the loss is, and the weights are the same up to the order in which numbers are added.

Process 0 leads: it alone knows the clip and the store, and sends the others what they need. They are started by
torchrun, or by anything that sets its variables.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from vszhdrv.errors import Failed, Refused

from .config import Config
from .footage import TrainingFrames
from .hardware import Precision
from .network import EVERY_PIXEL, Lattice, UNet

LONGEST_WAIT = timedelta(weeks=1)
"""The others wait this long for process 0, which may read a film or wait for another training before it has work."""

ENDED = "another process of this training has ended or can't be reached; the same command goes on from what is saved"


class Ended(Failed):
    """The training can't go on without the process that has ended."""


class Work(NamedTuple):
    """The arguments of `training.train`."""

    frames: TrainingFrames
    config: Config
    device: torch.device
    precision: Precision
    state: dict[str, Any] | None


@dataclass
class Team:
    """The processes that train together, as one of them sees it. Made by `joined`."""

    rank: int
    size: int
    _store: Any
    _others_wait: bool = True
    """Whether the others have not heard yet what to do."""
    _cards: Any = None
    """What brings together what cards hold, once it is known that they compute; None: what the processor holds."""

    def device(self, name: str) -> str:
        """The device of this process, where the user asked for `name`: a card each, or the processor.

        Raises Refused for a name that means one device, and where there are fewer cards than processes.
        """
        if name not in ("auto", "cuda", "cpu"):
            raise Refused(f"device must be auto, cuda or cpu where {self.size} processes train, not {name!r}")
        if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return "cpu"
        local, here = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if local > here:
            raise Refused(f"--nproc-per-node must be at most the number of cards here ({here}), not {local}")
        number = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(number)
        return f"cuda:{number}"

    def check(self, config: Config) -> None:
        """Raise Refused where a step has fewer pictures than there are processes."""
        pictures = config.pictures
        if self.size > pictures:
            raise Refused(
                f"--nproc-per-node must be at most {pictures} (over all nodes) with preset {config.preset}, a step of "
                f"which has that many pictures, not {self.size}"
            )

    def send(
        self,
        frames: TrainingFrames,
        config: Config,
        device: torch.device,
        precision: Precision,
        state: dict[str, Any] | None,
    ) -> None:
        """For process 0: let the others train along."""
        self._others_wait = False
        pixels = frames.pixels.contiguous()  # gloo reads memory as it lies: of a picture without its bars, the bars
        rest = replace(frames, pixels=torch.empty(0))
        about = rest, pixels.shape, pixels.dtype, config, device.type, precision, state
        with _unless_ended():
            dist.broadcast_object_list([about], src=0, device=torch.device("cpu"))
            dist.broadcast(pixels.view(torch.uint8), src=0)  # gloo, as pickle, knows no uint16
        self._meet_on(device)

    def await_more(self) -> None:
        """For process 0: the training that all were sent has ended well, and the others wait for another."""
        self._others_wait = True

    def dismiss(self) -> None:
        """For process 0: where the others have nothing to do, let them go."""
        if self._others_wait:
            with suppress(RuntimeError):
                dist.broadcast_object_list([None], src=0, device=torch.device("cpu"))

    def receive(self) -> Work | None:
        """For the others: wait for the work that process 0 sends; None if there is none."""
        received: list[Any] = [None]
        with _unless_ended():
            dist.broadcast_object_list(received, src=0, device=torch.device("cpu"))
            if received[0] is None:
                return None
            rest, shape, dtype, config, device, precision, state = received[0]
            pixels = torch.empty(shape, dtype=dtype)
            dist.broadcast(pixels.view(torch.uint8), src=0)
        own = torch.device(self.device(device))
        self._meet_on(own)
        return Work(replace(rest, pixels=pixels), config, own, precision, state)

    def _meet_on(self, device: torch.device) -> None:
        """NCCL takes a card for each process at once: it is asked for where cards compute, and there are enough."""
        if device.type == "cuda" and self._cards is None:
            with _unless_ended():
                self._cards = dist.new_group(backend="nccl", timeout=LONGEST_WAIT)

    def all_reduce(self, tensor: Tensor) -> None:
        """Make a tensor of every process the sum of all of them."""
        with _unless_ended():
            dist.all_reduce(tensor, group=self._cards)

    def shared(self, network: UNet) -> Shared:
        """The network that all evaluate together."""
        return Shared(network, self)

    def add_up(self, network: UNet) -> None:
        """Make every gradient the sum of the processes' gradients."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def is_first_to_tell(self) -> bool:
        """Whether no other process has told yet why all end."""
        try:
            return int(self._store.add("vszhdrv told", 1)) == 1
        except RuntimeError:  # whoever kept the store has ended, too
            return True


class Shared:
    """A network that all processes evaluate at once, on one batch.

    Each computes its share, of at least one picture, and gets the predictions of all. The others' are constants to
    this process's gradients: these are of the whole loss, through its own share, and their sum over the processes is
    the gradient.
    """

    def __init__(self, network: UNet, team: Team) -> None:
        self.multiple = network.multiple
        self._network, self._team = network, team

    def __call__(self, x: Tensor, lattice: Lattice = EVERY_PIXEL) -> Tensor:
        """The predictions for `(batch, 3, height, width)`, as the network's."""
        first, last = (len(x) * rank // self._team.size for rank in (self._team.rank, self._team.rank + 1))
        own: Tensor = self._network(x[first:last], lattice)
        predictions = own.new_zeros(len(x), *own.shape[1:])
        predictions[first:last] = own.detach()
        self._team.all_reduce(predictions)
        return torch.cat((predictions[:first], own, predictions[last:]))


@contextmanager
def joined() -> Iterator[Team]:
    """Meet the other processes. What ends all of them is raised by one; the rest raise SystemExit(1), which is silent.

    To be called in the main thread.
    """
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    team = Team(rank, size, store)
    # When a process ends, torchrun tells the others by SIGTERM. Process 0 has a state to save; it alone hears Ctrl-C,
    # and the others follow.
    number = signal.SIGTERM if rank == 0 else signal.SIGINT
    before = signal.signal(number, _end if rank == 0 else signal.SIG_IGN)
    try:
        yield team
    except BaseException:
        if team.is_first_to_tell():
            raise
        raise SystemExit(1) from None
    finally:
        if rank == 0:
            team.dismiss()
        signal.signal(number, before)
        dist.destroy_process_group()


def _end(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is left to do is to save
    raise Ended(ENDED)


@contextmanager
def _unless_ended() -> Iterator[None]:
    """What torch says of a process that is not there any more, in a sentence."""
    try:
        yield
    except Ended:
        raise
    except RuntimeError as error:
        if dist.get_rank() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Ended(f"{ENDED} ({str(error).splitlines()[0]})") from error
