"""A pretend CUDA device, which needs no GPU.

    with pretend_cuda() as device:
        train(network.cuda())
    assert not device.synchronisations

It cannot show speed, memory, what autocast does (nothing is cast), CUDA graphs (`CUDAGraph()`
raises RuntimeError, as code has to expect), generators other than the device's own, and a change of
a tensor's shape in place (raises NotImplementedError). A module that is moved to it gets new
parameters, so an optimizer is made after the move.
"""

import contextlib
import functools
import types
from collections import Counter
from unittest import mock

import torch
import torch._dynamo  # its tables of what torch holds have to be made before anything is replaced
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
READING = aten.index.Tensor, aten._unsafe_index.Tensor
WRITING = aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default
WAITING = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}

# At its first use autograd counts the GPUs and starts a thread for each, after which no forked
# process can train. Here it counts none, before there is the stand-in for one.
torch.ones((), requires_grad=True).backward()


class PretendTensor(torch.Tensor):
    """A tensor that says that it is on `cuda:0`, and whose values are those of the CPU's `inner`.

    To PyTorch's C++ it is a meta tensor: autograd looks for no GPU, and a move to the CPU is one to
    another device. Where C++ asks for the device "meta", the pretend device is meant.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    @staticmethod
    def __new__(cls, inner, owner):
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        with torch.inference_mode(inner.is_inference()):  # a view of a parameter never is
            return cls._make_wrapper_subclass(
                cls, inner.size(), **layout, dtype=inner.dtype, device="meta"
            )

    def __init__(self, inner, owner):
        self.inner, self.owner = inner, owner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        # Called while no mode is in force, as after the end of the pretence.
        owner = next(x.owner for x in tree_leaves((args, kwargs)) if isinstance(x, cls))
        return owner.__torch_dispatch__(func, types, args, kwargs)

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):  # how `Module.to` changes a parameter that is on the device already
        torch.Tensor.data.__set__(self, other)
        self.inner = other.inner

    def tolist(self):
        self.owner.synchronisations["tolist"] += 1
        return self.cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def record_stream(self, stream):
        pass

    def __deepcopy__(self, memo):
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        copy._is_param = isinstance(self, torch.nn.Parameter)
        copy.grad = None if self.grad is None else self.grad.detach().clone()
        return memo.setdefault(id(self), copy)

    def __reduce_ex__(self, protocol):
        return self.inner.__reduce_ex__(protocol)  # in a file it is an ordinary tensor

    def __format__(self, spec):
        return format(self.item(), spec) if self.ndim == 0 else repr(self)

    def __repr__(self, **options):
        return f"{self.inner!r} on the pretend {CUDA}"


class PretendCuda(TorchDispatchMode):
    """Runs operations on the pretend device, and counts what makes the host wait.

    synchronisations: a Counter of the operations for which the host waited, for a number or a
    shape; to_device, to_host: how many tensors were copied. `clear` sets all of them to 0.
    generator: the device's random numbers, which are drawn apart from the CPU's.
    """

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        self.clear()

    def clear(self):
        self.synchronisations, self.to_device, self.to_host = Counter(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is aten.is_pinned.default:
            return False
        if func in (aten.pin_memory.default, aten._pin_memory.default):
            return args[0].clone()
        kwargs.pop("pin_memory", None)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        pretended = [x for x in tensors if isinstance(x, PretendTensor)]
        asked = kwargs.get("device")
        on_cuda = bool(pretended) if asked is None else _kind(asked) == "cuda"
        moves = func.overloadpacket is aten.to  # which may name the device in its arguments
        if not pretended and not on_cuda and not moves:
            return func(*args, **kwargs)
        if func._can_decompose():  # into operations that then come here one by one
            with self:
                return func.decompose(*args, **kwargs)
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if func is aten._to_copy.default:
            return self._to_copy(args[0], on_cuda, kwargs)
        if func is aten.copy_.default:
            self._count_copy(args[1], isinstance(args[0], PretendTensor))
        else:
            _refuse_mixture(func, args, tensors)
            if synchronises(func, args):
                self.synchronisations[func.overloadpacket.__name__] += 1
        return self._run(func, args, kwargs, tensors, on_cuda)

    def _run(self, func, args, kwargs, tensors, on_cuda):
        """Run an operation on the CPU; return what was changed in place, or a new tensor."""
        known = {id(_inner(x)): x for x in tensors}

        def wrap(result):
            if not isinstance(result, torch.Tensor):
                return result
            tensor = known.get(id(result))
            if tensor is None:
                return PretendTensor(result, self)
            if tensor.shape != result.shape:
                raise NotImplementedError(f"{func} changed a shape in place")
            return tensor

        args, kwargs = tree_map(_inner, (args, kwargs))
        with self._drawing(func, kwargs) if on_cuda else contextlib.nullcontext():
            result = func(*args, **kwargs)
        return tree_map(wrap, result) if on_cuda else result

    def _to_copy(self, source, on_cuda, options):
        self._count_copy(source, on_cuda)
        inner = _inner(source)
        dtype = options.get("dtype") or inner.dtype
        changes = dtype != inner.dtype or options.get("memory_format") is not None
        if on_cuda and isinstance(source, PretendTensor) and not changes:
            return PretendTensor(inner.detach(), self)  # it is there already, and shares memory
        inner = aten._to_copy.default(inner, **options)
        return PretendTensor(inner, self) if on_cuda else inner

    def _count_copy(self, source, to_cuda):
        self.to_device += to_cuda and not isinstance(source, PretendTensor)
        self.to_host += not to_cuda and isinstance(source, PretendTensor)

    @contextlib.contextmanager
    def _drawing(self, func, kwargs):
        """Let an operation draw from the device's generator in place of the CPU's."""
        if kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if torch.Tag.nondeterministic_seeded not in func.tags:
            yield
            return
        of_cpu = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(of_cpu)


def _inner(value):
    return value.inner if isinstance(value, PretendTensor) else value


def _kind(device):
    kind = torch.device(device).type
    return "cuda" if kind == "meta" else kind


def _refuse_mixture(func, args, tensors):
    """Raise for CPU tensors beside pretended ones. Numbers pass, and indices of what is there."""
    if func in READING + WRITING and isinstance(args[0], PretendTensor):
        tensors = [args[0], *args[2:3]]
    changed = args[0] if args and func._schema.is_mutable else None
    there = [isinstance(x, PretendTensor) for x in tensors]
    refused = [not on and (x.ndim or x is changed) for x, on in zip(tensors, there, strict=True)]
    if any(there) and any(refused):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{CUDA} and cpu! ({func})"
        )


def synchronises(func, args):
    """Return whether an operation on a GPU makes the host wait for a number or a shape."""
    if func in READING + WRITING:
        masked = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        # What a mask marks is set to a single number without a wait.
        return masked and (func in READING or args[2].ndim > 0)
    return not WAITING.isdisjoint(func.tags)


class _Idle:
    """Stands for `torch.cuda.Stream` and `torch.cuda.Event`: its methods do nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __getattr__(self, name):
        return _nothing


