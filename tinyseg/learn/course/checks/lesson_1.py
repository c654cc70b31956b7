"""Lesson 1: the engine, on functions of a few numbers whose derivatives everybody knows."""

import numpy as np

from tinyseg.autograd import Function, Tensor, engine, no_grad
from tinyseg.learn.comparing import Different, case, same, slopes


class Square(Function):
    """Return x², and count the backward passes."""

    calls = 0

    def forward(self, x):
        self.saved = x
        return x * x

    def backward(self, gy):
        Square.calls += 1
        return 2 * self.saved * gy


class Product(Function):
    """Return a · b."""

    def forward(self, a, b):
        self.saved = a, b
        return a * b

    def backward(self, gy):
        a, b = self.saved
        return gy * b if self.needs[0] else None, gy * a if self.needs[1] else None


class Looks(Function):
    """Return x, and look at what a node has to know when forward runs."""

    def forward(self, x):
        for name in ("needs", "input_shapes", "input_dtypes"):
            expect(name in vars(self), f"{name} is not set yet when self.apply runs; an op may ask for it.")
        return x.copy()

    def backward(self, gy):
        return gy.copy()


class Sum(Function):
    """Return a + b; both get the same array as their gradient."""

    def forward(self, a, b):
        return a + b

    def backward(self, gy):
        return gy, gy


def leaf(*values):
    """Return a tensor that asks for its gradient."""
    return Tensor(np.array(values, float), requires_grad=True)


def expect(holds, words):
    """Raise `Different` with these words unless something holds."""
    if not holds:
        raise Different(words)


def test_1_a_call_records_the_graph():
    x, c = leaf(2.0, 3.0), Tensor(np.array([5.0, 7.0]))
    node = Product()
    y = node(x, c)
    expect(isinstance(y, Tensor), f"a call returns a {type(y).__name__}, and should return a Tensor.")
    same(y.data, [10.0, 21.0], "the result of a · b")
    expect(y.creator is node, "the result's creator should be the Function that was called.")
    expect(y.requires_grad, "the result should require gradients, since one of its inputs does.")
    expect(node.needs == (True, False), f"needs is {node.needs}, and should be (True, False): only a requires grad.")
    expect(len(node.parents) == 2 and node.parents[0] is x, "the first parent should be the leaf x itself.")
    expect(node.parents[1] is None, "an input that needs no gradient has None as its parent.")
    after = Square()
    after(y)
    expect(after.parents[0] is node, "where an input was computed, the parent is the Function that made it.")
    found = tuple(node.input_shapes), [np.dtype(d) for d in node.input_dtypes]
    expect(found == (((2,), (2,)), [np.dtype(float)] * 2), f"input_shapes and input_dtypes are {found}.")
    for words, wrap in (("under no_grad()", no_grad), ("of two tensors that need no gradient", None)):
        if wrap is None:
            z = Product()(c, c)
        else:
            with wrap():
                z = Square()(x)
        expect(z.creator is None and not z.requires_grad, f"the result of a call {words} should have no graph.")
    same(Product()(x, 3.0).data, [6.0, 9.0], "the product with the number 3")
    Looks()(x)
    with no_grad(), case("under no_grad()"):
        Looks()(x)


def test_2_every_node_comes_after_its_parents():
    x = leaf(1.5)
    a = Square()(x)
    b, c = Square()(a), Square()(a)
    p = Product()(b, c)
    y = Sum()(p, a)
    names = {t.creator: name for t, name in ((a, "a"), (b, "b"), (c, "c"), (p, "p"), (y, "y"))}
    with case("the graph a = x², b = a², c = a², p = b c, y = p + a"):
        order = engine._topological(y.creator)
        expect(isinstance(order, list), f"the order is a {type(order).__name__}, and should be a list.")
        found = [names.get(node, "a leaf") for node in order]
        expect(sorted(found) == sorted(names.values()), f"found {', '.join(found)}; expected each of the nodes once.")
        for node in order:
            for parent in (p for p in node.parents if isinstance(p, Function)):
                words = f"{names[node]} comes before {names[parent]}, which it was computed from: {', '.join(found)}."
                expect(order.index(parent) < order.index(node), words)
    with case("root is None, as for a leaf"):
        expect(engine._topological(None) == [], "the order should be an empty list.")
    with case("a graph of which a part was used by an earlier backward pass, which sets parents to None"):
        a.creator.parents = None
        try:
            engine._topological(y.creator)
        except RuntimeError:
            pass
        else:
            raise Different("a RuntimeError should say so.")
    with case("a graph of 5000 nodes in a row"):
        for _ in range(5000):
            x = Sum()(x, 1.0)
        expect(len(engine._topological(x.creator)) == 5000, "the order should have 5000 nodes.")


