"""A device that is not the CPU, for machines without one.

A tensor on the simulated device says that it lives there and keeps its numbers in a tensor of the CPU, so that what
is computed is right. What would fail on a GPU fails here, too: an operation on tensors of both devices, and a draw on
the device from a generator of the CPU. The device has a generator of its own, and :func:`count_syncs` counts how often
the host would wait for it. It cannot see kernels, their order of additions, alignment, dtypes or memory.

    with SimulatedDevice():  # set_up() before, once per process
        torch.ones(3, device=NAME) + torch.ones(3)  # RuntimeError

It is built on PyTorch's backend in Python, whose names are private: it runs on the torch it was tested on and refuses
any other, see TESTED. A process that has set it up shows PyTorch an accelerator: give it a process of its own.
"""

import sys
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

#: Versions of torch that the private names below were tried on.
TESTED = ("2.13",)
NAME = "simulated"
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]

aten = torch.ops.aten
#: What moves numbers from one device to another.
MOVES = (aten._to_copy.default, aten.copy_.default)
#: What takes indices of the CPU on any device, and waits for them.
INDEXES = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
#: What takes single numbers of the CPU on any device, besides everything that PyTorch calls pointwise.
TAKES_SINGLES = (aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.fill_.Tensor, *INDEXES)
#: What waits in a GPU's kernels though its output has a known shape.
WAITS = (aten.multinomial, aten.histc, aten.isin, aten._sparse_csr_tensor_unsafe, aten._validate_sparse_csr_tensor_args)

#: Where the host waited, one line each, while :func:`count_syncs` listens.
_listening: list[list[str]] = []


def set_up():
    """Make the device known to PyTorch; once per process, and before the first tensor goes there."""
    version = torch.__version__
    if not any(version.startswith(f"{tested}.") for tested in TESTED):
        raise RuntimeError(
            f"the simulated device stands on private names of torch and was tried on {', '.join(TESTED)} (this is "
            f"{version}): run the tests marked `cuda` on it, then add it to TESTED in {__file__}"
        )
    if torch._C._get_privateuse1_backend_name() == NAME:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    torch.nn.Module.to = _keeping_ties(torch.nn.Module.to)


def _keeping_ties(move):
    """Make one parameter with two names stay one: a GPU's is changed in place, and ours has to be another object."""

    def to(self, *args, **kwargs):
        names = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        moved = move(self, *args, **kwargs)
        for first, *others in names.values():
            for other in others:
                owner, _, local = other.rpartition(".")
                self.get_submodule(owner)._parameters[local] = self.get_parameter(first)
        return moved

    return to


class _Module:
    """What PyTorch calls on a device's module (``torch.cuda``, for one): one device, and its generator."""

    def __init__(self):
        self.state = torch.Generator().manual_seed(0).get_state()

    def is_initialized(self):
        return True

    is_available = is_initialized

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        self.state = torch.Generator().manual_seed(seed).get_state()

    manual_seed = manual_seed_all

    def get_rng_state(self, device=0):
        return self.state.clone()

    def set_rng_state(self, state, device=0):
        self.state = state.clone()

    @contextmanager
    def drawing(self):
        """Put the device's generator in the place of the CPU's, which runs the kernels, and back."""
        cpu = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(cpu)