def _nothing(*args, **kwargs):
    pass


def _cuda_graph(*args, **kwargs):
    raise RuntimeError("pretend device")


def _load(load, file, map_location=None, **options):
    """Load as `torch.load` does, to the pretend device if `map_location` says so, or to the CPU."""
    content = load(file, map_location="cpu", **options)
    if map_location is None or _kind(map_location) == "cpu":
        return content
    return tree_map(lambda x: x.to(CUDA) if isinstance(x, torch.Tensor) else x, content)


def _replacements(device):
    """Return {"module.attribute" of torch: what stands for it on the pretend device}."""
    total = 16 * 2**30
    properties = types.SimpleNamespace(name="pretend", major=8, minor=0, total_memory=total)
    values = {
        "is_available": True, "device_count": 1, "current_device": 0,
        "get_device_name": "pretend", "get_device_capability": (8, 0),
        "get_device_properties": properties, "is_bf16_supported": True,
        "is_current_stream_capturing": False, "current_stream": _Idle(),
        "mem_get_info": (total, total), "memory_allocated": 0, "max_memory_allocated": 0,
    }  # fmt: skip
    found = {name: lambda *args, value=value, **kwargs: value for name, value in values.items()}
    found |= dict.fromkeys(("_lazy_init", "synchronize", "empty_cache", "set_device"), _nothing)
    found |= {
        "CUDAGraph": _cuda_graph, "Stream": _Idle, "Event": _Idle,
        "stream": contextlib.nullcontext, "device": contextlib.nullcontext,
        "reset_peak_memory_stats": _nothing,
        "manual_seed": device.generator.manual_seed,
        "manual_seed_all": device.generator.manual_seed,
        "get_rng_state": lambda *args: device.generator.get_state(),
        "set_rng_state": lambda state, *args: device.generator.set_state(state),
    }  # fmt: skip
    found = {f"cuda.{name}": value for name, value in found.items()}
    found["accelerator.current_stream"] = found["cuda.current_stream"]
    return found | {"load": functools.partial(_load, torch.load)}


@contextlib.contextmanager
def pretend_cuda():
    """Yield a `PretendCuda`: in the block there seems to be a GPU, after it all is as before."""
    device = PretendCuda()
    only_lifts = torch._C._only_lift_cpu_tensors()
    with contextlib.ExitStack() as stack:
        for name, value in _replacements(device).items():
            stack.enter_context(mock.patch(f"torch.{name}", value))
        # Without a GPU, C++ then asks a stand-in which one "cuda" means, as with fake tensors.
        torch._C._ensureCUDADeviceGuardSet()
        # Or `torch.tensor(..., device="cuda")` would not come by the mode.
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, only_lifts)
        yield stack.enter_context(device)
