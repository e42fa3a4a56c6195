"""Module: registration, walking, modes, dtypes, state, text and errors."""

import copy
import threading

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.errors import (
    ArgumentError,
    ArgumentTypeError,
    ChainruleError,
    ModuleError,
    ShapeError,
    StateDictError,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.head = nn.Linear(2, 3)
        self.scale = nn.Parameter(cr.ones((1,)))
        self.register_buffer("steps", cr.zeros((), dtype=cr.int64))
        self.register_buffer("scratch", cr.zeros((2,)), persistent=False)
        self.note = "no part"

    def forward(self, x):
        return self.head(self.features(x).mean(axis=(2, 3))) * self.scale


PARAMETERS = [
    "scale", "features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias",
    "head.weight", "head.bias",
]  # fmt: skip
BUFFERS = [
    "steps", "scratch", "features.1.running_mean", "features.1.running_var",
    "features.1.num_batches_tracked",
]  # fmt: skip


# --- registration ---------------------------------------------------------------------------------


def test_parts_are_found_by_path():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == PARAMETERS
    assert [name for name, _ in net.named_buffers()] == BUFFERS
    assert [name for name, _ in net.named_children()] == ["features", "head"]
    assert [name for name, _ in net.named_modules()] == [
        "", "features", "features.0", "features.1", "features.2", "head",
    ]  # fmt: skip
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert [name for name, _ in net.named_parameters(prefix="net", recurse=False)] == ["net.scale"]
    assert next(net.modules()) is net
    assert net.get_submodule("features.1") is net.features[1]
    assert net.get_submodule("") is net
    assert net.get_parameter("head.weight") is net.head.weight
    assert net.get_buffer("features.1.running_mean") is net.features[1].running_mean
    assert "scale" in dir(net)
    assert "features" in dir(net)


def test_paths_that_lead_nowhere():
    net = Net()
    with pytest.raises(ModuleError, match=r"'features\.7'.*it has 0, 1, 2"):
        net.get_submodule("features.7")
    with pytest.raises(ModuleError, match="no parameter 'wait'; it has weight, bias"):
        net.get_parameter("head.wait")
    with pytest.raises(ModuleError, match="no buffer"):
        net.get_buffer("head.weight")
    with pytest.raises(AttributeError, match=r"no attribute 'heat'\. Did you mean 'head'"):
        net.heat  # noqa: B018
    with pytest.raises(AttributeError, match="one device"):
        net.cuda()


def test_before_init_is_a_clear_error():
    class Early(nn.Module):
        def __init__(self, part):
            self.part = part

    for part in (nn.Parameter(cr.ones(2)), nn.Linear(1, 1), nn.Buffer(cr.ones(2))):
        with pytest.raises(ModuleError, match=r"super\(\).__init__\(\)"):
            Early(part)

    class Forgot(nn.Module):
        def __init__(self):
            self.number = 3

        def forward(self, x):
            return x

    with pytest.raises(ModuleError, match=r"super\(\).__init__\(\)"):
        Forgot()(cr.ones(2))


def test_assignment_moves_a_name_from_place_to_place():
    module = nn.Module()
    module.part = 3
    module.part = nn.Parameter(cr.ones(2))
    assert "part" not in module.__dict__
    assert list(module._parameters) == ["part"]
    module.part = nn.Linear(1, 1)
    assert list(module._modules) == ["part"]
    assert not module._parameters
    module.part = nn.Buffer(cr.ones(2), persistent=False)
    assert list(module._buffers) == ["part"]
    assert not module._modules
    assert not module.state_dict()
    module.part = nn.Parameter(cr.ones(2))
    assert list(module.state_dict()) == ["part"]
    del module.part
    with pytest.raises(AttributeError):
        module.part  # noqa: B018
    with pytest.raises(ModuleError, match="no attribute"):
        del module.part


def test_a_replaced_child_keeps_its_place():
    net = Net()
    net.features = nn.Sequential(nn.Conv2d(1, 2, 1))
    assert [name for name, _ in net.named_children()] == ["features", "head"]
    net.features[0] = nn.Conv2d(1, 2, 5)
    assert net.features[0].kernel_size == (5, 5)


def test_assignment_of_the_wrong_kind():
    net = Net()
    with pytest.raises(ArgumentTypeError, match="cannot assign Tensor to parameter 'scale'"):
        net.scale = net.scale * 2
    with pytest.raises(ArgumentTypeError, match="cannot assign str to module 'head'"):
        net.head = "text"
    with pytest.raises(ArgumentTypeError, match="cannot assign int to buffer 'steps'"):
        net.steps = 3
    net.scale = None
    net.head = None
    net.steps = None
    assert net.scale is None
    assert "scale" not in net.state_dict()
    assert "steps" not in net.state_dict()


def test_registration_checks_names():
    net = Net()
    for register in (net.register_parameter, net.register_buffer, net.register_module):
        for name, error in (("a.b", ArgumentError), ("", ArgumentError), (3, ArgumentTypeError)):
            with pytest.raises(error):
                register(name, None)
        with pytest.raises(ArgumentError, match="already"):
            register("forward", None)
    with pytest.raises(ArgumentTypeError, match=r"nn\.Parameter"):
        net.register_parameter("p", cr.ones(2))
    with pytest.raises(ArgumentTypeError, match="tensor or None"):
        net.register_buffer("b", 3)
    with pytest.raises(ArgumentTypeError, match=r"nn\.Module"):
        net.register_module("m", 3)
    net.add_module("extra", nn.Identity())
    assert "extra" in dict(net.named_children())


# --- parameters -----------------------------------------------------------------------------------


def test_parameter():
    values = np.ones((2, 2), np.float32)
    p = nn.Parameter(values)
    values[0, 0] = 7
    assert p.tolist() == [[1, 1], [1, 1]]
    assert isinstance(p, cr.Tensor)
    assert p.requires_grad
    assert p.is_leaf
    assert p.dtype == cr.float32
    assert type(p * 2) is cr.Tensor
    assert type(p.detach()) is cr.Tensor
    assert repr(p).startswith("Parameter(")
    assert "requires_grad=True" in repr(p)
    frozen = nn.Parameter([1.0, 2.0], requires_grad=False)
    assert not frozen.requires_grad
    with pytest.raises(ChainruleError, match="floating"):
        nn.Parameter([1, 2])
    twin = copy.deepcopy(p)
    assert type(twin) is nn.Parameter
    assert twin.requires_grad
    p.no_decay = ["mark"]
    assert copy.deepcopy(p).no_decay == ["mark"]
    assert copy.deepcopy(p).no_decay is not p.no_decay
    with pytest.raises(AttributeError):
        p.mark  # noqa: B018
    (p * 3).sum().backward()
    assert p.grad.tolist() == [[3, 3], [3, 3]]
    assert twin.grad is None
    assert copy.deepcopy(p).grad.tolist() == p.grad.tolist()
    with pytest.raises(ChainruleError, match="no_grad"):
        p += 1
    with cr.no_grad():
        same = p
        p += 1
    assert p is same
    assert p.tolist() == [[2, 2], [2, 2]]
    assert p.requires_grad


def test_buffer():
    b = nn.Buffer([1.0, 2.0], persistent=False)
    assert isinstance(b, cr.Tensor)
    assert not b.requires_grad
    twin = copy.deepcopy(b)
    assert type(twin) is nn.Buffer
    assert twin.persistent is False
    module = nn.Module()
    module.here, module.gone = nn.Buffer([1.0]), b
    assert list(module.state_dict()) == ["here"]
    assert [name for name, _ in module.named_buffers()] == ["here", "gone"]


def test_shared_parameters_are_given_once():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = nn.Sequential(first, second, first)
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    twice = [n for n, _ in model.named_parameters(remove_duplicate=False)]
    assert twice == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert list(model.state_dict()) == twice
    twin = copy.deepcopy(model)
    assert twin[0] is twin[2]
    assert twin[0].weight is twin[1].weight


# --- modes, gradients, dtypes ---------------------------------------------------------------------


def test_modes():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.features.train()
    assert not net.training
    assert net.features[1].training
    with pytest.raises(ArgumentError, match="True or False"):
        net.train("yes")


def test_freezing():
    net = Net()
    assert net.features.requires_grad_(False) is net.features
    net(cr.random.normal((4, 1, 5, 5))).sum().backward()
    assert all(p.grad is None for p in net.features.parameters())
    assert all(p.grad is not None for p in net.head.parameters())
    net.zero_grad(set_to_none=False)
    assert not net.head.weight.grad.any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_()
    assert all(p.requires_grad for p in net.parameters())


def test_casting_keeps_the_parameters():
    net = Net()
    held = list(net.parameters())
    net(cr.random.normal((4, 1, 5, 5))).sum().backward()
    assert net.double() is net
    assert list(map(id, net.parameters())) == list(map(id, held))
    assert all(p.dtype == cr.float64 and p.grad.dtype == cr.float64 for p in held)
    assert net.steps.dtype == cr.int64
    assert net.features[1].running_mean.dtype == cr.float64
    assert net(cr.random.normal((4, 1, 5, 5), dtype=cr.float64)).dtype == cr.float64
    net.float()
    assert net.scratch.dtype == cr.float32
    for how in ((cr.float64,), ("float64",), (cr.ones(1, dtype=cr.float64),), ("cpu", cr.float64)):
        assert net.float().to(*how).scale.dtype == cr.float64
    assert net.to(dtype="float32", device="cpu").cpu().scale.dtype == cr.float32
    with pytest.raises(ArgumentTypeError, match="int64"):
        net.to(cr.int64)
    with pytest.raises(cr.errors.DeviceError):
        net.to("cuda")


def test_apply_goes_from_the_inside_out():
    seen = []
    net = Net()
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Sequential", "Linear", "Net"]


# --- state ----------------------------------------------------------------------------------------


def test_state_is_a_snapshot_and_loads():
    cr.manual_seed(0)
    net, other = Net(), Net()
    state = net.state_dict()
    persistent = [n for n in BUFFERS if n != "scratch"]
    assert sorted(state) == sorted(PARAMETERS + persistent)
    assert list(state)[:2] == ["scale", "steps"]
    assert not any(value.requires_grad for value in state.values())
    assert net.state_dict(keep_vars=True)["head.weight"] is net.head.weight
    assert list(net.head.state_dict(prefix="x.")) == ["x.weight", "x.bias"]
    before = np.array(state["head.weight"])
    with cr.no_grad():
        net.head.weight.zero_()
    np.testing.assert_array_equal(state["head.weight"], before)
    weight = other.head.weight
    assert other.load_state_dict(state) == ([], [])
    assert other.head.weight is weight
    assert weight.requires_grad
    np.testing.assert_array_equal(weight.detach(), before)


def test_loading_casts_copies_and_takes_arrays():
    layer = nn.Linear(2, 2)
    values = {"weight": np.eye(2), "bias": [1, 2]}
    layer.load_state_dict(values)
    assert layer.weight.dtype == cr.float32
    values["weight"][0, 0] = 9
    assert layer.weight.tolist() == [[1, 0], [0, 1]]
    assert layer.bias.tolist() == [1, 2]
    layer.load_state_dict({"weight": np.eye(2), "bias": np.zeros(2)}, assign=True)
    assert layer.weight.dtype == cr.float64


def test_loading_is_all_or_nothing():
    net = Net()
    state = net.state_dict()
    before = {key: np.array(value) for key, value in state.items()}
    changed = {key: np.ones_like(value) for key, value in before.items()}

    def refused(state, *parts, **options):
        with pytest.raises(StateDictError) as caught:
            net.load_state_dict(state, **options)
        for part in parts:
            assert part in str(caught.value)
        for key, value in net.state_dict().items():
            np.testing.assert_array_equal(value, before[key])

    renamed = dict(changed)
    renamed["head.wieght"] = renamed.pop("head.weight")
    refused(
        renamed, "missing: 'head.weight'", "'head.wieght' (nearest: 'head.weight')", "strict=False"
    )
    reshaped = changed | {"head.weight": np.ones((3, 5))}
    for strict in (True, False):
        refused(reshaped, "'head.weight'", "(3, 5)", "(3, 2)", strict=strict)
    refused({f"module.{k}": v for k, v in changed.items()}, "removeprefix('module.')")
    refused(changed | {"scale": np.ones(1, complex)}, "'scale'", "complex128")
    with pytest.raises(ArgumentTypeError, match=r"'scale'.*no tensor"):
        net.load_state_dict(changed | {"scale": "text"})
    with pytest.raises(ArgumentTypeError, match="dict of tensors"):
        net.load_state_dict([1, 2])
    with pytest.raises(RuntimeError):
        net.load_state_dict({})
    with pytest.raises(ValueError):
        net.load_state_dict({})


def test_loading_what_fits():
    net = Net()
    result = net.load_state_dict({"scale": np.full(1, 4.0), "other": np.ones(1)}, strict=False)
    assert net.scale.tolist() == [4]
    assert result.unexpected_keys == ["other"]
    assert "head.weight" in result.missing_keys
    assert "IncompatibleKeys" in str(result)


def test_old_batch_norms_have_counted_no_batches():
    norm = nn.BatchNorm1d(2)
    state = norm.state_dict()
    del state["num_batches_tracked"]
    assert norm.load_state_dict(state) == ([], [])


# --- text -----------------------------------------------------------------------------------------


def test_text():
    assert repr(Net()) == (
        "Net(\n"
        "  (features): Sequential(\n"
        "    (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))\n"
        "    (1): BatchNorm2d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, "
        "track_running_stats=True)\n"
        "    (2): ReLU()\n"
        "  )\n"
        "  (head): Linear(in_features=2, out_features=3, bias=True)\n"
        ")"
    )

    class Extra(nn.Module):
        def extra_repr(self):
            return "a=1\nb=2"

    assert repr(Extra()) == "Extra(\n  a=1\n  b=2\n)"
    assert repr(nn.Module()) == "Module()"


# --- errors ---------------------------------------------------------------------------------------


def test_errors_name_the_layer_by_its_path():
    net = Net()
    with pytest.raises(ShapeError, match=r"in layer 'features\.0' \(Conv2d\)"):
        net(cr.ones((2, 5, 5, 5)))
    with pytest.raises(ShapeError, match=r"in layer '0' \(Conv2d\)"):
        net.features(cr.ones((2, 5, 5, 5)))
    with pytest.raises(ShapeError, match=r"in layer Conv2d"):
        net.features[0](cr.ones((2, 5, 5, 5)))


def test_likely_fixes():
    def message(layer, *shape, dtype=cr.float32):
        with pytest.raises(ChainruleError) as caught:
            layer(cr.ones(shape, dtype=dtype))
        return str(caught.value)

    linear = nn.Linear(784, 16)
    assert "nn.Flatten()" in message(linear, 32, 1, 28, 28)
    assert "(32, 1, 28, 28)" in message(linear, 32, 1, 28, 28)
    assert "(16, 784)" in message(linear, 32, 1, 28, 28)
    assert "x.reshape(1, -1)" in message(linear, 28, 28)
    assert "x.T" in message(linear, 784, 32)
    assert "x.astype(cr.float32)" in message(linear, 32, 784, dtype=cr.uint8)
    assert "model.double()" in message(linear, 32, 784, dtype=cr.float64)
    conv = nn.Conv2d(3, 8, 3)
    assert "x.permute_dims(0, 3, 1, 2)" in message(conv, 4, 28, 28, 3)
    assert "x[:, None]" in message(nn.Conv2d(1, 8, 3), 32, 28, 28)
    assert "(batch, channels, height, width)" in message(conv, 4, 3)
    assert "smaller kernel" in message(conv, 4, 3, 2, 2)
    assert "no output" in message(nn.MaxPool2d(4), 1, 3, 2, 2)
    assert "drop_last" in message(nn.BatchNorm1d(3), 1, 3)
    assert "BatchNorm2d" in message(nn.BatchNorm1d(3), 4, 3, 2, 2)
    assert "one value for each channel" in message(nn.BatchNorm1d(3), 4, 5)
    assert "x[None]" in message(nn.Flatten(), 5)


def test_a_module_without_forward():
    with pytest.raises(NotImplementedError, match="has no forward"):
        nn.Module()(1)


def test_modules_may_run_in_several_threads():
    net = Net().eval()
    x = cr.random.normal((2, 1, 6, 6))
    expected = np.array(net(x).detach())
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(np.array(net(x).detach()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for y in found:
        np.testing.assert_array_equal(y, expected)