class DeviceTensor(torch.Tensor):
    """A tensor that says it lives on the simulated device; ``held`` are its numbers, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        if held.layout == torch.strided:
            form = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        else:
            form = {"dispatch_layout": True}
        self = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, dtype=held.dtype, layout=held.layout, device=torch.device(NAME, 0), **form
        )
        self.held = held
        return self

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, new):
        torch.Tensor.data.__set__(self, new)
        self.held = new.held

    def data_ptr(self):
        return self.held.data_ptr()

    def untyped_storage(self):
        return self.held.untyped_storage()

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents=None):
        return f"{self.held!r} on {self.device}"

    def __format__(self, spec):
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    def __reduce_ex__(self, protocol):
        # A file of a GPU's tensors holds numbers and the name of their device, which `map_location="cpu"` overrides.
        return self.held.clone().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            if not self.is_leaf:
                raise RuntimeError("Only Tensors created explicitly by the user support the deepcopy protocol")
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                copied._is_param = True
            if self.grad is not None:
                copied.grad = self.grad.__deepcopy__(memo)
            memo[id(self)] = copied
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class SimulatedDevice(TorchDispatchMode):
    """The context in which tensors can be made on the device."""

    def __enter__(self):
        # Makes `torch.tensor(numbers, device=...)` a tensor of the CPU and a move that we see.
        self.lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(self.lifted)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    """Run an operation where its tensors are, or say what a GPU would say."""
    if func is torch.ops.prim.layout.default:
        return args[0].held.layout
    flat = list(_flat((args, kwargs)))
    on_device = any(isinstance(value, DeviceTensor) for value in flat)
    target = kwargs.get("device")
    lands = on_device if target is None else torch.device(target).type == NAME
    if not on_device and not lands:
        return func(*args, **kwargs)
    if on_device:
        _refuse_mixed(func, args, flat)
    generator = next((value for value in flat if isinstance(value, torch.Generator)), None)
    if lands and generator is not None:
        raise RuntimeError(f"{func}: Expected a '{NAME}' device type for generator but found '{generator.device}'")
    if _listening and (num := _num_waits(func, args, kwargs, flat, lands)):
        for waits in _listening:
            waits.extend([f"{func} at {_caller()}"] * num)
    held_args, held_kwargs = _held(args), _held(kwargs)
    if "device" in held_kwargs:
        held_kwargs = {**held_kwargs, "device": CPU}
    if func is aten.copy_.default and not isinstance(args[0], DeviceTensor):
        func(*held_args, **held_kwargs)
        return args[0]
    draws = lands and torch.Tag.nondeterministic_seeded in func.tags
    with getattr(torch, NAME).drawing() if draws else nullcontext():
        out = func(*held_args, **held_kwargs)
    if not lands:
        return out
    wrapped = _wrapped(out)
    tensors = [value for value in (*flat, *_flat(wrapped)) if isinstance(value, torch.Tensor)]
    if any(value.layout != torch.strided for value in tensors):
        return args[0] if func._schema.is_mutable else wrapped
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _flat(value):
    """Yield what is in lists, tuples and dictionaries."""
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _flat(part)
    else:
        yield value


def _held(value):
    """Put the tensors of the CPU in the place of those of the device."""
    if isinstance(value, list | tuple):
        return type(value)(map(_held, value))
    if isinstance(value, dict):
        return {key: _held(part) for key, part in value.items()}
    return value.held if isinstance(value, DeviceTensor) else value


def _wrapped(value):
    """Bring what an operation returned to the device."""
    if isinstance(value, list | tuple):
        return type(value)(map(_wrapped, value))
    return DeviceTensor(value) if isinstance(value, torch.Tensor) else value


def _refuse_mixed(func, args, flat):
    """Refuse tensors of the CPU beside tensors of the device, but where a GPU takes them."""
    if func in MOVES:
        return
    others = [value for value in flat if isinstance(value, torch.Tensor) and not isinstance(value, DeviceTensor)]
    if func in INDEXES and isinstance(args[0], DeviceTensor):
        values = args[2] if len(args) > 2 else None
        others = [value for value in others if value is values]
    if torch.Tag.pointwise in func.tags or func in TAKES_SINGLES:
        others = [value for value in others if value.dim()]
    if others:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {NAME}:0 and {others[0].device} in {func}"
        )


def _num_waits(func, args, kwargs, flat, lands):
    """Return how often the host waits for a GPU in an operation."""
    if func in MOVES:
        source = args[0] if func is aten._to_copy.default else args[1]
        goes = isinstance(args[0], DeviceTensor) if func is aten.copy_.default else lands
        moved = isinstance(source, DeviceTensor) != goes
        # Without waiting it goes from pinned memory only, but what waits then is a copy on the host.
        free = goes and (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        return int(moved and not free)
    if func in INDEXES:
        indices = [index for index in args[1] if index is not None]
        if func is not aten.index.Tensor and len(indices) == 1 and indices[0].dtype == torch.bool and not args[2].dim():
            return 0  # one number where a mask is True, which CUDA fills in
        return sum(not isinstance(index, DeviceTensor) or index.dtype in (torch.bool, torch.uint8) for index in indices)
    if func is aten.repeat_interleave.Tensor:
        return int(kwargs.get("output_size") is None)
    depends = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
    return int(bool(depends & set(func.tags)) or func.overloadpacket in WAITS)


def _caller():
    """Return the innermost line of the package, or else of the tests, that led here."""
    frame, inner = sys._getframe(1), None
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        own = path.is_relative_to(ROOT) and "site-packages" not in path.parts  # an environment may lie inside
        if own and path != Path(__file__):
            where = f"{path.relative_to(ROOT)}:{frame.f_lineno}"
            inner = inner or where
            if path.is_relative_to(ROOT / "graphsparse"):
                return where
        frame = frame.f_back
    return inner or "?"


@contextmanager
def count_syncs():
    """Yield a list to which a line is added whenever the host waits for the device, a GPU or the simulated one.

    Its length is their number, and the lines say where, for the message of a test that fails:

        with count_syncs() as waits:
            step()
        assert not waits, waits
    """
    waits: list[str] = []
    if torch.cuda.is_available():
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield waits
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        waits.extend(f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message))
        return
    _listening.append(waits)
    try:
        yield waits
    finally:
        # By identity: two lists that are empty are equal.
        _listening[:] = [other for other in _listening if other is not waits]
