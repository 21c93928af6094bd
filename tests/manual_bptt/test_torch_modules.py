import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from manual_bptt import torch as by_hand

# Ours in place of PyTorch's: everything that goes in and comes out is the same. The tolerance is
# that of torch.testing for float64; the gradients themselves are judged by the verifier elsewhere.

NAMES = ("RNN", "LSTM", "GRU")
D, H, T, B = 3, 4, 6, 5
FORMS = (
    {},
    {"bias": False},
    {"batch_first": True},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
)


def two(name, **options):
    torch.manual_seed(0)
    theirs = getattr(nn, name)(D, H, dtype=torch.float64, **options)
    ours = getattr(by_hand, name)(D, H, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def start(module, batch=B):
    levels = module.num_layers * (2 if module.bidirectional else 1)
    shape = (levels, batch, H)
    one = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    if isinstance(module, nn.LSTM):
        return one, torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return one


def states(found):
    return found if isinstance(found, tuple) else (found,)


def loss(output, last):
    output = output.data if isinstance(output, nn.utils.rnn.PackedSequence) else output
    return output.sin().sum() + sum((s * s).sum() for s in states(last))


def same_gradients(theirs, ours, inputs):
    for (name, p), q in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, msg=lambda m, name=name: f"{name}: {m}")
    for a, b in inputs:
        torch.testing.assert_close(b.grad, a.grad)


def copied(tensor):
    return tensor.detach().clone().requires_grad_()