def test_3_a_leaf_adds_up_its_gradients():
    x, g = leaf(0.0, 0.0), np.array([1.0, 2.0])
    engine._accumulate(x, g, shared=True)
    same(x.grad, g, "the first gradient")
    expect(x.grad is not g, "a shared array was kept: somebody else may change it. Copy it.")
    engine._accumulate(x, np.array([10.0, 20.0]), shared=True)
    same(x.grad, [11.0, 22.0], "the sum of two gradients")
    same(g, [1.0, 2.0], "the array that was handed over first")
    y = leaf(0.0)
    engine._accumulate(y, np.array([3.0]), shared=False)
    same(y.grad, [3.0], "the first gradient, of an array that nobody else holds")


def gradient_of(x):
    """Return a leaf's gradient."""
    expect(x.grad is not None, "no gradient has reached the leaf: its grad is None.")
    return x.grad


def test_4_the_chain_rule_goes_through_the_graph():
    with case("one node, x² at 3"):
        x = leaf(3.0)
        engine._backward(Square()(x), np.array([1.0]), None)
        same(gradient_of(x), [6.0], "the gradient")
    with case("a chain, (x²)² at 2, with the cotangent 10"):
        x = leaf(2.0)
        engine._backward(Square()(Square()(x)), np.array([10.0]), None)
        same(gradient_of(x), [320.0], "the gradient")
    with case("x used twice in one node, x · x"):
        x = leaf(4.0)
        engine._backward(Product()(x, x), np.array([1.0]), None)
        same(gradient_of(x), [8.0], "the gradient")
    with case("a node that two others use, (x² + 1) · x²"):
        x = leaf(2.0)
        Square.calls = 0
        a = Square()(x)
        engine._backward(Product()(Sum()(a, 1.0), a), np.array([1.0]), None)
        expect(Square.calls == 1, f"backward of one node was called {Square.calls} times, and should be called once.")
        same(gradient_of(x), [36.0], "the gradient")
    with case("a node whose output both halves of the graph use, at different depths"):
        values = np.array([0.7, -1.2])

        def f(values):
            s = values**2
            return float(((s**2 + s) * s * values).sum())

        x = leaf(*values)
        s = Square()(x)
        y = Product()(Product()(Sum()(Square()(s), s), s), x)
        engine._backward(y, np.ones(2), None)
        same(gradient_of(x), slopes(f, values), "the gradient", 1e-6)
    with case("a sum whose two leaves get one array"):
        a, b = leaf(1.0), leaf(2.0)
        engine._backward(Sum()(a, b), np.array([5.0]), None)
        a.grad += 1
        same(gradient_of(b), [5.0], "the gradient of b after that of a was changed")
    with case("s = a² + b², y = s + a²: a sum hands one array to both of its parents"):
        a, b, gy = leaf(2.0), leaf(3.0), np.array([1.0])
        square = Square()(a)
        y = Sum()(Sum()(square, Square()(b)), square)
        engine._backward(y, gy, None)
        same(gradient_of(b), [6.0], "the gradient of b")
        same(gradient_of(a), [8.0], "the gradient of a")
        same(gy, [1.0], "gy after the call")
    with case("a node whose tensor has asked for its gradient, by retain_grad()"):
        x = leaf(3.0)
        square = Square()(x)
        square.retain_grad()
        engine._backward(Square()(square), np.array([1.0]), None)
        same(gradient_of(square), [18.0], "the gradient of x²")
    with case("a second backward pass"):
        x = leaf(3.0)
        for _ in range(2):
            engine._backward(Square()(x), np.array([1.0]), None)
        same(gradient_of(x), [12.0], "the sum of both gradients")
    with case("after the backward pass"):
        y = Square()(leaf(3.0))
        node = y.creator
        engine._backward(y, np.array([1.0]), None)
        expect(node.saved is None and node.parents is None, "saved and parents of a node should be None afterwards.")
    with case("a leaf as the root"):
        x = leaf(3.0)
        engine._backward(x, np.array([2.0]), None)
        same(gradient_of(x), [2.0], "the gradient")


def draw(path):
    """Draw a graph that the student's engine has recorded, with the gradients that it found."""
    from tinyseg.learn.course.pictures import save
    from tinyseg.learn.graph_picture import draw_graph, trace_backward

    a, b = leaf(2.0), leaf(3.0)
    square = Square()(a)
    product = Product()(square, b)
    y = Sum()(product, square)
    picture = draw_graph(y, names={"a": a, "b": b, "a²": square, "a² b": product, "y": y})
    picture.draw(trace_backward(y))
    save(picture.figure, path)