@pytest.mark.parametrize("options", FORMS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_last_states_and_all_gradients_are_the_same(name, options):
    theirs, ours = two(name, **options)
    shape = (B, T, D) if options.get("batch_first") else (T, B, D)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    given = states(start(theirs))
    y, ours_given = copied(x), [copied(s) for s in given]
    pack = (lambda s: tuple(s)) if name == "LSTM" else (lambda s: s[0])
    one, other = theirs(x, pack(given)), ours(y, pack(ours_given))
    torch.testing.assert_close(other, one)
    loss(*one).backward()
    loss(*other).backward()
    same_gradients(theirs, ours, [(x, y), *zip(given, ours_given, strict=True)])


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_packed_sequences_too(name, bidirectional, in_order):
    theirs, ours = two(name, bidirectional=bidirectional)
    lengths = torch.tensor([6, 4, 4, 2, 1] if in_order else [2, 6, 1, 4, 4])
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    y = copied(x)
    found = []
    for module, z in ((theirs, x), (ours, y)):
        packed = pack_padded_sequence(z, lengths, enforce_sorted=in_order)
        found.append(module(packed, start_again(module)))
    (one, one_last), (other, other_last) = found
    torch.testing.assert_close(other.data, one.data)
    torch.testing.assert_close(other_last, one_last)
    for a, b in zip(other[1:], one[1:], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    torch.testing.assert_close(pad_packed_sequence(other), pad_packed_sequence(one))
    loss(one, one_last).backward()
    loss(other, other_last).backward()
    same_gradients(theirs, ours, [(x, y)])


def start_again(module):
    torch.manual_seed(1)
    return start(module)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_sequence_without_a_batch(name):
    theirs, ours = two(name)
    x = torch.randn(T, D, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_relu_is_taken_over():
    theirs, ours = two("RNN", nonlinearity="relu")
    x = torch.randn(T, B, D, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_passes(name):
    _, ours = two(name)
    x = torch.randn(3, 2, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: (*states(ours(z)[1]), ours(z)[0]), x)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_of_a_gradient_is_refused(name):
    _, ours = two(name)
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="expected a first derivative, got create_graph=True"):
        torch.autograd.grad(ours(x)[0].sum(), x, create_graph=True)


def test_an_output_changed_in_its_place_is_noticed():
    _, ours = two("LSTM")
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    output, _ = ours(x)
    doubled = output * 2
    output.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        doubled.sum().backward()


def changed_between(module, what, frozen):
    """The gradients after a change of that in its place, between the way forward and back."""
    torch.manual_seed(1)
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad="x" not in frozen)
    hx = tuple(torch.randn(1, B, H, dtype=torch.float64) for _ in range(2))
    for name, p in module.named_parameters():
        p.requires_grad_(name not in frozen)
    output, _ = module(x, hx if isinstance(module, nn.LSTM) else hx[0])
    among = {**dict(module.named_parameters()), "x": x, "h0": hx[0], "c0": hx[1]}
    with torch.no_grad():
        among[what].add_(0.5)
    output.sin().sum().backward()
    return [a.grad for a in (x, *module.parameters()) if a.grad is not None]


READ = [(n, what) for n in NAMES for what in ("weight_ih_l0", "weight_hh_l0", "x", "h0")]


@pytest.mark.parametrize(("name", "what"), [*READ, ("LSTM", "c0")])
def test_what_the_way_back_reads_changed_in_its_place_is_noticed(name, what):
    theirs, ours = two(name)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation|modified inplace"):
        changed_between(theirs, what, ())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        changed_between(ours, what, ())


@pytest.mark.parametrize(
    ("what", "frozen"),
    [
        ("bias_ih_l0", ()),
        ("bias_hh_l0", ()),
        ("weight_ih_l0", ("x",)),
        ("x", ("x", "weight_ih_l0")),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_it_does_not_read_may_change(name, what, frozen):
    theirs, ours = (changed_between(module, what, frozen) for module in two(name))
    torch.testing.assert_close(ours, theirs)


def test_dropout_is_between_layers_and_in_training_alone():
    _, ours = two("GRU", num_layers=2, dropout=0.5)
    x = torch.randn(T, B, D, dtype=torch.float64)
    assert not torch.equal(ours(x)[0], ours(x)[0])
    ours.eval()
    assert torch.equal(ours(x)[0], ours(x)[0])


def test_nothing_is_kept_without_gradients():
    _, ours = two("LSTM")
    with torch.no_grad():
        output, _ = ours(torch.randn(T, B, D, dtype=torch.float64))
    assert not output.requires_grad


X = torch.zeros(6, 5, 3)
WRONG = (
    (ValueError, r"input: expected shape \(T, B, D\) with D = 3", (X[..., :2],)),
    (TypeError, r"input: expected a torch.Tensor, got list", ([1.0],)),
    (TypeError, r"input: expected torch.float32 or", (X.half(),)),
    (TypeError, r"input: expected a tensor on the CPU", (X.to("meta"),)),
    (ValueError, r"hx: expected 2 tensors", (X, torch.zeros(1, 5, 4))),
    (
        ValueError,
        r"hx: expected shape \(1, 5, 4\), got \(1, 4, 4\)",
        (X, (torch.zeros(1, 4, 4),) * 2),
    ),
    (ValueError, r"x: expected finite values", (X + torch.nan,)),
)


@pytest.mark.parametrize(("error", "said", "given"), WRONG)
def test_what_it_cannot_take_is_named(error, said, given):
    with pytest.raises(error, match=said):
        by_hand.LSTM(D, H)(*given)


def test_a_projection_is_refused():
    with pytest.raises(ValueError, match="proj_size: expected 0, got 2"):
        by_hand.LSTM(D, H, proj_size=2)


class Tagger(nn.Module):
    """A small real model: embedding, two layers in both directions, a readout."""

    def __init__(self, package):
        super().__init__()
        self.embedding = nn.Embedding(11, D)
        self.layers = package.LSTM(D, H, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * H, 7)

    def forward(self, words):
        return self.head(self.layers(self.embedding(words))[0])


def test_a_model_trains_along_the_same_curve():
    torch.manual_seed(0)
    theirs, ours = Tagger(nn).double(), Tagger(by_hand).double()
    ours.load_state_dict(theirs.state_dict())
    words, tags = torch.randint(0, 11, (8, 9)), torch.randint(0, 7, (8, 9))
    curves = []
    for model in (theirs, ours):
        adam = torch.optim.Adam(model.parameters(), lr=0.02)
        curve = []
        for _ in range(30):
            adam.zero_grad()
            loss = nn.functional.cross_entropy(model(words).flatten(0, 1), tags.flatten())
            loss.backward()
            adam.step()
            curve.append(loss.item())
        curves.append(torch.tensor(curve))
    torch.testing.assert_close(curves[1], curves[0])
    assert curves[0][-1] < curves[0][0]
